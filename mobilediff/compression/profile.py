"""Profile each layer of a one-step checkpoint's image, beside the floors that the machine's peaks set.

    python -m mobilediff.compression.profile --model checkpoints/student-1step --output outputs/profile \
        --runtimes pytorch onnxruntime --threads 2

The output folder gets `profile.json` and `profile.png`.
"""

import argparse
from pathlib import Path

from eval.benchmark.blocks import RUNTIMES, check_runtimes
from eval.benchmark.latency import check_options
from eval.benchmark.layers import image_graph, measure_profile
from eval.cli.table import aligned
from eval.protocol import default_device, folder_sha256
from eval.reporting.profile_plots import draw_profile
from eval.samples.pipelines import load_sampler
from mobilediff.command import command_parser, run_command
from mobilediff.compression.profiled import LayerTime, Profile, RuntimeProfile, Total
from mobilediff.files import replaceable_folder, write_json

COMMAND = "mobilediff.compression.profile"
LOG, PICTURE = "profile.json", "profile.png"
SLOWEST = 15
AIM = 4  # times the arithmetic floor
COLUMNS = ["MMACs", "MB", "arithmetic floor ms", "bytes floor ms", "measured ms", "times the larger floor"]


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = command_parser(f"python -m {COMMAND}", __doc__)
    parser.add_argument("--model", required=True, help="a one-step checkpoint folder with a MobileUNet")
    parser.add_argument("--output", required=True, help="folder of the profile")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=["pytorch"], help="that run the image")
    parser.add_argument("--threads", type=int, default=2, help="threads of the CPU")
    parser.add_argument("--rounds", type=int, default=50, help="images without profiling, and as many profiled ones")
    parser.add_argument("--max-seconds", type=float, default=60, help="what took longer in all sits out")
    args = parser.parse_args(argv)
    args.runtimes = list(dict.fromkeys(args.runtimes))
    check_options(args.threads, args.rounds, args.max_seconds, [])
    return args


def headline(runtime: str, profile: RuntimeProfile) -> str:
    """State the time of an image beside its floors, and what profiling it costs.

    Layers that together are faster than their arithmetic floor show that other processes slowed the matrix product
    down, which takes longer than any of them: then the aim is neither reached nor missed.
    """
    total, times = profile.total, profile.times_arithmetic_floor
    floor = f"arithmetic floor {total.arithmetic_floor_ms:.2f} ms"
    reached = "reached" if times <= AIM else "missed"
    if total.median_ms < total.arithmetic_floor_ms:
        reached = "unknown, as the layers are faster than the floor: repeat where no other process runs"
    return (
        f"{runtime}: image {profile.image_ms:.2f} ms, {floor}, {times:.1f} times (aim {AIM}: {reached})\n"
        f"bytes floor {total.bytes_floor_ms:.2f} ms; all layers together {total.median_ms:.2f} ms, "
        f"a profiled image {profile.profiled_image_ms:.2f} ms"
    )


def table(profile: RuntimeProfile) -> str:
    """Tabulate the layers by kind, then the slowest ones."""
    kinds = [["kind", "layers", *COLUMNS]]
    totals = {**profile.by_kind(), "all": profile.total}
    kinds += [[kind, str(total.layers), *_cells(total)] for kind, total in totals.items()]
    slowest = sorted(profile.layers, key=lambda layer: layer.median_ms, reverse=True)[:SLOWEST]
    layers = [["layer", "operator", "kind", *COLUMNS]]
    layers += [[layer.name, layer.operator, layer.kind, *_cells(layer)] for layer in slowest]
    return f"{aligned(kinds)}\n\nslowest layers\n{aligned(layers)}"


def _cells(one: LayerTime | Total) -> list[str]:
    floor = max(one.arithmetic_floor_ms, one.bytes_floor_ms)
    cells = [f"{one.macs / 1e6:.2f}", f"{one.bytes / 1e6:.2f}"]
    cells += [f"{value:.3f}" for value in (one.arithmetic_floor_ms, one.bytes_floor_ms, one.median_ms)]
    return [*cells, f"{one.median_ms / floor:.1f}" if floor else ""]


def main(argv: list[str] | None = None) -> None:
    """Run the command line.

    Raises:
        ValueError: the device is no CPU, or as in `check_runtimes` and `image_graph`.
    """
    args = parse_arguments(argv)
    folder, device = replaceable_folder(args.output), default_device()
    if device.type != "cpu":
        raise ValueError(f"the device is {device.type}; accepted is the CPU: ACCELERATE_USE_CPU=1")
    check_runtimes(args.runtimes, device)
    graph = image_graph(load_sampler(args.model, device))
    measured = measure_profile(graph, args.runtimes, args.threads, args.rounds, args.max_seconds)
    profile = Profile(model=Path(args.model).resolve().name, model_sha256=folder_sha256(args.model), **measured)
    write_json(folder / LOG, profile.model_dump(mode="json", by_alias=True))
    draw_profile(profile, folder / PICTURE)
    for runtime, one in profile.runtimes.items():
        print(f"{headline(runtime, one)}\n\n{table(one)}\n")
    peaks = profile.peaks
    print(
        f"peaks with {args.threads} threads: matrix product {peaks.gflops:.1f} GFLOP/s, "
        f"copy in memory {peaks.gigabytes_per_second:.1f} GB/s",
        flush=True,
    )


if __name__ == "__main__":
    run_command(main)
