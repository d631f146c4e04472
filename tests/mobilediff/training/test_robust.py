"""Stage `robust`."""

import json

import pytest
import torch

from mobilediff.compression.blocks import block_names
from mobilediff.files import read_json
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.training.engine.options import RunLimits, build_options
from mobilediff.training.robust import BLOCK_LOSSES, Robust, RobustOptions, draw_skipped
from tests.mobilediff.training.runs import read_records, run, tiny_encoder, tiny_options
from tests.tiny import tiny_unet


@pytest.fixture
def values(tmp_path, data_folder, checkpoints):
    network = tmp_path / "supernet.json"
    config = tiny_unet("student-1step").config | {"layers_per_block": 2, "_class_name": "MobileUNet"}
    network.write_text(json.dumps(config))
    return tiny_options(
        tmp_path / "robust",
        data_folder,
        student=str(checkpoints / "student-1step"),
        vae=str(checkpoints / "student-1step/vae"),
        perceptual=tiny_encoder(tmp_path / "encoder"),
        network=str(network),
        execution_probability=0.7,
        loss_samples=8,
        reconstruction_steps=1,
        dtype="fp32",
        latent_cache=str(tmp_path / "latents"),
    )


def test_blocks_are_skipped_with_probability_1_minus_p():
    names = [str(index) for index in range(1000)]
    generator = torch.Generator().manual_seed(0)
    assert draw_skipped(names, 1.0, generator) == []
    assert draw_skipped(names, 0.0, generator) == names
    skipped = draw_skipped(names, 0.9, generator)
    assert 60 < len(skipped) < 140  # four standard deviations of a binomial of 1000 and 0.1
    assert skipped != draw_skipped(names, 0.9, generator)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"execution_probability": 1.5}, "execution_probability is 1.5"),
        ({"compile": True}, "compile is True; accepted is False"),
        ({"loss_samples": 0}, "loss_samples is 0"),
    ],
)
def test_bad_options_are_named(changes, named):
    with pytest.raises(ValueError, match=named):
        build_options(RobustOptions, {"output": "a", "student": "b", "vae": "c", "perceptual": "d", **changes})


@pytest.mark.slow
def test_the_loss_without_each_block_is_written_before_and_after(values, tmp_path):
    assert run(Robust, RobustOptions, values | {"sample_every": 3})
    losses = read_json(tmp_path / "robust" / BLOCK_LOSSES)
    pipeline = MobileDiffusionPipeline.from_pretrained(tmp_path / "robust" / "export")
    for when in ("before", "after"):
        assert list(losses[when]["without"]) == block_names(pipeline.unet)
        assert any(value > losses[when]["whole"] for value in losses[when]["without"].values())
    assert losses["before"]["whole"] < 1e-6 < losses["after"]["whole"]  # the added blocks change nothing yet
    assert losses["before"]["without"]["down_blocks.0.resnets.1"] < 1e-6
    assert losses["before"] != losses["after"]
    last = read_records(tmp_path / "robust")[-1]
    assert last["loss_without_the_worst_block"] == pytest.approx(max(losses["after"]["without"].values()))
    assert last["loss_whole"] == pytest.approx(losses["after"]["whole"])
    assert not pipeline.unet.config.removed_blocks


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(values, tmp_path):
    assert run(Robust, RobustOptions, values)
    parted = values | {"output": str(tmp_path / "parted")}
    assert not run(Robust, RobustOptions, parted, RunLimits(max_minutes=0.0))
    before = read_json(tmp_path / "parted" / BLOCK_LOSSES)
    assert "after" not in before
    assert run(Robust, RobustOptions, parted)
    name = "export/unet/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "parted" / name).read_bytes() == (tmp_path / "robust" / name).read_bytes()
    assert read_json(tmp_path / "parted" / BLOCK_LOSSES) == read_json(tmp_path / "robust" / BLOCK_LOSSES)


@pytest.mark.slow
def test_a_trial_and_another_network(values, tmp_path, checkpoints):
    assert run(Robust, RobustOptions, values, RunLimits(dry_run=True))
    assert (tmp_path / "robust-dry-run" / BLOCK_LOSSES).is_file()
    stock = tmp_path / "stock.json"
    stock.write_text(json.dumps({**tiny_unet("teacher").config, "_class_name": "UNet2DConditionModel"}))
    with pytest.raises(ValueError, match="stock.json is of a UNet2DConditionModel; accepted is a MobileUNet"):
        run(Robust, RobustOptions, values | {"network": str(stock), "initial_weights": None})
