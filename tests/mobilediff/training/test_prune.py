"""Stage `prune`."""

import pytest
from safetensors.torch import load_file

from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.training.engine.options import build_options
from mobilediff.training.prune import Prune, PruneOptions
from tests.mobilediff.training.runs import run, tiny_options
from tests.tiny import tiny_pipeline


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_intervals": 0}, "num_intervals is 0"),
        ({"method": "random"}, "method is 'random'; accepted"),
        ({"pruning_ratio": 1.0}, "pruning_ratio is 1.0"),
        ({"method": "blocks"}, r"removed_blocks is \[\]; accepted with method blocks is one name or more"),
        ({"removed_blocks": ["a"]}, r"removed_blocks is \['a'\]; accepted with method structured is none"),
    ],
)
def test_bad_options_are_named(changes, named):
    with pytest.raises(ValueError, match=named):
        build_options(PruneOptions, {"output": "a", "student": "b", **changes})


REMOVED = ["down_blocks.0.resnets.0", "mid_block.attentions.0"]


def test_a_network_that_predicts_no_velocity_is_refused(tmp_path, data_folder):
    pipeline = tiny_pipeline("teacher")
    pipeline.scheduler.register_to_config(prediction_type="epsilon")
    pipeline.save_pretrained(tmp_path / "noise")
    with pytest.raises(ValueError, match="prediction_type is epsilon; accepted is v_prediction"):
        run(Prune, PruneOptions, tiny_options(tmp_path / "run", data_folder, student=str(tmp_path / "noise")))


@pytest.mark.slow
def test_channels_and_blocks_go_and_weights_stay_zero(tmp_path, data_folder, checkpoints):
    start, sizes = str(checkpoints / "student-1step"), {}
    for method in ("structured", "unstructured", "blocks"):
        values = tiny_options(
            tmp_path / method,
            data_folder,
            student=start,
            method=method,
            pruning_ratio=0.5,
            removed_blocks=REMOVED if method == "blocks" else [],
            null_probability=0.0,
            latent_cache=str(tmp_path / "latents"),
        )
        assert run(Prune, PruneOptions, values)
        pipeline = MobileDiffusionPipeline.from_pretrained(tmp_path / method / "export")
        assert pipeline.nfe() == 1
        assert pipeline("an ostrich", output_type="pt").images.shape == (1, 3, 32, 32)
        sizes[method] = sum(parameter.numel() for parameter in pipeline.unet.parameters())
    assert pipeline.unet.config.removed_blocks == REMOVED  # of the last one
    assert sizes["structured"] < sizes["unstructured"]
    zeros = load_file(tmp_path / "unstructured/export/unet/diffusion_pytorch_model.safetensors")["conv_in.weight"] == 0
    assert zeros.float().mean().item() == pytest.approx(0.5, abs=0.01)
