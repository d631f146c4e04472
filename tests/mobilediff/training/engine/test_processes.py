"""Two processes that share the work."""

import os
import subprocess
import sys

import pytest
import yaml

from mobilediff.pipeline import MobileDiffusionPipeline
from tests.mobilediff.training.runs import TINY_VAE, read_records, tiny_encoder, tiny_options


def train_on_two_processes(stage: str, options: dict, folder) -> list[dict]:
    """Run a stage as two processes that exchange gradients over gloo; returns its records."""
    config = folder / f"{stage}.yaml"
    config.write_text(yaml.safe_dump(options))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", f"mobilediff.training.{stage}", "--config", str(config)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return read_records(folder / stage)


@pytest.mark.slow
def test_two_processes_share_the_work(tmp_path, data_folder, checkpoints):
    perceptual = tiny_encoder(tmp_path / "image_encoder")
    options = tiny_options(tmp_path / "vae", data_folder, sample_every=1, perceptual=perceptual, network=TINY_VAE)
    records = train_on_two_processes("vae", options, tmp_path)
    assert records[-1]["images"] == 3 * 4 * 2 and "psnr_db" in records[-1]
    trained, latents = str(tmp_path / "vae" / "export"), str(tmp_path / "latents")
    options = tiny_options(tmp_path / "decoder", data_folder, perceptual=perceptual, vae=trained, latent_cache=latents)
    options |= {"lambda_adversarial": 0.5, "dtype": "fp16-weights"}
    records = train_on_two_processes("decoder", options, tmp_path)
    assert records[-1]["images"] == 3 * 4 * 2 and "loss_discriminator" in records[-1]

    start = str(checkpoints / "student-8step")
    options = tiny_options(
        tmp_path / "one_step",
        data_folder,
        student=start,
        num_pairs=6,
        perceptual=perceptual,
        reconstruction_steps=1,
        sample_every=1,
        latent_cache=str(tmp_path / "latents"),
        pair_cache=str(tmp_path / "pairs"),
    )
    records = train_on_two_processes("one_step", options, tmp_path)
    assert records[-1]["images"] == 3 * 4 * 2
    assert MobileDiffusionPipeline.from_pretrained(tmp_path / "one_step" / "export").nfe() == 1
