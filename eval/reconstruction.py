"""What a VAE loses: PSNR and Frechet distance of CIFAR-10's test images, encoded and decoded again.

python -m eval.reconstruction --vae checkpoints/teacher/vae --data DIR
"""

import argparse
import sys
from dataclasses import replace

import torch
from accelerate import PartialState

from eval.extractors import judge_extractor
from eval.fid import measure_distance
from eval.images import ImageSet, real_images
from eval.protocol import folder_sha256, tensor_sha256
from eval.show import show_result
from mobilediff.checkpoints import VAE, load_vae
from mobilediff.training.vae import psnr, reconstruct


def reconstructed(vae: VAE, images: ImageSet, device: torch.device | str = "cpu") -> ImageSet:
    """The images, encoded and decoded again, with their prompts and labels."""
    decoded = reconstruct(vae.to(device), images.images)
    protocol = images.protocol | {"images": f"{images.protocol['images']}, reconstructed"}
    return replace(images, images=decoded, protocol=protocol | {"images_sha256": tensor_sha256(decoded)})


def measure_reconstruction(vae: VAE, images: ImageSet, device: torch.device | str = "cpu") -> dict:
    """PSNR and the bundled extractor's Frechet distance of reconstructed images to CIFAR-10's training set.

    Returns:
        `psnr`, `latent_channels` and all that `measure_distance` returns; its `floor` is the distance of the images
        themselves where they are the test set.
    """
    restored = reconstructed(vae, images, device)
    result = measure_distance(restored, judge_extractor(), device=device)
    return {"psnr": psnr(images.images, restored.images), "latent_channels": vae.config.latent_channels} | result


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m eval.reconstruction", description=__doc__.splitlines()[0])
    parser.add_argument("--vae", required=True, help="a folder that a VAE's save_pretrained wrote")
    parser.add_argument("--data", help="CIFAR-10: a folder or a hub name (default: the variable MOBILEDIFF_DATA)")
    parser.add_argument("--json", help="also write the result to this file")
    args = parser.parse_args(argv)
    vae = load_vae(args.vae).float()
    result = measure_reconstruction(vae, real_images(args.data, "test"), PartialState().device)
    result["protocol"] |= {"vae": args.vae, "vae_sha256": folder_sha256(args.vae)}
    show_result("eval.reconstruction", result, args.json)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
