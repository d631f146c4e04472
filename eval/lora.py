"""Measure a LoRA: distance to held-out images of its style, class accuracy kept, size, and time added.

python -m eval.lora --model checkpoints/student-1step --lora runs/lora-pencil/export --style pencil --data DIR
python -m eval.lora --model checkpoints/student-1step --lora runs/lora-emoji/export --images runs/emoji/test
"""

from eval.benchmark.lora import picture_times
from eval.cli.output import add_json_argument, check_picture_output, write_picture
from eval.cli.show import show_result
from eval.extractors.judge import judge_extractor
from eval.measures.lora import HeldOut, measure_lora, picture
from eval.protocol import default_device
from mobilediff.command import command_parser, run_command
from mobilediff.data import ImageDataset, load_cifar10
from mobilediff.downstream.image_folder import load_image_folder
from mobilediff.downstream.styles import STYLES

RESOLUTION = 32


def held_out_images(style: str | None, folder: str | None, data: str | None, n: int) -> HeldOut:
    """Load the folder, or filter the first `n` test images of CIFAR-10; errors as in the loaders."""
    if style is None:
        return HeldOut(str(folder), load_image_folder(str(folder), RESOLUTION), None)
    test = load_cifar10(data, "test", RESOLUTION).head(n)
    filtered = ImageDataset(STYLES[style](test.images), test.labels, test.noun_ids)
    return HeldOut(f"CIFAR-10 test, the first {n}, {style}", filtered, style)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = command_parser("python -m eval.lora", __doc__)
    parser.add_argument("--model", required=True, help="folder of a checkpoint")
    parser.add_argument("--lora", required=True, help="file or folder of a LoRA of that checkpoint")
    reference = parser.add_mutually_exclusive_group(required=True)
    reference.add_argument("--style", choices=sorted(STYLES), help="compare with test images under this filter")
    reference.add_argument("--images", help="compare with the images of a folder, a folder a class or noun in it")
    parser.add_argument("--together", help="file or folder of a second LoRA, measured beside the first")
    parser.add_argument("--n", type=int, default=1000, help="pictures of each kind")
    parser.add_argument("--batch-size", type=int, default=50, help="pictures drawn at once")
    parser.add_argument("--data", help="CIFAR-10: a folder or a hub name (default: the variable MOBILEDIFF_DATA)")
    add_json_argument(parser)
    parser.add_argument("--plot", help="also draw each class without and with the LoRA, into this PNG file")
    args = parser.parse_args(argv)
    if args.plot:
        check_picture_output("--plot", args.plot)
    if args.n < 2:
        raise ValueError(f"--n is {args.n}; accepted is 2 or more")
    held_out, device = held_out_images(args.style, args.images, args.data, args.n), default_device()
    result = measure_lora(
        args.model, args.lora, held_out, judge_extractor(), args.n, args.batch_size, args.together, device
    )
    result["milliseconds"] = picture_times(args.model, args.lora)
    show_result("eval.lora", result, args.json)
    if args.plot:
        write_picture(args.plot, picture(args.model, args.lora))


if __name__ == "__main__":
    run_command(main)
