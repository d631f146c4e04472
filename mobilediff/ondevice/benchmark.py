"""Time exported folders beside the PyTorch pipeline, in turns, alone and with busy processes.

    python -m mobilediff.ondevice.benchmark --exported DIR ... --beside checkpoints/student-1step

An image is one picture of a prompt whose embeddings are there, with a control network that of an empty sketch. With
--busy it is timed again beside as many busy processes as it has threads.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from PIL import Image

from eval.benchmark.latency import MIN_RUNS, check_options, interleave, thread_count
from eval.benchmark.neighbours import busy_neighbours
from eval.benchmark.size import PROMPT
from eval.cli.output import add_json_argument
from eval.cli.table import aligned
from eval.protocol import folder_sha256, measured_with
from eval.samples.pipelines import load_sampler
from mobilediff.command import command_parser, run_command
from mobilediff.downstream.control import MobileDiffusionControlPipeline
from mobilediff.files import write_json
from mobilediff.ondevice.exported import load_exported
from mobilediff.ondevice.manifest import read_manifest
from mobilediff.threads import wait_policy
from mobilediff.timing import summary

COMMAND = "mobilediff.ondevice.benchmark"
SKETCH_SIZE = 32, 32


def image_calls(exported: list[str], beside: str | None, threads: int) -> dict[str, Callable[[], object]]:
    """Build a call for one picture of each folder, by the folder's name; the checkpoint's is called PyTorch."""
    calls = {}
    for folder in exported:
        pipeline = load_exported(folder, threads)
        calls[Path(folder).resolve().name] = _call(pipeline, pipeline.plan.controlled)
    if beside is not None:
        pipeline = load_sampler(beside)
        calls["PyTorch"] = _call(pipeline, isinstance(pipeline, MobileDiffusionControlPipeline))
    return calls


def _call(pipeline, controlled: bool) -> Callable[[], object]:
    generator, control = torch.Generator(), {"image": Image.new("L", SKETCH_SIZE)} if controlled else {}
    return lambda: pipeline(PROMPT, generator=generator.manual_seed(0), output_type="np", **control)


def measure(
    exported: list[str], beside: str | None, threads: int, rounds: int, max_seconds: float, busy: bool
) -> dict[str, dict]:
    """Time one picture of each folder.

    Returns:
        `quiet` and, if `busy`, `busy`: by name, median, 90th percentile and runs; and the protocol.
    """
    calls, results, device = image_calls(exported, beside, threads), {}, torch.device("cpu")
    with thread_count(threads):
        for name in ("quiet", "busy")[: 1 + busy]:
            with busy_neighbours(threads) if name == "busy" else nullcontext():
                times = interleave(calls, device, rounds, max_seconds)
            results[name] = {key: summary(values) for key, values in times.items()}
        protocol = {"rounds": rounds, "prompt": PROMPT, "wait_policy": wait_policy()} | measured_with(device)
    protocol["exported"] = {
        Path(folder).resolve().name: read_manifest(folder).model_dump(include={"format", "precision", "versions"})
        for folder in exported
    }
    if beside is not None:
        protocol["beside"] = {"model": Path(beside).resolve().name, "model_sha256": folder_sha256(beside)}
    return results | {"protocol": protocol}


def table(result: dict) -> str:
    """Tabulate the milliseconds of a picture, a line a folder."""
    quiet, busy = result["quiet"], result.get("busy")
    rows = [["", "median ms", "90th percentile ms"]]
    rows[0] += ["x PyTorch"] if "PyTorch" in quiet else []
    rows[0] += ["busy: median ms", "x quiet"] if busy else []
    for name, times in quiet.items():
        row = [name, f"{times['median_ms']:.2f}", f"{times['p90_ms']:.2f}"]
        if "PyTorch" in quiet:
            row.append(f"{quiet['PyTorch']['median_ms'] / times['median_ms']:.2f}")
        if busy:
            row += [f"{busy[name]['median_ms']:.2f}", f"{busy[name]['median_ms'] / times['median_ms']:.2f}"]
        rows.append(row)
    return aligned(rows)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = command_parser(f"python -m {COMMAND}", __doc__)
    parser.add_argument("--exported", nargs="+", required=True, help="folders of mobilediff.ondevice.export")
    parser.add_argument("--beside", help="a checkpoint folder, to time PyTorch's pipeline in the same run")
    parser.add_argument("--threads", type=int, default=2, help="threads of the CPU")
    parser.add_argument("--rounds", type=int, default=20, help=f"runs of each, at least {MIN_RUNS}")
    parser.add_argument("--max-seconds", type=float, default=60, help="who took longer in all sits out")
    parser.add_argument("--busy", action="store_true", help="time again beside busy processes")
    add_json_argument(parser)
    args = parser.parse_args(argv)
    check_options(args.threads, args.rounds, args.max_seconds, [1])
    names = [Path(folder).resolve().name for folder in args.exported]
    if len(set(names)) < len(names):
        raise ValueError(f"two of {', '.join(args.exported)} have one name; accepted are different names")
    result = measure(args.exported, args.beside, args.threads, args.rounds, args.max_seconds, args.busy)
    print(table(result), flush=True)
    if args.json:
        write_json(args.json, {"command": COMMAND} | result)


if __name__ == "__main__":
    run_command(main)
