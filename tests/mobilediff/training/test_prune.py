"""Stage `prune`."""

import pytest
from safetensors.torch import load_file

from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.training.engine.options import build_options
from mobilediff.training.prune import Prune, PruneOptions
from tests.mobilediff.training.runs import run, tiny_options


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_intervals": 0}, "num_intervals is 0"),
        ({"method": "random"}, "method is 'random'; accepted"),
        ({"pruning_ratio": 1.0}, "pruning_ratio is 1.0"),
    ],
)
def test_bad_options_are_named(changes, named):
    with pytest.raises(ValueError, match=named):
        build_options(PruneOptions, {"output": "a", "student": "b", **changes})


@pytest.mark.slow
def test_channels_go_and_weights_stay_zero(tmp_path, data_folder, checkpoints):
    start, sizes = str(checkpoints / "student-1step"), {}
    for method in ("structured", "unstructured"):
        values = tiny_options(
            tmp_path / method,
            data_folder,
            student=start,
            method=method,
            pruning_ratio=0.5,
            null_probability=0.0,
            latent_cache=str(tmp_path / "latents"),
        )
        assert run(Prune, PruneOptions, values)
        pipeline = MobileDiffusionPipeline.from_pretrained(tmp_path / method / "export")
        assert pipeline.nfe() == 1
        assert pipeline("an ostrich", output_type="pt").images.shape == (1, 3, 32, 32)
        sizes[method] = sum(parameter.numel() for parameter in pipeline.unet.parameters())
    assert sizes["structured"] < sizes["unstructured"]
    zeros = load_file(tmp_path / "unstructured/export/unet/diffusion_pytorch_model.safetensors")["conv_in.weight"] == 0
    assert zeros.float().mean().item() == pytest.approx(0.5, abs=0.01)
