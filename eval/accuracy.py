"""Measure class accuracy and noun top-1 and top-5 accuracy of samples by the judge.

python -m eval.accuracy --model checkpoints/student-8step --n 2000
python -m eval.accuracy --model checkpoints/student-8step --n 2000 --prompts noun
"""

from eval.cli.inputs import add_input_arguments, measure_repeatedly
from eval.cli.parser import command_parser
from eval.cli.show import show_result
from eval.extractors.features import FeatureSet
from eval.extractors.judge import judge_extractor
from eval.measures.accuracy import measure_accuracy
from eval.protocol import default_device
from mobilediff.command import run_command


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = command_parser("eval.accuracy", __doc__)
    add_input_arguments(parser)
    args = parser.parse_args(argv)
    judge, device = judge_extractor(), default_device()
    result = measure_repeatedly(
        args, lambda images: measure_accuracy(FeatureSet(images, device), judge), labelled=True
    )
    show_result("eval.accuracy", result, args.json)


if __name__ == "__main__":
    run_command(main)
