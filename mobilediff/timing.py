"""Time calls, summarise their times, and make matrix products to measure a machine's peak."""

import math
import statistics
import time
from collections.abc import Callable, Sequence

import torch

MATRIX_SIZE = 2048


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Time one call, all its work on the device included, in seconds of wall-clock time."""
    wait = torch.get_device_module(device).synchronize if device.type != "cpu" else lambda: None
    wait()
    start = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - start


def matrix_products(device: torch.device) -> dict[str, Callable[[], object]]:
    """Make one square matrix product for each dtype, "fp32" and "bf16", ready to be timed."""
    calls = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        left, right = (torch.randn(MATRIX_SIZE, MATRIX_SIZE, device=device).to(dtype) for _ in range(2))
        calls[name] = lambda left=left, right=right: left @ right
    return calls


def matrix_gflops(duration: float) -> float:
    """Convert the seconds of one of `matrix_products` to GFLOP/s."""
    return 2 * MATRIX_SIZE**3 / duration / 1e9


def summary(times: Sequence[float]) -> dict:
    """Summarise times in seconds: `median_ms`, `p90_ms` (90th percentile, nearest rank) and `runs`."""
    ordered = sorted(times)
    p90 = ordered[math.ceil(0.9 * len(ordered)) - 1]  # nearest rank
    return {"median_ms": 1000 * statistics.median(ordered), "p90_ms": 1000 * p90, "runs": len(ordered)}
