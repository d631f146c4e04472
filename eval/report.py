"""Measure every figure of every checkpoint once, for docs/results.json, README, docs and model cards.

    python -m eval.report --data DIR
    python -m eval.report --models teacher student-1step --n 10000 teacher=2000 --only distance,clip
    python -m eval.report --models student-1step-pruned-unstructured=runs/prune-unstructured/export
    python -m eval.report --compare before.json after.json

A section of a record whose model hash and protocol still hold is not measured again. The tables hold three rows for
scale beside the models: CIFAR-10's test set, the same images encoded and decoded by the VAE of the first model, and
the same images with Gaussian noise. NAME=FOLDER measures a model outside the folder of checkpoints; its row stays in
the tables, and says so, until it is measured again.
"""

import argparse
from pathlib import Path

from eval.benchmark.latency import MIN_RUNS, check_options
from eval.benchmark.peers import PEERS
from eval.cli.extractors import add_extractor_arguments
from eval.extractors.choose import choose_extractor
from eval.extractors.judge import JUDGE, judge_extractor
from eval.reporting.compare import changes_table, compare_results, unmatched_rows
from eval.reporting.correlations import correlations
from eval.reporting.headline import claim, headline
from eval.reporting.insertion import insert_parts, marked_parts
from eval.reporting.plots import write_plots
from eval.reporting.records import SECTIONS, Report
from eval.reporting.tables import SCALE, table
from eval.samples.settings import DTYPES
from eval.samples.store import DEFAULT_SAMPLES
from eval.schema import read_results
from mobilediff.checkpoints import text_to_image_names
from mobilediff.command import command_parser, run_command
from mobilediff.files import writable_file

COUNT, NOUN_COUNT = 10000, 1000  # samples of class prompts and of noun prompts
OUTSIDE_COUNT = 2000  # of every row, under both extractors: those of the slowest model take minutes
# Of a file of --readme, between markers.
PARTS = {"claim": claim, "headline": headline, "results": table, "correlations": correlations}
README = ("README.md", "docs/results.md")


def model_folders(models: list[str] | None, checkpoints: str | Path) -> dict[str, Path]:
    """Map --models (names in `checkpoints`, or NAME=FOLDER) to folders; all names by default.

    Raises:
        ValueError: NAME=FOLDER with the name of a checkpoint, or without a name.
        FileNotFoundError: there is no checkpoint at all.
    """
    names = text_to_image_names(checkpoints)
    folders = {}
    for model in models or names:
        name, separator, folder = model.partition("=")
        if separator and (not name or not folder or name in names):
            raise ValueError(f"--models {model}: accepted are NAME=FOLDER, NAME other than {', '.join(names)}")
        folders[name] = Path(folder) if separator else Path(checkpoints) / name
    if not folders:
        raise FileNotFoundError(f"{checkpoints} holds no checkpoints")
    return folders


