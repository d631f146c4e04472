"""Stand-ins for the evaluation's tests: a pipeline without networks, random images, and a tiny judge."""

from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from eval.protocol import tensor_sha256
from eval.samples.images import ImageSet
from eval.samples.settings import CheckpointSettings
from mobilediff.captions import CLASS_NAMES
from mobilediff.models.image_encoder import ImageEncoder

FEATURES = 8
NUM_NOUNS = 396


class NoisePipeline:
    """Draws coarse noise from each image's generator, brighter for later classes; knows how to be interrupted."""

    device = torch.device("cpu")
    config = SimpleNamespace(class_template="a photo of a {}")
    components = {}

    def __init__(self, fail_after: int | None = None):
        self.fail_after = fail_after
        self.batches = []

    def __call__(self, prompt, num_inference_steps, guidance_scale, guidance_interval, generator, output_type):
        if self.fail_after is not None and len(self.batches) >= self.fail_after:
            raise KeyboardInterrupt
        self.batches.append(len(prompt))
        generators = generator if isinstance(generator, list) else [generator]
        noise = np.stack([torch.rand(32, 32, 3, generator=one).numpy() for one in generators])
        level = np.array([CLASS_NAMES.index(text.rsplit(" ", 1)[1]) / 10 for text in prompt], dtype=np.float32)
        return SimpleNamespace(images=(noise + level[:, None, None, None]) / 2)


def noise_settings(**changes) -> CheckpointSettings:
    settings = dict(model="noise", model_sha256="0" * 64, seed=0, prompts="class", template="a photo of a {}")
    settings |= dict(
        num_inference_steps=1,
        scheduler="NoScheduler",
        guidance_scale=1.0,
        guidance_interval=[0.0, 1.0],
        nfe=1,
        dtype="fp32",
        compiled=False,
        versions={"torch": "0"},
    )
    return CheckpointSettings(**(settings | changes))


def random_images(n: int, seed: int = 0, labels: bool = True) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8)
    protocol = {"images": f"random {seed}", "images_sha256": tensor_sha256(images), "n": n}
    return ImageSet(images, torch.arange(n) % 10 if labels else None, protocol=protocol)


def write_png_folder(folder, images: torch.Tensor):
    folder.mkdir()
    for index, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        Image.fromarray(np.ascontiguousarray(image)).save(folder / f"{index:06d}.png")
    return folder


def tiny_judge(seed: int = 0) -> ImageEncoder:
    torch.manual_seed(seed)
    encoder = ImageEncoder(stem_channels=4, block_out_channels=(6, FEATURES), num_nouns=NUM_NOUNS).eval()
    for parameter in encoder.levels.parameters():  # untrained convolutions would shrink every feature to about 0.001
        parameter.data *= 3
    return encoder
