"""The legend of the tables states the conditions of the timings."""

import copy
from pathlib import Path

import pytest

from eval.reporting.tables import legend
from eval.schema import read_results

TEACHER = read_results(Path(__file__).parents[3] / "docs" / "results.json").dump()["records"]["teacher"]


@pytest.mark.parametrize("stated", [{}, {"wait_policy": "PASSIVE"}])
def test_the_legend_says_how_the_threads_of_the_timings_waited(stated):
    record = copy.deepcopy({key: TEACHER[key] for key in ("latency", "throughput")})
    for timed in (record["latency"], *record["throughput"]["batches"]):
        timed["protocol"].pop("wait_policy", None)
        timed["protocol"] |= stated
    lines = [line for line in legend([record]) if line]
    assert len(lines) == 2  # latency, throughput
    assert all(f"(OMP_WAIT_POLICY {stated.get('wait_policy', 'not stated')})" in line for line in lines)
