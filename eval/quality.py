"""Measure fidelity, diversity and copies of training images, by features beyond one distance.

    python -m eval.quality --model checkpoints/student-1step --data DIR
    python -m eval.quality --images outputs/one-step --extractor inception

Kernel distance, precision, recall, density and coverage are of the first images and as many of the reference. The
kernel distance is called KID, and the classifier's score Inception score, only under Inception. Copies are searched
among all of CIFAR-10's training images (--data); without them a line says that the search is left out.
"""

import sys

from eval.cli.extractors import add_extractor_arguments, add_reference_argument, extractor_from_arguments
from eval.cli.inputs import add_input_arguments, measure_repeatedly
from eval.cli.parser import command_parser
from eval.cli.show import show_result
from eval.extractors.features import FeatureSet
from eval.extractors.statistics import reference_statistics
from eval.measures.quality import TrainingFeatures, measure_quality
from eval.protocol import default_device
from mobilediff.command import run_command
from mobilediff.data import DATA_VARIABLE, data_source


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = command_parser("eval.quality", __doc__)
    add_input_arguments(parser)
    add_extractor_arguments(parser)
    add_reference_argument(parser)
    args = parser.parse_args(argv)
    extractor, device = extractor_from_arguments(args), default_device()
    reference_statistics(extractor, args.reference, args.data, device).kept_features()  # before samples are drawn
    training = None
    if data_source(args.data):
        training = TrainingFeatures(extractor, args.data, device)
    else:
        print(f"copies are not looked for: they need CIFAR-10 (--data DIR or {DATA_VARIABLE})", file=sys.stderr)
    options = args.reference, args.data, training
    result = measure_repeatedly(args, lambda images: measure_quality(FeatureSet(images, device), extractor, *options))
    show_result("eval.quality", result, args.json)


if __name__ == "__main__":
    run_command(main)
