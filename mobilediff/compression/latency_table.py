"""Measure the time of each part of a MobileUNet, whose sum predicts networks, once a machine and runtime.

    python -m mobilediff.compression.latency_table --model checkpoints/student-1step --output latency.json

The table has each kind of part by width and resolution; the networks beside it lack some of the blocks, and show how
far the sum of their parts' times is from the time of the whole.
"""

import argparse
from pathlib import Path

from eval.benchmark.blocks import RUNTIMES, check_runtimes, measure_blocks
from eval.benchmark.latency import check_options
from eval.cli.output import json_output
from eval.cli.table import aligned
from eval.protocol import default_device, folder_sha256
from eval.samples.pipelines import load_sampler
from mobilediff.command import command_parser, run_command
from mobilediff.compression.latency import LAYOUT, LatencyTable
from mobilediff.files import write_json

COMMAND = "mobilediff.compression.latency_table"
AIM_PERCENT = 10


def table(result: LatencyTable) -> str:
    """Tabulate the parts' milliseconds, then predicted and measured networks, a column a runtime."""
    names = list(result.runtimes)
    times = list(result.runtimes.values())
    rows = [["part", *(f"{name} ms" for name in names)]]
    rows += [[key, *(f"{one.parts[key].median_ms:.3f}" for one in times)] for key in times[0].parts]
    rows.append(["a call that does nothing", *(f"{one.call_ms:.3f}" for one in times)])
    lines = [aligned(rows)]
    for name, one in result.runtimes.items():
        if one.networks:
            checks = [["network without", "predicted ms", "measured ms", "error %"]]
            for check in one.networks:
                cells = f"{check.predicted_ms:.2f}", f"{check.measured_ms:.2f}", f"{check.error_percent:+.1f}"
                checks.append([f"{len(check.removed_blocks)} blocks", *cells])
            worst = max(abs(check.error_percent) for check in one.networks)
            within = sum(abs(check.error_percent) <= AIM_PERCENT for check in one.networks)
            said = f"within {AIM_PERCENT} %: {within} of {len(one.networks)}; largest error {worst:.1f} %"
            lines += ["", f"{name}: {said}", aligned(checks)]
    return "\n".join(lines)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = command_parser(f"python -m {COMMAND}", __doc__)
    parser.add_argument("--model", required=True, help="a checkpoint folder with a MobileUNet")
    parser.add_argument("--output", required=True, type=json_output, help="JSON file of the table")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=["pytorch"], help="that run the parts")
    parser.add_argument("--networks", type=int, default=10, help="whole networks to compare with their predictions")
    parser.add_argument("--threads", type=int, default=2, help="threads of the CPU")
    parser.add_argument("--rounds", type=int, default=50, help="runs of each part")
    parser.add_argument("--max-seconds", type=float, default=60, help="a part that took longer in all sits out")
    parser.add_argument("--batch-size", type=int, default=1, help="samples of a call")
    args = parser.parse_args(argv)
    args.runtimes = list(dict.fromkeys(args.runtimes))
    check_options(args.threads, args.rounds, args.max_seconds, [args.batch_size])
    if args.networks < 0:
        raise ValueError(f"networks is {args.networks}; accepted is 0 or more")
    return args


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    args = parse_arguments(argv)
    device = default_device()
    check_runtimes(args.runtimes, device)
    pipeline = load_sampler(args.model, device)
    options = args.runtimes, args.networks, args.threads, args.rounds, args.max_seconds, args.batch_size
    measured = measure_blocks(pipeline, *options)
    origin = {"schema": LAYOUT, "command": COMMAND, "model": Path(args.model).resolve().name}
    result = LatencyTable(**origin, model_sha256=folder_sha256(args.model), **measured)
    print(table(result), flush=True)
    write_json(args.output, result.model_dump(mode="json", by_alias=True))


if __name__ == "__main__":
    run_command(main)
