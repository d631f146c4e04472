"""Evolve a checkpoint's network to one latency or several by removing and adding blocks.

    python -m mobilediff.compression.evolve --model runs/robust/export --latency-table latency.json \\
        --target-ms 10 8 6 --output runs/evolved

The output folder gets `evolution.json`, the run step by step, `evolution.png`, and a checkpoint for each latency, such
as `export-10ms`: networks of several sizes out of one set of weights. The same command goes on with an interrupted
run.
"""

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import get_args

from eval.benchmark.blocks import check_mobile_unet, check_runtimes, measure_network
from eval.benchmark.latency import MIN_RUNS
from eval.benchmark.size import network_inputs
from eval.cli.table import aligned
from eval.measures.fixed_set import FixedSet
from eval.protocol import default_device, file_sha256, folder_sha256, measured_with
from eval.reporting.plots import draw_evolution
from eval.samples.pipelines import load_sampler, with_network
from mobilediff.command import check_least, command_parser, run_command
from mobilediff.compression.blocks import block_names, remove_blocks, without_blocks
from mobilediff.compression.evolution import Evolution, EvolutionLog, Measure, Quality, read_evolution
from mobilediff.compression.latency import read_latency_table
from mobilediff.compression.parts import network_parts
from mobilediff.compression.records import check_same_protocol
from mobilediff.export import export_pipeline
from mobilediff.files import replaceable_folder, write_json
from mobilediff.pipeline import MobileDiffusionPipeline

COMMAND = "mobilediff.compression.evolve"
LOG, PICTURE = "evolution.json", "evolution.png"
MIN_NOISE_SETS = 2


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = command_parser(f"python -m {COMMAND}", __doc__)
    parser.add_argument("--model", required=True, help="a checkpoint folder with a MobileUNet, robustly trained")
    parser.add_argument("--latency-table", required=True, help="of mobilediff.compression.latency_table")
    parser.add_argument(
        "--target-ms", required=True, nargs="+", type=float, help="predicted latencies of a network call to reach"
    )
    parser.add_argument("--output", required=True, help="folder of the run")
    parser.add_argument("--runtime", default="pytorch", help="of the table whose times count")
    parser.add_argument("--quality", choices=get_args(Measure), default="clip_score", help="figure that decides")
    parser.add_argument("--group-size", type=int, default=1, help="blocks removed at once")
    parser.add_argument("--n", type=int, default=1000, help="samples of the fixed set")
    parser.add_argument("--seed", type=int, default=0, help="of its first sample")
    parser.add_argument("--noise-sets", type=int, default=3, help="sets of samples whose spread is the noise")
    parser.add_argument("--batch-size", type=int, default=100, help="samples drawn at once")
    args = parser.parse_args(argv)
    check_least(args, group_size=1, noise_sets=MIN_NOISE_SETS, batch_size=1, seed=0)
    args.target_ms = sorted(set(args.target_ms), reverse=True)
    for target_ms in args.target_ms:
        if not 0 < target_ms < float("inf"):
            raise ValueError(f"target_ms is {target_ms}; accepted is a number above 0")
    return args


