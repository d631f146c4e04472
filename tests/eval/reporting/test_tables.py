"""The legend of the tables states the conditions of the timings."""

from pathlib import Path

import pytest

from eval.reporting.tables import legend
from eval.schema import Latency, Record, Throughput, read_results

TEACHER = read_results(Path(__file__).parents[3] / "docs" / "results.json").records["teacher"]


def waited(timing: Latency, policy: str | None) -> Latency:
    return timing.model_copy(update={"protocol": timing.protocol.model_copy(update={"wait_policy": policy})})


@pytest.mark.parametrize("policy", [None, "PASSIVE"])
def test_the_legend_says_how_the_threads_of_the_timings_waited(policy):
    batches = [waited(batch, policy) for batch in TEACHER.throughput.batches]
    record = Record(latency=waited(TEACHER.latency, policy), throughput=Throughput(batches=batches))
    lines = [line for line in legend([record]) if line]
    assert len(lines) == 2  # latency, throughput
    assert all(f"(OMP_WAIT_POLICY {policy or 'not stated'})" in line for line in lines)
