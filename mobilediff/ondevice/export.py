"""Export a checkpoint for phones and browsers: graphs, noun table, tokenizer and manifest, in one folder.

    python -m mobilediff.ondevice.export --model checkpoints/student-1step --format onnx --precision fp16 --output DIR

One-step students become one graph from noise to picture (--steps 2 and 4 unroll it), 8-step ones a network and a
decoder. The libraries are the extra `ondevice`.
"""

from pathlib import Path
from typing import get_args

from eval.cli.table import aligned
from eval.protocol import folder_sha256
from eval.samples.pipelines import load_sampler
from mobilediff.command import command_parser, run_command
from mobilediff.ondevice.folder import check_output, write_exported
from mobilediff.ondevice.formats import FORMATS, check_precision
from mobilediff.ondevice.manifest import Manifest, Precision


def summary(manifest: Manifest) -> str:
    """Tabulate the files of an export by size, and state its parity."""
    files = sorted(manifest.files, key=lambda file: -file.bytes)
    rows = [["file", "bytes"], *([file.path, f"{file.bytes:,}"] for file in files), ["all", f"{manifest.bytes:,}"]]
    parity = manifest.parity
    lines = [aligned(rows), ""]
    if manifest.layer_errors:
        lines += [layer_table(manifest), ""]
    lines.append(
        f"{parity.images} pictures, difference to PyTorch's in [-1, 1]: largest {parity.largest:.3g}, mean "
        f"{parity.mean:.3g}; with the noun table largest {parity.largest_with_noun_table:.3g}"
    )
    return "\n".join(lines)


def layer_table(manifest: Manifest) -> str:
    """Tabulate the quantised layers, the most sensitive of each graph first."""
    errors = sorted(manifest.layer_errors, key=lambda one: (one.graph, -one.error))
    rows = [[one.layer, one.graph, one.operator, f"{one.error:.2e}", "kept" if one.kept else ""] for one in errors]
    return aligned([["layer", "graph", "operator", "mean squared error in int8", "higher"], *rows])


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = command_parser("python -m mobilediff.ondevice.export", __doc__)
    parser.add_argument("--model", required=True, help="a checkpoint folder that guidance is distilled into")
    parser.add_argument("--format", required=True, choices=FORMATS)
    parser.add_argument("--precision", choices=get_args(Precision), default="fp32", help="of the weights")
    parser.add_argument("--output", required=True, help="folder to write; an export there is replaced")
    parser.add_argument("--steps", type=int, help="inference steps (default: the checkpoint's own)")
    parser.add_argument("--batch-size", type=int, default=1, help="pictures of a call, which the graphs are fixed to")
    args = parser.parse_args(argv)
    check_output(args.output)
    check_precision(args.format, args.precision)
    pipeline, sha256 = load_sampler(args.model), folder_sha256(args.model)
    name = Path(args.model).resolve().name
    options = args.format, args.precision, args.batch_size, args.steps
    print(summary(write_exported(pipeline, name, sha256, args.output, *options)))


if __name__ == "__main__":
    run_command(main)
