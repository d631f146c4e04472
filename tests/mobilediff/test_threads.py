"""Processors are counted and threads sleep, before torch is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mobilediff import threads

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("content", "expected"), [(None, 8), ("max 100000", 8), ("200000 100000", 2), ("50000 100000", 1)]
)
def test_processors_are_those_of_the_affinity_and_the_quota(monkeypatch, tmp_path, content, expected):
    if content is not None:
        (tmp_path / "cpu.max").write_text(content)
    monkeypatch.setattr(threads, "CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert threads.available_cpus() == expected
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS and Windows
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert threads.available_cpus() == expected


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other OpenMP libraries do not say how they wait")
@pytest.mark.parametrize(("given", "policy"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
@pytest.mark.parametrize("module", ["app", "eval.latency"])
def test_threads_sleep_unless_told_otherwise(module, given, policy):
    env = {name: value for name, value in os.environ.items() if name != threads.WAIT_POLICY}
    env |= {"OMP_DISPLAY_ENV": "true"} | ({threads.WAIT_POLICY: given} if given else {})
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}"], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    assert f"OMP_WAIT_POLICY = '{policy}'" in done.stderr  # what OpenMP itself read
