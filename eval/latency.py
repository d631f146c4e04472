"""Measure size, latency, throughput and memory of checkpoints and peers, at batch 1 to 64.

    python -m eval.latency --model checkpoints/student-1step checkpoints/teacher --threads 2 --baseline teacher
    python -m eval.latency --model checkpoints/{student*,teacher} --peers --batch-sizes 1 8 64 --json latency.json

Parts: text encoder (one prompt an image), network call (unguided), decoder, and image (the whole pipeline at its
default steps and guidance, for a prompt that it has seen: a new one adds the text encoder). After a warm-up the models
take turns at each part, so that a drift of the machine hits all alike; of two calls in a row the second is timed. The
peak is the best rate of the machine's matrix product, which takes turns as well. Memory is measured after the timed
runs, in calls of its own.
"""

import argparse
from pathlib import Path

from eval.benchmark.latency import MAX_BATCH_SIZE, check_options
from eval.benchmark.models import measure_models
from eval.benchmark.peers import PEERS, load_peers
from eval.cli.output import add_json_argument
from eval.cli.show import checked_result, keep_result
from eval.cli.table import aligned
from eval.protocol import default_device
from eval.samples.pipelines import load_sampler
from eval.schema import LatencyResult, MeasuredSize
from mobilediff.command import command_parser, run_command
from mobilediff.ondevice.exported import is_exported, load_exported


def table(result: LatencyResult) -> str:
    """Tabulate timings, a line for each model and batch size, and explain the columns."""
    titles = ["model", "batch", "text encoder", "network call", "of peak", "decoder", "image", "images/s"]
    rows = [[*titles, "peak MB", "weights MB", *([f"x {result.baseline}"] if result.baseline else [])]]
    for batch in result.batches:
        for name, parts in batch.models.items():
            times = {part: f"{timing.median_ms:.2f} / {timing.p90_ms:.2f}" for part, timing in parts if timing}
            network, image = parts.network_call, parts.image
            row = [name, str(batch.protocol.batch_size)]
            row += [times.get("text_encoder", ""), times.get("network_call", "")]
            row += [f"{network.fraction_of_peak:.1%}" if network and network.fraction_of_peak else ""]
            row += [times.get("vae_decoder", ""), times.get("image", "")]
            row += [f"{image.images_per_second:.2f}" if image else ""]
            memory = [part.peak_memory_bytes for part in (image, network) if part]
            row += [f"{memory[0] / 1e6:.1f}" if memory[0] is not None else ""]
            size = result.models[name]
            row += [f"{size.weights_memory_bytes / 1e6:.1f}" if isinstance(size, MeasuredSize) else ""]
            if result.baseline:
                row += [f"{batch.times_faster[name]:.2f}" if image else ""]
            rows.append(row)
    return "\n".join([aligned(rows), "", *legend(result)])


def legend(result: LatencyResult) -> list[str]:
    """Explain the columns of `table`."""
    peaks = ", ".join(f"{batch.protocol.matrix_peak_fp32_gflops:.0f}" for batch in result.batches)
    protocol = result.batches[0].protocol
    lines = [
        "Times are ms a call, median / 90th percentile. Of peak: the network call's fraction of the machine's fp32 "
        f"matrix product ({peaks} GFLOP/s).",
        f"Threads: {protocol.threads}, OMP_WAIT_POLICY {protocol.wait_policy}; busy processes beside: "
        f"{protocol.neighbours}.",
        "Peak MB: memory that a call allocates beyond the weights, for an image, or for the network without one.",
    ]
    if result.baseline:
        lines.append(f"x {result.baseline}: how many times faster an image is, at the same batch size.")
    if peers := [name for name, size in result.models.items() if size.weights == "random"]:
        lines.append(f"Random weights: {', '.join(peers)}.")
    return lines


def named_models(models: list[str], peers: list[str], baseline: str | None) -> tuple[dict[str, Path], str | None]:
    """Name the checkpoint folders, the baseline's among them, and the baseline.

    Raises:
        ValueError: nothing to measure, two of one name, or a baseline that is not there or makes no image.
    """
    folders = dict.fromkeys(Path(folder).resolve() for folder in models)
    names = [*(folder.name for folder in folders), *peers]
    if baseline is not None and baseline not in names:
        if not Path(baseline).is_dir():
            raise ValueError(f"baseline is {baseline!r}; accepted are a checkpoint folder, {', '.join(names)}")
        folder = Path(baseline).resolve()
        names += [folder.name] if folder not in folders else []
        folders[folder], baseline = None, folder.name
    if not names:
        raise ValueError("there is nothing to measure; accepted are --model FOLDER and --peers")
    if len(set(names)) < len(names):
        given = ", ".join([*map(str, folders), *peers])
        raise ValueError(f"two of {given} have one name; accepted are different names")
    if baseline in peers and PEERS[baseline].num_inference_steps is None:
        raise ValueError(f"baseline is {baseline!r}, which makes no image; accepted are models that do")
    return {folder.name: folder for folder in folders}, baseline


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = command_parser("python -m eval.latency", __doc__)
    parser.add_argument("--model", nargs="+", default=[], help="folders of checkpoints or of their exports")
    parser.add_argument("--peers", nargs="*", choices=tuple(PEERS), help="peers by name (default of --peers: all)")
    parser.add_argument("--baseline", help="compare speeds with this model: a folder, or the name of a measured one")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1], help=f"images a call, to {MAX_BATCH_SIZE}")
    parser.add_argument("--threads", type=int, default=2, help="threads of the CPU")
    parser.add_argument("--neighbours", type=int, default=0, help="busy processes that run beside the measurement")
    parser.add_argument("--rounds", type=int, default=20, help="runs of each part")
    parser.add_argument("--max-seconds", type=float, default=60, help="a part that took longer in all sits out")
    add_json_argument(parser)
    args = parser.parse_args(argv)
    args.batch_sizes = list(dict.fromkeys(args.batch_sizes))
    args.peers = list(dict.fromkeys(PEERS if args.peers == [] else args.peers or []))
    check_options(args.threads, args.rounds, args.max_seconds, args.batch_sizes, args.neighbours)
    args.folders, args.baseline = named_models(args.model, args.peers, args.baseline)
    return args


def measure_all(args: argparse.Namespace) -> dict:
    """Load the models of the command line and measure them.

    Raises:
        ValueError: an export and a device other than the CPU, or as in the functions that load.
    """
    device = default_device()
    exported = {name: folder for name, folder in args.folders.items() if is_exported(folder)}
    if exported and device.type != "cpu":
        raise ValueError(
            f"the device is {device.type}, but {', '.join(exported)} run on the CPU: ACCELERATE_USE_CPU=1"
        )
    pipelines = {
        name: load_exported(folder, args.threads) if name in exported else load_sampler(folder, device)
        for name, folder in args.folders.items()
    }
    peers = load_peers(args.peers, device)
    options = args.threads, args.rounds, args.max_seconds, args.batch_sizes, args.neighbours, args.baseline
    return measure_models(pipelines, args.folders, peers, *options)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    args = parse_arguments(argv)
    result = measure_all(args)
    print(table(checked_result("eval.latency", result)), flush=True)
    keep_result("eval.latency", result, args.json)


if __name__ == "__main__":
    run_command(main)
