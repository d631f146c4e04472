"""Score models by the answers of the app's visitors on which of two pictures is better.

    python -m eval.arena
    python -m eval.arena --answers FILE --json outputs/arena.json

Bradley and Terry's model, a tie being half a win each; 400 points are odds of ten to one, and the mean is 1000.
"""

from pathlib import Path

from eval.cli.output import add_json_argument
from eval.cli.show import keep_result
from eval.cli.table import aligned
from eval.measures.arena import measure_arena
from eval.samples.answers import DEFAULT_ANSWERS, read_answers
from mobilediff.command import command_parser, run_command

SCALE = "Bradley-Terry, a tie half a win each; 400 points are odds of ten to one, the mean is 1000"


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = command_parser("python -m eval.arena", __doc__)
    help_text = f"the app's file of answers (default: {DEFAULT_ANSWERS})"
    parser.add_argument("--answers", type=Path, default=Path(DEFAULT_ANSWERS), help=help_text)
    add_json_argument(parser)
    args = parser.parse_args(argv)
    result = measure_arena(read_answers(args.answers))
    lines = [["model", "games", "wins", "score", "95 % interval"]]
    for name, one in result["models"].items():
        interval = f"{one['low']:.0f} to {one['high']:.0f}"
        lines.append([name, f"{one['games']:,}", f"{one['wins']:,.1f}", f"{one['score']:.0f}", interval])
    print(aligned(lines))
    print(f"{result['n']:,} answers, {result['ties']:,} ties; {SCALE}")
    keep_result("eval.arena", result, args.json)


if __name__ == "__main__":
    run_command(main)
