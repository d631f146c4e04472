"""The legend of the tables states the conditions of the timings."""

from pathlib import Path

import pytest

from eval.reporting.tables import legend
from eval.schema import Record, Throughput, read_results

TEACHER = read_results(Path(__file__).parents[3] / "docs" / "results.json").records["teacher"]


@pytest.mark.parametrize("policy", [None, "PASSIVE"])
def test_the_legend_says_how_the_threads_of_the_timings_waited(policy):
    latency, batch = (
        timed.model_copy(update={"protocol": timed.protocol.model_copy(update={"wait_policy": policy})})
        for timed in (TEACHER.latency, TEACHER.throughput.batches[-1])
    )
    lines = [line for line in legend([Record(latency=latency, throughput=Throughput(batches=[batch]))]) if line]
    assert len(lines) == 2  # latency, throughput
    assert all(f"(OMP_WAIT_POLICY {policy or 'not stated'})" in line for line in lines)
