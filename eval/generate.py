"""Draw samples of a checkpoint or diffusers pipeline into PNG files or npz, resumable.

python -m eval.generate --model checkpoints/student-1step --output outputs/one-step --n 10000
python -m eval.generate --pipeline OWNER/NAME --call '{"num_inference_steps": 100}' --output outputs/ddpm
accelerate launch -m eval.generate --model checkpoints/teacher --output outputs/teacher.npz --n 50000
ACCELERATE_USE_CPU=1 torchrun --nproc_per_node 2 -m -- eval.generate --model checkpoints/teacher --output outputs/it

Without the "--", torchrun reads --n as an abbreviation of an option of its own.
"""

from eval.cli.parser import command_parser
from eval.cli.sampling import add_model_arguments, add_sampling_arguments, sampler_from_arguments
from eval.samples.prompts import check_sample_count
from eval.samples.store import generate, open_store
from mobilediff.command import run_command


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = command_parser("eval.generate", __doc__)
    add_model_arguments(parser.add_mutually_exclusive_group(required=True))
    parser.add_argument("--output", required=True, help="a folder for PNG files, or a file that ends in .npz")
    add_sampling_arguments(parser)
    args = parser.parse_args(argv)
    open_store(args.output)
    check_sample_count(args.n)
    manifest = generate(*sampler_from_arguments(args), args.output, args.n, args.batch_size)
    print(f"{manifest['n']} samples of {manifest['model']} in {args.output} (NFE {manifest['nfe'] or 'not known'})")


if __name__ == "__main__":
    run_command(main)
