"""Measure training speed: images and floating-point operations a second, and the fraction of the machine's peak.

    python -m mobilediff.training.teacher --config mobilediff/training/configs/teacher.yaml --benchmark

runs the stage's own steps on its own data, prints the figures and saves nothing.
"""

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from mobilediff.models.macs import CPU_ATTENTION
from mobilediff.timing import matrix_products, seconds, summary

WARM_UP, TIMED = 4, 20
COUNTED = 2  # a discriminator may be trained in every second step only


def measure_steps(run_step: Callable[[], object], batch_size: int, device: torch.device, dtype: str) -> dict:
    """Time a training step, in turn with the matrix product of its dtype.

    Convolutions and matrix products are counted, forward and backward, in eager mode: values that torch.compile
    computes again instead of keeping them are no further work.

    Args:
        run_step: trains one step.
        batch_size: images of it.
        device: where it runs.
        dtype: of the product that is its peak, "fp32" or "bf16".

    Returns:
        `images_per_second` at the median step, the `summary` of the steps' times, `gflops_image` (GFLOP an image),
        `gflops` (GFLOP/s achieved), `peak_gflops` and `fraction_of_peak`.
    """
    with (
        torch.compiler.set_stance("force_eager"),
        FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter,
    ):
        for _ in range(COUNTED):
            run_step()
    gflops_step = counter.get_total_flops() / COUNTED / 1e9
    product = matrix_products(device)[dtype]
    for _ in range(WARM_UP):
        run_step()
        product()
    steps, products = zip(*((seconds(run_step, device), seconds(product, device)) for _ in range(TIMED)), strict=True)
    times, peak = summary(steps), product.gflops(min(products))
    median = times["median_ms"] / 1000
    return {
        "images_per_second": batch_size / median,
        **times,
        "gflops_image": gflops_step / batch_size,
        "gflops": gflops_step / median,
        "peak_gflops": peak,
        "fraction_of_peak": gflops_step / median / peak,
    }
