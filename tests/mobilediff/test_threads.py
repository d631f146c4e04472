"""Processors are counted and threads sleep, before torch is imported."""

import os
import re
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


SPINS = {"PASSIVE": "0", "ACTIVE": "30000000000", "unset": "300000"}  # of GNU's OpenMP, before a thread sleeps


def imported(code: str, given: str | None) -> tuple[str, str]:
    """How often OpenMP's threads spin after `code`, as OpenMP itself says, and the policy that is stated."""
    env = {name: value for name, value in os.environ.items() if name != threads.WAIT_POLICY}
    env |= {"OMP_DISPLAY_ENV": "verbose"} | ({} if given is None else {threads.WAIT_POLICY: given})
    code += "; from mobilediff.threads import wait_policy; print(wait_policy())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    (spins,) = re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)
    return spins, done.stdout.strip()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other OpenMP libraries do not say how they wait")
@pytest.mark.parametrize(
    ("code", "given", "policy"),
    [
        ("import app", None, "PASSIVE"),
        ("import app", "active", "ACTIVE"),
        ("import eval.latency", None, "PASSIVE"),
        ("import eval.latency", "ACTIVE", "ACTIVE"),
        ("import eval; import torch", "", "unset"),
        ("import torch; import eval", None, "unset"),  # OpenMP has read its variables
        ("import torch; import eval", "PASSIVE", "PASSIVE"),
    ],
)
def test_threads_sleep_unless_told_otherwise_and_the_policy_is_stated(code, given, policy):
    assert imported(code, given) == (SPINS[policy], policy)
