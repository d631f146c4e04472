"""Measure the Frechet distance of samples or images to CIFAR-10 or to other images.

    python -m eval.fid --model checkpoints/student-1step
    python -m eval.fid --images outputs/one-step --extractor judge --reference test
    python -m eval.fid --pipeline OWNER/NAME --call '{"num_inference_steps": 100}' --extractor dinov2
    python -m eval.fid --images DIR --extractor inception --extractor-weights FILE --reference OTHER_DIR

torch-fidelity computes it; it is called FID only when the extractor is Inception. The floor beside it is the distance
of CIFAR-10's test set to its training set under the same extractor.
"""

from eval.cli.extractors import add_extractor_arguments, add_reference_argument, extractor_from_arguments
from eval.cli.inputs import add_input_arguments, measure_repeatedly, planned_count
from eval.cli.parser import command_parser
from eval.cli.show import show_result
from eval.extractors.features import FeatureSet
from eval.extractors.statistics import reference_name, reference_statistics
from eval.measures.frechet import distance_label, measure_frechet_distance
from eval.metrics.bootstrap import check_resamples
from eval.metrics.frechet import check_count
from eval.protocol import default_device
from mobilediff.command import run_command


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = command_parser("eval.fid", __doc__)
    add_input_arguments(parser)
    add_extractor_arguments(parser)
    add_reference_argument(parser)
    parser.add_argument("--resamples", type=int, default=100, help="of the bootstrap intervals, 0 for none")
    args = parser.parse_args(argv)
    if args.resamples:
        check_resamples(args.resamples)
    extractor, device = extractor_from_arguments(args), default_device()
    reference = reference_statistics(extractor, args.reference, args.data, device)
    if not args.images:  # before samples are drawn for nothing
        check_count(planned_count(args), len(reference.mu))
    options = args.reference, args.data, args.resamples
    result = measure_repeatedly(
        args, lambda images: measure_frechet_distance(FeatureSet(images, device), extractor, *options)
    )
    show_result("eval.fid", result, args.json)
    to = reference_name(args.reference)
    print(f"{distance_label(extractor, result['n'])} to {to}: {result[extractor.result_key]:.4f}")


if __name__ == "__main__":
    run_command(main)
