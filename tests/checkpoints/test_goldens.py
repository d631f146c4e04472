"""The shipped checkpoints draw what they drew when the examples were made: a wrong weight file is seen here.

After a change that is meant, `python app.py --precompute` draws the examples anew.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from eval.protocol import folder_sha256
from mobilediff.checkpoints import load_pipeline, text_to_image_names

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SHIPPED = [ROOT / "checkpoints" / name for name in text_to_image_names(ROOT / "checkpoints")]
PROMPT, SEED = "a tabby", 0
SAME = 40  # dB; rounding on another machine leaves more
# Noise on the weights of a component, in standard deviations of each of its tensors.
DAMAGE = {"unet": 0.1, "vae": 0.1, "text_encoder": 1.0}


@pytest.fixture(scope="module", params=SHIPPED, ids=lambda folder: folder.name)
def pipeline(request) -> DiffusionPipeline:
    pipeline = load_pipeline(request.param)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.folder = request.param
    return pipeline


def examples() -> list[dict]:
    return json.loads((ROOT / "examples" / "examples.json").read_text())["examples"]


def golden_of(checkpoint: str) -> Image.Image:
    """The first picture of the example of `PROMPT`, whose seed is `SEED`."""
    (example,) = [example for example in examples() if (example["prompt"], example["seed"]) == (PROMPT, SEED)]
    (record,) = [record for record in example["records"] if record["name"] == checkpoint]
    return Image.open(ROOT / "examples" / record["images"][0])


def psnr(pipeline: DiffusionPipeline) -> float:
    """How near to its example a pipeline draws, in dB of 8-bit pixels; infinite if it is equal."""
    golden = golden_of(pipeline.folder.name)
    image = pipeline(PROMPT, generator=torch.Generator().manual_seed(SEED)).images[0]
    with np.errstate(divide="ignore"):
        error = np.mean((np.asarray(image, dtype=np.float64) - np.asarray(golden, dtype=np.float64)) ** 2)
        return float(10 * np.log10(255**2 / error))


def test_a_checkpoint_draws_its_example(pipeline):
    assert psnr(pipeline) > SAME


@pytest.mark.parametrize("component", DAMAGE)
def test_damaged_weights_draw_something_else(pipeline, component):
    network = getattr(pipeline, component)
    whole = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.numel() > 1:
                weight.add_(DAMAGE[component] * weight.std() * torch.randn(weight.shape, generator=generator))
    pipeline._encode_one.cache_clear()
    try:
        assert psnr(pipeline) < SAME
    finally:
        network.load_state_dict(whole)
        pipeline._encode_one.cache_clear()


def test_the_examples_are_of_the_checkpoints_in_the_tree():
    for example in examples():
        recorded = {record["name"]: record["model_sha256"] for record in example["records"]}
        assert recorded == {folder.name: folder_sha256(folder) for folder in SHIPPED}
