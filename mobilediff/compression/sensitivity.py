"""Measure the error of a checkpoint's latents when each layer alone is pruned.

    python -m mobilediff.compression.sensitivity --model checkpoints/student-1step --output outputs/sensitivity

Each convolution and linear layer loses its smallest weights (L1-unstructured), the others keep theirs. The output
folder gets `sensitivity.json` and the heat map `sensitivity.png`. The same command goes on with an interrupted run;
with other ratios it adds theirs.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from eval.benchmark.blocks import check_mobile_unet
from eval.cli.table import aligned
from eval.measures.fixed_latents import FixedLatents
from eval.protocol import default_device, folder_sha256, measured_with
from eval.reporting.pruning_plots import draw_sensitivity
from eval.samples.pipelines import load_sampler
from mobilediff.command import check_least, command_parser, run_command
from mobilediff.compression.pruned import LayerError, Sensitivity, read_sensitivity
from mobilediff.compression.pruning import check_pruning_ratio, prunable_layers, pruned_layer
from mobilediff.compression.records import check_same_protocol
from mobilediff.files import replaceable_folder, write_json
from mobilediff.pipeline import MobileDiffusionPipeline

COMMAND = "mobilediff.compression.sensitivity"
LOG, PICTURE = "sensitivity.json", "sensitivity.png"
RATIOS = [0.1, 0.3, 0.5, 0.7, 0.9]


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = command_parser(f"python -m {COMMAND}", __doc__)
    parser.add_argument("--model", required=True, help="a checkpoint folder with a MobileUNet")
    parser.add_argument("--output", required=True, help="folder of the run")
    parser.add_argument(
        "--ratios", nargs="+", type=float, default=RATIOS, help="fractions of a layer's weights to prune"
    )
    parser.add_argument("--n", type=int, default=64, help="samples whose latents are compared")
    parser.add_argument("--seed", type=int, default=0, help="of the first sample")
    parser.add_argument("--batch-size", type=int, default=100, help="samples drawn at once")
    args = parser.parse_args(argv)
    args.ratios = sorted(set(args.ratios))
    for ratio in args.ratios:
        check_pruning_ratio(ratio)
        if ratio == 0:
            raise ValueError("ratio is 0.0; accepted are fractions above 0")
    check_least(args, n=1, batch_size=1, seed=0)
    return args


def started(args: argparse.Namespace, pipeline: MobileDiffusionPipeline, file: Path) -> Sensitivity:
    """Read the record of an earlier run, or begin one.

    Raises:
        ValueError: as in `check_same_protocol`.
    """
    protocol = {"model": Path(args.model).resolve().name, "model_sha256": folder_sha256(args.model)}
    protocol |= {name: getattr(args, name) for name in ("n", "seed", "batch_size")}
    protocol |= {"num_inference_steps": pipeline.config.default_num_inference_steps}
    protocol |= measured_with(pipeline.device)
    if file.exists():
        sensitivity = read_sensitivity(file)
        check_same_protocol(file, sensitivity.protocol, protocol)
        return sensitivity
    layers = {name: layer.weight.numel() for name, layer in prunable_layers(pipeline.unet).items()}
    return Sensitivity(protocol=protocol, layers=layers)


def measured(
    sensitivity: Sensitivity, args: argparse.Namespace, pipeline: MobileDiffusionPipeline
) -> Iterator[LayerError]:
    """Measure the errors that a record lacks."""
    known = {(one.layer, one.pruning_ratio) for one in sensitivity.errors}
    latents = FixedLatents(pipeline, args.n, args.seed, args.batch_size)
    for name in sensitivity.layers:
        for ratio in args.ratios:
            if (name, ratio) not in known:
                with pruned_layer(pipeline.unet, name, ratio):
                    error = latents.error(pipeline)
                yield LayerError(layer=name, pruning_ratio=ratio, error=error)


def table(sensitivity: Sensitivity) -> str:
    """Tabulate the errors, the layer of the largest at the highest ratio first."""
    ratios = sensitivity.ratios()
    columns = [sensitivity.of(ratio) for ratio in ratios]
    rows = [["layer", "weights", *(f"{ratio:g}" for ratio in ratios)]]
    for layer in sorted(columns[-1], key=columns[-1].__getitem__, reverse=True):
        errors = (f"{column[layer]:.4f}" if layer in column else "" for column in columns)
        rows.append([layer, f"{sensitivity.layers[layer]:,}", *errors])
    title = (
        f"relative error of the latents by the ratio at which a layer alone is pruned, n = {sensitivity.protocol['n']}"
    )
    return "\n".join([title, aligned(rows)])


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    args = parse_arguments(argv)
    folder, device = replaceable_folder(args.output), default_device()
    pipeline = load_sampler(args.model, device)
    check_mobile_unet(pipeline)
    pipeline.unet.requires_grad_(False)
    sensitivity = started(args, pipeline, folder / LOG)
    for error in measured(sensitivity, args, pipeline):
        sensitivity = sensitivity.model_copy(update={"errors": [*sensitivity.errors, error]})
        write_json(folder / LOG, sensitivity.model_dump(mode="json", by_alias=True))
    print(table(sensitivity), flush=True)
    draw_sensitivity(sensitivity, folder / PICTURE)


if __name__ == "__main__":
    run_command(main)
