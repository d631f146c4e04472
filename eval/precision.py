"""Measure how far a checkpoint's samples in fp16 and bf16 are from those in fp32, at the same seeds.

    python -m eval.precision --model checkpoints/student-1step
    python -m eval.precision --model runs/student/export --dtypes fp16 --n 1000 --json outputs/precision.json

The whole pipeline computes in the dtype. A checkpoint that overflows in it ends the command with an error.
"""

from eval.cli.output import add_json_argument
from eval.cli.show import show_result
from eval.measures.precision import DTYPES, measure_precision
from eval.protocol import default_device
from mobilediff.command import check_least, command_parser, run_command


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = command_parser("python -m eval.precision", __doc__)
    parser.add_argument("--model", required=True, help="a checkpoint folder of this project")
    parser.add_argument(
        "--dtypes", nargs="+", choices=tuple(DTYPES), default=list(DTYPES), help="to compare with fp32"
    )
    parser.add_argument("--n", type=int, default=200, help="samples that are compared")
    parser.add_argument("--seed", type=int, default=0, help="of the first sample")
    parser.add_argument("--batch-size", type=int, default=100, help="samples drawn at once")
    add_json_argument(parser)
    args = parser.parse_args(argv)
    check_least(args, n=1, seed=0, batch_size=1)
    dtypes = list(dict.fromkeys(args.dtypes))
    result = measure_precision(args.model, dtypes, args.n, args.seed, args.batch_size, default_device())
    show_result("eval.precision", result, args.json)


if __name__ == "__main__":
    run_command(main)
