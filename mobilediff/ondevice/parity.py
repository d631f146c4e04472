"""Compare exported pictures with PyTorch's, and fail where they are further apart than the precision allows.

python -m mobilediff.ondevice.parity --model checkpoints/student-1step --exported DIR
"""

import sys
from pathlib import Path

from eval.protocol import folder_sha256
from eval.samples.pipelines import load_sampler
from mobilediff.command import command_parser, run_command
from mobilediff.ondevice.difference import ACCEPTED, measure_parity
from mobilediff.ondevice.exported import ExportedPipeline
from mobilediff.ondevice.manifest import read_manifest


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = command_parser("python -m mobilediff.ondevice.parity", __doc__)
    parser.add_argument("--model", required=True, help="the checkpoint folder that was exported")
    parser.add_argument("--exported", required=True, help="the folder of mobilediff.ondevice.export")
    parser.add_argument("--images", type=int, default=32, help="pictures to compare")
    parser.add_argument("--threads", type=int, default=2, help="threads of the exported graphs")
    args = parser.parse_args(argv)
    manifest = read_manifest(args.exported)
    if (sha256 := folder_sha256(args.model)) != manifest.model_sha256:
        raise ValueError(
            f"{args.exported} is an export of {manifest.model} with hash {manifest.model_sha256[:12]}, but "
            f"{args.model} has {sha256[:12]}; accepted is the checkpoint that was exported"
        )
    exported = ExportedPipeline(Path(args.exported), manifest, args.threads)
    parity = measure_parity(load_sampler(args.model), exported, args.images)
    for name, value in parity.model_dump().items():
        print(f"{name.replace('_', ' ')}: {value:.3g}")
    accepted = ACCEPTED.get(manifest.precision)
    largest = max(parity.largest, parity.largest_with_noun_table)
    if accepted is not None and largest > accepted:
        sys.exit(f"error: the largest difference is {largest:.3g}; accepted in {manifest.precision} is {accepted}")


if __name__ == "__main__":
    run_command(main)
