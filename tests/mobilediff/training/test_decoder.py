"""Stage `decoder`."""

import pytest
import torch
from diffusers import AutoencoderKL

from mobilediff.checkpoints import encoder_tensors
from mobilediff.training.decoder import Decoder, DecoderOptions
from mobilediff.training.engine.options import build_options
from tests.mobilediff.training.runs import read_records, run, tiny_encoder, tiny_options
from tests.tiny import tiny_vae


@pytest.mark.slow
def test_the_decoder_alone_is_trained_on(tmp_path, data_folder):
    tiny_vae().save_pretrained(tmp_path / "vae")
    start = AutoencoderKL.from_pretrained(tmp_path / "vae")
    values = tiny_options(
        tmp_path / "decoder",
        data_folder,
        sample_every=3,
        vae=str(tmp_path / "vae"),
        perceptual=tiny_encoder(tmp_path / "image_encoder"),
        latent_cache=str(tmp_path / "latents"),
        lambda_adversarial=0.5,
        adversarial_start=1,
    )
    assert run(Decoder, DecoderOptions, values)
    assert {"loss_adversarial", "loss_discriminator", "real_fraction"} <= set(read_records(tmp_path / "decoder")[0])
    trained = AutoencoderKL.from_pretrained(tmp_path / "decoder" / "export")
    before, after = encoder_tensors(start), encoder_tensors(trained)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name].half(), after[name].half()) for name in before)
    assert not torch.equal(trained.decoder.conv_out.weight, start.decoder.conv_out.weight)
    without = values | {"output": str(tmp_path / "no-adversary"), "lambda_adversarial": 0.0}
    assert run(Decoder, DecoderOptions, without)
    assert "loss_discriminator" not in read_records(tmp_path / "no-adversary")[0]
    plain = AutoencoderKL.from_pretrained(tmp_path / "no-adversary" / "export")
    assert not torch.equal(trained.decoder.conv_out.weight, plain.decoder.conv_out.weight)
    with pytest.raises(ValueError, match="adversarial_start is 3, with 3 steps"):
        build_options(DecoderOptions, values | {"adversarial_start": 3})
