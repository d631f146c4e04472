"""Stand-ins for the evaluation's tests: a pipeline without networks, a tiny judge, and reference statistics of it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import eval.extractors
import eval.reference
from eval.images import ImageSet
from eval.sampling import SamplingSettings
from mobilediff.captions import CLASS_NAMES
from mobilediff.models.image_encoder import ImageEncoder

FEATURES = 8
NUM_NOUNS = 396


class NoisePipeline:
    """Draws coarse noise from each image's generator, brighter for later classes; knows how to be interrupted."""

    device = torch.device("cpu")
    config = SimpleNamespace(class_template="a photo of a {}")

    def __init__(self, fail_after: int | None = None):
        self.fail_after = fail_after
        self.batches = []

    def __call__(self, prompt, num_inference_steps, guidance_scale, generator, output_type):
        if self.fail_after is not None and len(self.batches) >= self.fail_after:
            raise KeyboardInterrupt
        self.batches.append(len(prompt))
        noise = torch.stack([torch.rand(3, 32, 32, generator=one) for one in generator])
        level = torch.tensor([CLASS_NAMES.index(text.rsplit(" ", 1)[1]) / 10 for text in prompt])
        return SimpleNamespace(images=(noise + level[:, None, None, None]) / 2)


def noise_settings(**changes) -> SamplingSettings:
    settings = dict(model="noise", model_sha256="0" * 64, seed=0, prompts="class", template="a photo of a {}")
    settings |= dict(num_inference_steps=1, guidance_scale=1.0, nfe=1, dtype="fp32", versions={"torch": "0"})
    return SamplingSettings(**(settings | changes))


def random_images(n: int, seed: int = 0, labels: bool = True) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return ImageSet(images, torch.arange(n) % 10 if labels else None, protocol={"images": f"random {seed}"})


def write_png_folder(folder, images: torch.Tensor):
    folder.mkdir()
    for index, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        Image.fromarray(np.ascontiguousarray(image)).save(folder / f"{index:06d}.png")
    return folder


def tiny_judge() -> ImageEncoder:
    torch.manual_seed(0)
    encoder = ImageEncoder(stem_channels=4, block_out_channels=(6, FEATURES), num_nouns=NUM_NOUNS).eval()
    for parameter in encoder.levels.parameters():  # untrained convolutions would shrink every feature to about 0.001
        parameter.data *= 3
    return encoder


@pytest.fixture
def judge(tmp_path, monkeypatch):
    """A tiny judge in the place of the bundled one, with reference statistics of random images."""
    folder, reference = tmp_path / "judge", tmp_path / "reference"
    tiny_judge().save_pretrained(folder)
    monkeypatch.setattr(eval.extractors, "JUDGE_FOLDER", folder)
    monkeypatch.setattr(eval.reference, "SHIPPED", reference)
    monkeypatch.setattr(eval.reference, "CACHE", tmp_path / "cache")
    extractor = eval.extractors.judge_extractor()
    for split, seed in (("train", 1), ("test", 2)):
        features = eval.extractors.extract_features(extractor, random_images(200, seed).images, ("features",))
        metadata = {"split": split, "images_sha256": "0", "n": "200", "extractor": extractor.name}
        metadata |= {"extractor_sha256": extractor.sha256, "resize": extractor.resize}
        statistics = eval.reference.feature_statistics(features["features"], **metadata)
        eval.reference.save_reference(statistics, reference / f"{split}.safetensors")
    return extractor
