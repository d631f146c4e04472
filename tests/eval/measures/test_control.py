"""Agreement, accuracy and distance of controlled samples."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from eval.benchmark.control import control_times
from eval.cli.show import checked_result
from eval.control import main
from eval.measures.control import Conditions, measure_control
from tests.eval.stand_ins import noise_settings, random_images
from tests.tiny import tiny_checkpoint, tiny_control, tiny_vae


class ObedientPipeline:
    """Draws noise, or the given colours enlarged."""

    device = torch.device("cpu")

    def __call__(self, prompt, image=None, color_map=None, controlnet_conditioning_scale=1.0, generator=None, **_):
        count = 1 if isinstance(prompt, str) else len(prompt)
        images = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(5))
        if color_map is not None and controlnet_conditioning_scale:
            images = F.interpolate(color_map, 32)
        return SimpleNamespace(images=images.permute(0, 2, 3, 1).numpy())


def test_obeyed_colors_have_no_error_and_chance_is_worse(judge):
    real, settings = random_images(30), noise_settings()
    result = measure_control(ObedientPipeline(), settings, real, tiny_vae(), judge, 7, torch.device("cpu"))
    for way in ("colors", "edges and colors"):
        assert result[way]["color_error"] < 1  # rounding alone
    for way in ("uncontrolled", "edges"):
        assert result[way]["color_error"] > 5
    assert result["uncontrolled"] == result["edges"]  # this pipeline's noise is the same
    assert result["n"] == 30 and result["samples"] == real.protocol
    assert 0 < result["ceiling"]["edge_f1"] < 1


def test_images_agree_with_their_own_conditions():
    images = random_images(4).images
    assert Conditions.of(images).agreement(images) == {"edge_f1": 1.0, "color_error": 0.0}


def test_a_control_checkpoint_is_measured_whole(judge):
    pipeline, real = tiny_control(), random_images(20)
    result = measure_control(pipeline, noise_settings(), real, tiny_vae(), judge, 20, torch.device("cpu"))
    checked_result("eval.control", result | {"milliseconds": control_times(pipeline)})
    hashes = {result[way]["samples"]["images_sha256"] for way in ("uncontrolled", "edges", "colors")}
    assert len(hashes) == 3


def test_too_few_images_are_refused_before_a_checkpoint_is_loaded(judge, tmp_path):
    missing = str(tmp_path / "missing")
    with pytest.raises(ValueError, match="5 images are too few: the covariance of .* features needs at least"):
        main(["--model", missing, "--vae", missing, "--n", "5"])


def test_a_checkpoint_without_a_control_network_is_refused(judge, tmp_path):
    folder = tiny_checkpoint(tmp_path / "plain", "student-1step")
    with pytest.raises(ValueError, match="plain is a MobileDiffusionPipeline; accepted"):
        main(["--model", str(folder), "--vae", str(folder / "vae")])
