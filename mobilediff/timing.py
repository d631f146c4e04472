"""Time calls, summarise their times, and measure a machine's peaks by a matrix product and a copy."""

import math
import statistics
import time
from collections.abc import Callable, Sequence

import torch

MATRIX_SIZE = 2048
SMALLEST_MATRIX = 128
LONGEST_PRODUCT = 1.0  # seconds
COPIED_BYTES = 2**28  # more than the caches of most processors hold


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Time one call, all its work on the device included, in seconds of wall-clock time."""
    wait = torch.get_device_module(device).synchronize if device.type != "cpu" else lambda: None
    wait()
    start = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - start


class MatrixProduct:
    """Multiply two square matrices, whose best rate is the peak of a machine.

    They have `MATRIX_SIZE` rows, or fewer where that many would take longer than `LONGEST_PRODUCT`, as in bf16 on a
    processor without instructions for it.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device):
        self._resize(min(SMALLEST_MATRIX, MATRIX_SIZE), dtype, device)
        self()
        while self.size < MATRIX_SIZE and 8 * seconds(self, device) < LONGEST_PRODUCT:
            self._resize(2 * self.size, dtype, device)

    def _resize(self, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.size = size
        self.left, self.right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def __call__(self) -> torch.Tensor:
        return self.left @ self.right

    def gflops(self, duration: float) -> float:
        """Convert the seconds of one product to GFLOP/s."""
        return 2 * self.size**3 / duration / 1e9


def matrix_products(device: torch.device) -> dict[str, MatrixProduct]:
    """Make one product for each dtype, "fp32" and "bf16", ready to be timed."""
    return {name: MatrixProduct(dtype, device) for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))}


class MemoryCopy:
    """Copy an array of `COPIED_BYTES`, whose best rate is the bandwidth of a machine's memory."""

    def __init__(self, device: torch.device):
        self.source = torch.ones(COPIED_BYTES // 4, device=device)
        self.target = torch.empty_like(self.source)

    def __call__(self) -> torch.Tensor:
        return self.target.copy_(self.source)

    def gigabytes_per_second(self, duration: float) -> float:
        """Convert the seconds of one copy to GB/s, read and written bytes together."""
        return 2 * self.source.nbytes / duration / 1e9


def summary(times: Sequence[float]) -> dict:
    """Summarise times in seconds: `median_ms`, `p90_ms` (90th percentile, nearest rank) and `runs`."""
    ordered = sorted(times)
    p90 = ordered[math.ceil(0.9 * len(ordered)) - 1]  # nearest rank
    return {"median_ms": 1000 * statistics.median(ordered), "p90_ms": 1000 * p90, "runs": len(ordered)}
