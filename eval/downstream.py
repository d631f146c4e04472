"""Write the tables of control, inpainting and LoRAs into docs, from the results that their commands kept.

python -m eval.downstream docs/downstream/*.json
"""

from eval.reporting.downstream import PARTS, read_downstream
from eval.reporting.insertion import insert_parts, marked_parts
from mobilediff.command import command_parser, run_command
from mobilediff.files import writable_file

PAGES = ("docs/downstream.md", "docs/results.md")


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = command_parser("python -m eval.downstream", __doc__)
    parser.add_argument("results", nargs="+", help="files of eval.control, eval.inpaint and eval.lora --json")
    parser.add_argument("--pages", nargs="+", default=PAGES, help=f"that get the tables (default: {' '.join(PAGES)})")
    args = parser.parse_args(argv)
    parts = {page: marked_parts(page, tuple(PARTS)) for page in args.pages}
    for page in args.pages:
        writable_file(page)
    results = read_downstream(args.results)
    tables = {part: write(results) for part, write in PARTS.items()}
    for page, wanted in parts.items():
        insert_parts(page, {part: tables[part] for part in wanted})
        print(page)


if __name__ == "__main__":
    run_command(main)
