"""Measure a checkpoint's network pruned by each method and ratio, as a curve.

    python -m mobilediff.compression.curve --model checkpoints/student-1step --output outputs/curve

The output folder gets `curve.json`, a point each network, and `curve.png`. The same command goes on with an
interrupted run; with other methods, ratios, repair steps or runtimes it adds theirs to the curve.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from eval.benchmark.blocks import RUNTIMES, check_mobile_unet, check_runtimes, in_turns_with
from eval.benchmark.latency import check_options
from eval.benchmark.size import file_sizes, network_inputs
from eval.cli.table import aligned
from eval.measures.fixed_latents import FixedLatents
from eval.measures.fixed_set import FixedSet
from eval.protocol import default_device, file_sha256, folder_sha256, library_versions, measured_with
from eval.reporting.pruning_plots import draw_curve
from eval.samples.pipelines import load_sampler, with_network
from mobilediff.checkpoints import load_component
from mobilediff.command import check_least, command_parser, run_command
from mobilediff.compression.blocks import block_names, without_blocks
from mobilediff.compression.pruned import PruningCurve, PruningPoint, read_curve
from mobilediff.compression.pruning import Method, check_pruning_ratio, pruned_network
from mobilediff.compression.records import check_same_protocol
from mobilediff.files import replaceable_folder, write_json
from mobilediff.models.macs import count_params_and_macs
from mobilediff.models.mobile_unet import MobileUNet
from mobilediff.ondevice.formats import load_format
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.training.engine.options import parse_options
from mobilediff.training.engine.pipelines import check_velocity
from mobilediff.training.prune import Prune, PruneOptions

COMMAND = "mobilediff.compression.curve"
LOG, PICTURE, REPAIR = "curve.json", "curve.png", "repair"
METHODS = get_args(Method)
RATIOS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
BLOCK_SAMPLES = 64  # latents that order the blocks
MIN_NOISE_SETS = 2
Key = tuple[Method | None, float, int]
UNPRUNED: Key = (None, 0.0, 0)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = command_parser(f"python -m {COMMAND}", __doc__)
    parser.add_argument("--model", required=True, help="a checkpoint folder with a MobileUNet")
    parser.add_argument("--output", required=True, help="folder of the run")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="that prune")
    parser.add_argument("--ratios", nargs="+", type=float, default=RATIOS, help="fractions to prune")
    parser.add_argument("--repair", nargs="+", type=int, default=[0], help="steps of the stage prune, 0 for none")
    parser.add_argument(
        "--repair-config",
        default="mobilediff/training/configs/prune.yaml",
        help="of the stage prune, but for its steps",
    )
    parser.add_argument("--n", type=int, default=1000, help="samples of the fixed set")
    parser.add_argument("--seed", type=int, default=0, help="of its first sample")
    parser.add_argument("--noise-sets", type=int, default=3, help="sets of samples whose spread is the noise")
    parser.add_argument("--batch-size", type=int, default=100, help="samples drawn at once")
    parser.add_argument(
        "--runtimes", nargs="*", choices=RUNTIMES, default=["pytorch"], help="that are timed; none: no latency"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of the CPU in timed calls")
    parser.add_argument("--rounds", type=int, default=50, help="timed runs of a network")
    parser.add_argument("--max-seconds", type=float, default=60, help="a network that took longer in all stops")
    args = parser.parse_args(argv)
    for name in ("methods", "ratios", "repair", "runtimes"):
        setattr(args, name, list(dict.fromkeys(getattr(args, name))))
    for ratio in args.ratios:
        check_pruning_ratio(ratio)
        if ratio == 0:
            raise ValueError(
                "ratio is 0.0; accepted are fractions above 0, as the unpruned network is always measured"
            )
    check_least(args, noise_sets=MIN_NOISE_SETS, batch_size=1, seed=0)
    if min(args.repair) < 0:
        raise ValueError(f"repair is {min(args.repair)}; accepted is 0 or more")
    check_options(args.threads, args.rounds, args.max_seconds, [])
    return args


class Laboratory:
    """Prune, repair and measure one pipeline's network.

    Args:
        args: of the command line.
        folder: of the run.
        pipeline: with the unpruned network.
        samples: the fixed set.
    """

    def __init__(self, args: argparse.Namespace, folder: Path, pipeline: MobileDiffusionPipeline, samples: FixedSet):
        self.args, self.folder, self.pipeline, self.samples = args, folder, pipeline, samples
        self.unpruned, self.inputs = pipeline.unet, network_inputs(pipeline)

    def protocol(self) -> dict:
        """Return all that the points of a curve share."""
        args = self.args
        stated: dict = {"model": Path(args.model).resolve().name, "model_sha256": folder_sha256(args.model)}
        stated |= {name: getattr(args, name) for name in ("seed", "noise_sets", "batch_size")}
        stated |= {"num_inference_steps": self.pipeline.config.default_num_inference_steps}
        stated |= {"block_samples": BLOCK_SAMPLES} | self.samples.protocol() | measured_with(self.pipeline.device)
        if args.runtimes:
            stated["latency"] = {name: getattr(args, name) for name in ("threads", "rounds", "max_seconds")}
        if "onnxruntime" in args.runtimes:
            stated["onnxruntime_versions"] = library_versions(load_format("onnx").LIBRARIES)
        if any(args.repair):
            stated["repair_config_sha256"] = file_sha256(args.repair_config)
        return stated

    def block_errors(self) -> dict[str, float]:
        """Measure the relative error of the latents without each single block."""
        latents, errors = FixedLatents(self.pipeline, BLOCK_SAMPLES, self.args.seed), {}
        for name in block_names(self.unpruned):
            with without_blocks(self.unpruned, [name]):
                errors[name] = latents.error(self.pipeline)
        return errors

    def network(self, key: Key, ordered_blocks: list[str]) -> MobileUNet:
        """Prune a copy of the network, and repair it where the key says so."""
        method, ratio, steps = key
        if method is None:
            return self.unpruned
        network = pruned_network(self.unpruned, method, ratio, ordered_blocks)
        if steps:
            network = self.repaired(key, _removed(network, self.unpruned))
        return network.requires_grad_(False)

    def repaired(self, key: Key, removed_blocks: list[str]) -> MobileUNet:
        """Run the stage `prune` in a folder of its own, which an interrupted run goes on with."""
        method, ratio, steps = key
        output = self.folder / REPAIR / f"{method}-{ratio:g}-{steps}"
        values = {"output": str(output), "student": self.args.model, "method": method, "pruning_ratio": ratio}
        values |= {"removed_blocks": removed_blocks, "steps": steps, "sample_every": 0, "validation_samples": 0}
        words = [f"{name}={json.dumps(value)}" for name, value in values.items()]
        options, limits = parse_options(PruneOptions, ["--config", self.args.repair_config, *words])
        if not Prune(options, limits).run():
            raise KeyboardInterrupt  # the stage has saved its state and ended before its last step
        return load_component(MobileUNet, output / "export" / "unet").to(self.pipeline.device)

    def point(self, key: Key, network: MobileUNet) -> PruningPoint:
        """Measure a network but for its latency."""
        method, ratio, steps = key
        (params, macs), sizes = count_params_and_macs(network, self.inputs), file_sizes(network)
        with with_network(self.pipeline, network):
            quality = self.samples(self.pipeline, self.args.seed)
        return PruningPoint(
            method=method,
            pruning_ratio=ratio,
            repair_steps=steps,
            removed_blocks=_removed(network, self.unpruned),
            params=params,
            nonzero_params=sum(int(one.count_nonzero()) for one in network.parameters()),
            macs=macs,
            weights_bytes=sizes["weights_bytes"],
            gzip_bytes=sizes["gzip_bytes"],
            quality=quality,
        )

    def points(self, curve: PruningCurve) -> Iterator[PruningPoint]:
        """Measure what the command line asks for and a curve lacks, a network after the other."""
        args = self.args
        ordered_blocks = sorted(curve.block_errors, key=curve.block_errors.__getitem__)
        with in_turns_with(self.unpruned, self.inputs, args.threads, args.rounds, args.max_seconds) as latency:
            for key in planned(args):
                point = curve.at(key)
                lacking = [runtime for runtime in args.runtimes if point is None or runtime not in point.latency]
                if point and not lacking:
                    continue
                network = self.network(key, ordered_blocks)
                if point is None:
                    point = self.point(key, network)
                    yield point
                times = {runtime: latency(network, runtime) for runtime in lacking}
                yield point.model_copy(update={"latency": point.latency | times})


def _removed(network: MobileUNet, unpruned: MobileUNet) -> list[str]:
    left = block_names(network)
    return [name for name in block_names(unpruned) if name not in left]


def planned(args: argparse.Namespace) -> list[Key]:
    """List the points that the command line asks for: the unpruned network first, those without repair next."""
    return [UNPRUNED] + [
        (method, ratio, steps)
        for steps in sorted(args.repair)
        for method in args.methods
        for ratio in sorted(args.ratios)
    ]


def started(laboratory: Laboratory, file: Path) -> PruningCurve:
    """Read the curve of an earlier run, or begin one with its noise and the order of the blocks.

    Raises:
        ValueError: as in `check_same_protocol`.
    """
    args, protocol = laboratory.args, laboratory.protocol()
    if file.exists():
        curve = read_curve(file)
        check_same_protocol(file, protocol | curve.protocol, protocol)
        return curve.model_copy(update={"protocol": curve.protocol | protocol})
    noise = laboratory.samples.noise(laboratory.pipeline, args.seed, args.noise_sets)
    return PruningCurve(protocol=protocol, noise=noise, block_errors=laboratory.block_errors())


def table(curve: PruningCurve) -> str:
    """Tabulate the points by method, repair and ratio, and state the noise."""
    runtimes = curve.runtimes()
    rows = [["network", "params", "not 0", "MMACs", "MB", "gzip MB", *(f"{name} %" for name in runtimes)]]
    rows[0] += ["CLIP score", "Frechet distance (judge)"]
    order = [None, *METHODS]
    for point in sorted(curve.points, key=lambda one: (order.index(one.method), one.repair_steps, one.pruning_ratio)):
        repair = f", {point.repair_steps} steps of repair" if point.repair_steps else ""
        network = f"{point.method} {point.pruning_ratio:g}{repair}" if point.method else "unpruned"
        sizes = [f"{point.params:,}", f"{point.nonzero_params:,}", f"{point.macs / 1e6:.0f}"]
        sizes += [f"{size / 1e6:.2f}" for size in (point.weights_bytes, point.gzip_bytes)]
        times = [f"{100 * point.latency[name].relative:.0f}" if name in point.latency else "" for name in runtimes]
        figures = [f"{point.quality.clip_score:.2f}", f"{point.quality.frechet_distance:.2f}"]
        rows.append([network, *sizes, *times, *figures])
    noise = f"noise (standard deviation over {curve.protocol['noise_sets']} sets of samples)"
    figures = f"CLIP score {curve.noise.clip_score:.2f}, Frechet distance {curve.noise.frechet_distance:.2f}"
    times = (
        ["a runtime's %: median of a call over the unpruned network's, which took turns with it"] if runtimes else []
    )
    return "\n".join([aligned(rows), *times, f"{noise}: {figures}; n = {curve.protocol['n']:,}"])


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    args = parse_arguments(argv)
    folder, device = replaceable_folder(args.output), default_device()
    check_runtimes(args.runtimes, device)
    pipeline = load_sampler(args.model, device)
    check_mobile_unet(pipeline)
    if any(args.repair):
        check_velocity(pipeline, args.model)  # before anything is measured
    pipeline.unet.requires_grad_(False)
    laboratory = Laboratory(args, folder, pipeline, FixedSet(args.n, device, args.batch_size))

    def save(curve: PruningCurve) -> None:
        write_json(folder / LOG, curve.model_dump(mode="json", by_alias=True))

    curve = started(laboratory, folder / LOG)
    save(curve)
    for point in laboratory.points(curve):
        curve = curve.with_point(point)
        save(curve)
    print(table(curve), flush=True)
    draw_curve(curve, folder / PICTURE)


if __name__ == "__main__":
    run_command(main)
