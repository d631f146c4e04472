"""Measure how well a control checkpoint follows the edges and colours of test images.

    python -m eval.control --model runs/control/export --vae checkpoints/teacher/vae

The same seeds, classes and conditions are drawn without control, with edges, with colours and with both. Agreement
without control is chance; that of the test images themselves, encoded and decoded by --vae, is the ceiling.
"""

from eval.benchmark.control import control_times
from eval.cli.output import add_json_argument, check_picture_output, write_picture
from eval.cli.show import show_result
from eval.extractors.judge import judge_extractor
from eval.extractors.statistics import check_image_count
from eval.measures.control import measure_control, picture
from eval.protocol import default_device
from eval.samples.images import real_images
from eval.samples.pipelines import load_sampler
from eval.samples.settings import resolve_settings
from mobilediff.checkpoints import load_vae
from mobilediff.command import command_parser, run_command
from mobilediff.downstream.control import MobileDiffusionControlPipeline

SHOWN = 8  # images of a picture


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = command_parser("python -m eval.control", __doc__)
    parser.add_argument("--model", required=True, help="a checkpoint folder with a control network")
    parser.add_argument("--vae", required=True, help="folder of the VAE that encodes and decodes the test images")
    parser.add_argument("--n", type=int, default=10000, help="test images, the first ones")
    parser.add_argument("--seed", type=int, default=0, help="image i is drawn with seed + i")
    parser.add_argument("--batch-size", type=int, default=100, help="samples drawn at once")
    parser.add_argument("--data", help="CIFAR-10: a folder or a hub name (default: the variable MOBILEDIFF_DATA)")
    add_json_argument(parser)
    parser.add_argument("--plot", help="also draw the first images and samples of them, into this PNG file")
    args = parser.parse_args(argv)
    if args.plot:
        check_picture_output("--plot", args.plot)
    judge, device = judge_extractor(), default_device()
    check_image_count(args.n, judge)
    pipeline = load_sampler(args.model, device)
    if not isinstance(pipeline, MobileDiffusionControlPipeline):
        raise ValueError(
            f"{args.model} is a {type(pipeline).__name__}; accepted is a checkpoint with a control network"
        )
    settings = resolve_settings(pipeline, args.model, args.seed)
    vae = load_vae(args.vae).to(device)  # pyright: ignore[reportArgumentType]
    real = real_images(args.data, "test").first(args.n)
    result = measure_control(pipeline, settings, real, vae, judge, args.batch_size, device)
    result["milliseconds"] = control_times(pipeline)
    show_result("eval.control", result, args.json)
    if args.plot:
        write_picture(args.plot, picture(pipeline, settings, real.first(SHOWN)))


if __name__ == "__main__":
    run_command(main)
