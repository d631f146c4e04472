"""Measure PSNR and Frechet distance of CIFAR-10's test images, encoded and decoded by a VAE.

python -m eval.reconstruction --vae checkpoints/teacher/vae --data DIR
"""

from eval.cli.parser import command_parser
from eval.cli.show import show_result
from eval.measures.reconstruction import measure_reconstruction
from eval.protocol import default_device, folder_sha256
from eval.samples.images import real_images
from mobilediff.checkpoints import load_vae
from mobilediff.command import run_command


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = command_parser("eval.reconstruction", __doc__)
    parser.add_argument("--vae", required=True, help="a folder that a VAE's save_pretrained wrote")
    parser.add_argument("--data", help="CIFAR-10: a folder or a hub name (default: the variable MOBILEDIFF_DATA)")
    parser.add_argument("--json", help="also write the result to this file")
    args = parser.parse_args(argv)
    vae = load_vae(args.vae).float()
    result = measure_reconstruction(vae, real_images(args.data, "test"), default_device())
    result["protocol"] |= {"vae": args.vae, "vae_sha256": folder_sha256(args.vae)}
    show_result("eval.reconstruction", result, args.json)


if __name__ == "__main__":
    run_command(main)