def sample_counts(values: list[str], models: list[str], default: int, option: str = "--n") -> dict[str, int]:
    """Map --n or --n-nouns, such as "5000 teacher=2000", to a count for each model.

    Raises:
        ValueError: not a number, below 2, or a model that is not measured.
    """
    counts = dict.fromkeys(models, default)
    for value in sorted(values, key=lambda value: "=" in value):  # the general count first
        name, _, number = value.rpartition("=")
        if not number.isdecimal() or int(number) < 2 or (name and name not in models):
            raise ValueError(f"{option} {value}: accepted are N or MODEL=N, N from 2, MODEL of {', '.join(models)}")
        counts |= {name: int(number)} if name else dict.fromkeys(models, int(number))
    return counts


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = command_parser("python -m eval.report", __doc__)
    parser.add_argument("--checkpoints", default="checkpoints", help="the folder of checkpoints")
    parser.add_argument("--models", nargs="+", help="names in that folder, or NAME=FOLDER (default: all names)")
    parser.add_argument("--n", nargs="+", default=[], help=f"samples, N or MODEL=N (default: {COUNT})")
    parser.add_argument(
        "--n-nouns", nargs="+", default=[], help=f"of nouns' prompts, likewise (default: {NOUN_COUNT})"
    )
    parser.add_argument("--n-outside", type=int, default=OUTSIDE_COUNT, help="images of every row, for outside")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"of {','.join(SECTIONS)}")
    parser.add_argument("--data", help="CIFAR-10: a folder or a hub name (default: the variable MOBILEDIFF_DATA)")
    parser.add_argument("--threads", type=int, default=2, help="threads of the CPU, for latency")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[8, 64], help="of the throughput")
    parser.add_argument("--batch-size", type=int, default=100, help="samples drawn at once")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32", help="bf16 samples under autocast")
    parser.add_argument("--compile", action="store_true", help="sample under torch.compile; pays for many steps")
    parser.add_argument("--peers", nargs="*", choices=tuple(PEERS), help="also time these peers (default: all)")
    add_extractor_arguments(parser)
    parser.set_defaults(extractor="judge")
    parser.add_argument("--samples", default=DEFAULT_SAMPLES, help="folder that keeps the samples drawn")
    parser.add_argument("--results", default="docs/results.json", help="where the records are")
    parser.add_argument(
        "--readme", nargs="+", default=README, help=f"files that get the tables (default: {' '.join(README)})"
    )
    parser.add_argument("--no-insert", action="store_true", help="leave these files and the cards as they are")
    parser.add_argument(
        "--compare", nargs=2, metavar=("BEFORE", "AFTER"), help="only list the figures that moved between two files"
    )
    args = parser.parse_args(argv)
    if args.compare:
        return args
    args.only = args.only.split(",")
    if unknown := set(args.only) - set(SECTIONS):
        raise ValueError(f"--only holds {', '.join(sorted(unknown))}; accepted are {', '.join(SECTIONS)}")
    args.models = model_folders(args.models, args.checkpoints)
    names = list(args.models)
    args.n = {
        "class": sample_counts(args.n, names, COUNT),
        "noun": sample_counts(args.n_nouns, names, NOUN_COUNT, "--n-nouns"),
    }
    args.peers = list(PEERS) if args.peers == [] else args.peers
    check_options(args.threads, MIN_RUNS, 1.0, args.batch_sizes)
    args.batch_sizes = sorted(set(args.batch_sizes))
    return args


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    args = parse_arguments(argv)
    if args.compare:
        before, after = map(read_results, args.compare)
        print("\n".join([changes_table(compare_results(before, after)), *unmatched_rows(before, after)]))
        return
    cards = {name: folder / "README.md" for name, folder in args.models.items()}
    writable_file(args.results)
    if not args.no_insert:
        for file in args.readme:
            marked_parts(file, tuple(PARTS))
        for card in cards.values():
            marked_parts(card, ("results",))
        for file in (*args.readme, *cards.values()):
            writable_file(file)
    report = Report(
        args.results,
        args.checkpoints,
        args.models,
        args.n,
        args.n_outside,
        args.data,
        args.samples,
        args.batch_size,
        args.dtype,
        args.compile,
    )
    report.check_data(args.only)
    extractors = {JUDGE: judge_extractor()}
    chosen = choose_extractor(args.extractor, args.extractor_weights, args.clip_model)
    extractors[chosen.name] = chosen
    arguments: dict[str, tuple] = {
        "latency": (args.threads, args.peers),
        "throughput": (args.threads, args.batch_sizes),
    }
    arguments["distance"] = (list(extractors.values()),)
    for section in SECTIONS:
        if section in args.only:
            getattr(report, section)(*arguments.get(section, ()))
    records = report.finish().records
    print(table(records))
    for file in write_plots(records, Path(args.results).parent):
        print(file)
    if not args.no_insert:
        for file in args.readme:
            insert_parts(file, {part: PARTS[part](records) for part in marked_parts(file, tuple(PARTS))})
        for name, card in cards.items():
            insert_parts(card, {"results": table({row: records[row] for row in (name, *SCALE) if row in records})})


if __name__ == "__main__":
    run_command(main)