class Laboratory:
    """Measure networks without some blocks of one pipeline's network.

    Args:
        args: of the command line.
        pipeline: of the supernet.
        samples: the fixed set.

    Raises:
        ValueError: the table lacks a part of the network or the runtime.
    """

    def __init__(self, args: argparse.Namespace, pipeline: MobileDiffusionPipeline, samples: FixedSet):
        self.pipeline, self.samples, self.args = pipeline, samples, args
        self.table = read_latency_table(args.latency_table)
        self.times = self.table.of(args.runtime)
        check_runtimes([args.runtime], pipeline.device)
        self.inputs = network_inputs(pipeline, self.table.batch_size)

    def predicted_ms(self, removed: Collection[str]) -> float:
        """Add up the table's times of the network's parts."""
        with without_blocks(self.pipeline.unet, removed):
            return self.times.network_ms(network_parts(self.pipeline.unet, self.inputs))

    def measured_ms(self, removed: Collection[str]) -> float:
        """Time the whole network as the table's were timed."""
        threads, rounds, max_seconds = (self.table.protocol[key] for key in ("threads", "rounds", "max_seconds"))
        options = threads, max(rounds, MIN_RUNS), max_seconds, self.table.batch_size
        return measure_network(self.pipeline, self.args.runtime, removed, *options)

    def quality(self, removed: Collection[str]) -> Quality:
        """Measure the fixed set of the network."""
        with without_blocks(self.pipeline.unet, removed):
            return self.samples(self.pipeline, self.args.seed)

    def protocol(self) -> dict:
        """Return all that a resumed run has to share."""
        args, config = self.args, self.pipeline.config
        stated = {"model": Path(args.model).resolve().name, "model_sha256": folder_sha256(args.model)}
        stated |= {"latency_table_sha256": file_sha256(args.latency_table)}
        names = ("target_ms", "runtime", "quality", "group_size", "seed", "noise_sets", "batch_size")
        stated |= {name: getattr(args, name) for name in names}
        stated |= {"num_inference_steps": config.default_num_inference_steps}
        return stated | self.samples.protocol() | measured_with(self.pipeline.device)


def started(laboratory: Laboratory, file: Path) -> EvolutionLog:
    """Read the log of an interrupted run, or begin one with the noise of the fixed set.

    Raises:
        ValueError: as in `check_same_protocol`.
    """
    protocol = laboratory.protocol()
    if file.exists():
        log = read_evolution(file)
        check_same_protocol(file, log.protocol, protocol)
        return log
    args, pipeline = laboratory.args, laboratory.pipeline
    noise = laboratory.samples.noise(pipeline, args.seed, args.noise_sets)
    return EvolutionLog(protocol=protocol, blocks=block_names(pipeline.unet), noise=noise)


def table(log: EvolutionLog) -> str:
    """Tabulate the steps, and state the noise."""
    rows = [["step", "blocks left", "predicted ms", "measured ms", "CLIP score", "Frechet distance (judge)"]]
    for number, step in enumerate(log.steps):
        left = f"{len(log.blocks) - len(step.removed_blocks)}"
        figures = step.predicted_ms, step.measured_ms, step.quality.clip_score, step.quality.frechet_distance
        rows.append(
            [" ".join([f"{number}", step.action, *step.blocks]), left, *(f"{figure:.3f}" for figure in figures)]
        )
    reached = [f"within {size.target_ms:g} ms: step {size.step}" for size in log.sizes]
    noise = f"noise (standard deviation over {log.protocol['noise_sets']} sets of samples)"
    figures = f"CLIP score {log.noise.clip_score:.3f}, Frechet distance {log.noise.frechet_distance:.3f}"
    return "\n".join([aligned(rows), *reached, f"{noise}: {figures}"])


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    args = parse_arguments(argv)
    folder, device = replaceable_folder(args.output), default_device()
    read_latency_table(args.latency_table).of(args.runtime)  # before anything is loaded
    pipeline = load_sampler(args.model, device)
    check_mobile_unet(pipeline)
    pipeline.unet.requires_grad_(False)
    laboratory = Laboratory(args, pipeline, FixedSet(args.n, device, args.batch_size))
    laboratory.predicted_ms([])  # a part that the table lacks is refused before samples are drawn

    def save(log: EvolutionLog) -> None:
        write_json(folder / LOG, log.model_dump(mode="json", by_alias=True))

    log = started(laboratory, folder / LOG)
    calls = laboratory.predicted_ms, laboratory.measured_ms, laboratory.quality
    log = Evolution(log, args.target_ms, args.quality, args.group_size, *calls, save).run()
    print(table(log), flush=True)
    draw_evolution(log, folder / PICTURE)
    for size in log.sizes:
        with with_network(pipeline, remove_blocks(pipeline.unet, log.step_of(size).removed_blocks).eval()):
            print(export_pipeline(pipeline, folder / f"export-{size.target_ms:g}ms"))


if __name__ == "__main__":
    run_command(main)
