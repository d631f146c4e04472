"""Feature extractors, registered with torch-fidelity: the bundled judge; Inception, DINOv2 and CLIP where there are
weights."""

import argparse
import io
import pickle
import socket
import sys
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor
from torch_fidelity.utils import create_feature_extractor, get_featuresdict_from_dataset

from eval.dinov2 import DINOV2, DINOV2_RESIZE, WEIGHTS_FILE, Dinov2FeatureExtractor, dinov2_folder
from eval.open_clip_models import EXAMPLE, OPEN_CLIP, OPEN_CLIP_RESIZE, OpenClipFeatureExtractor, load_open_clip
from eval.protocol import file_sha256, folder_sha256, state_dict_sha256
from mobilediff.checkpoints import load_component
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.training.augment import to_float

JUDGE = "mobilediff-judge"
INCEPTION = "mobilediff-inception-v3-compat"
# The published file's name ends in the first digits of its SHA-256.
INCEPTION_SHA256 = URL_INCEPTION_V3.removesuffix(".pth").rsplit("-", 1)[1]
JUDGE_FOLDER = Path(__file__).parent / "weights" / "judge"
EXTRACTORS = ("auto", "judge", "inception", "dinov2", "clip")
IMAGE_SIZE = 32
RESIZE = "none, native 32x32"
DOWNLOAD_TIMEOUT = 15  # seconds


class JudgeFeatureExtractor(FeatureExtractorBase):
    """The bundled classifier as an extractor of torch-fidelity: images [N, 3, 32, 32] uint8, no resizing.

    Provides `features` (float64, so that torch-fidelity's own statistics are float64), `class_logits` and
    `noun_logits`. A constructor argument of torch-fidelity names the folder of other weights:
    `feature_extractor_weights_path`.
    """

    def __init__(self, name, features_list, feature_extractor_weights_path=None, **kwargs):
        super().__init__(name, features_list)
        self.encoder = load_judge(feature_extractor_weights_path or JUDGE_FOLDER)

    @staticmethod
    def get_provided_features_list():
        return "features", "class_logits", "noun_logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return {"isc": "class_logits", "fid": "features", "kid": "features", "prc": "features"}[metric]

    @staticmethod
    def can_be_compiled():
        return True

    @staticmethod
    def get_dummy_input_for_compile():
        return torch.zeros(4, 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)

    def forward(self, input):
        """uint8 [N, 3, 32, 32] -> the requested features, each [N, C]."""
        if not torch.is_tensor(input) or input.dtype != torch.uint8:
            raise ValueError(f"images are {getattr(input, 'dtype', type(input))}; accepted is a uint8 tensor")
        if input.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(
                f"images are {tuple(input.shape)}; accepted is [N, 3, {IMAGE_SIZE}, {IMAGE_SIZE}]: "
                f"--resize {IMAGE_SIZE} brings them there"
            )
        output = self.encoder(to_float(input))
        features = {"features": output.features.double()}
        features |= {"class_logits": output.class_logits, "noun_logits": output.noun_logits}
        return tuple(features[name] for name in self.features_list)


class InceptionFeatureExtractor(FeatureExtractorInceptionV3):
    """torch-fidelity's Inception with weights that were read without unpickling code.

    torch-fidelity loads its weights with `weights_only=False`, and so does `load_state_dict_from_url`. Here they are
    read by `load_inception_weights`, and the base class is given a buffer that holds those tensors alone.
    """

    def __init__(self, name, features_list, feature_extractor_weights_path=None, **kwargs):
        state_dict = load_inception_weights(feature_extractor_weights_path or inception_cache())
        buffer = io.BytesIO()
        torch.save(state_dict, buffer)
        buffer.seek(0)
        super().__init__(name, features_list, feature_extractor_weights_path=buffer, **kwargs)


for _name, _class in (
    (JUDGE, JudgeFeatureExtractor),
    (INCEPTION, InceptionFeatureExtractor),
    (DINOV2, Dinov2FeatureExtractor),
    (OPEN_CLIP, OpenClipFeatureExtractor),
):
    if _name not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor(_name, _class)


@dataclass(frozen=True)
class Extractor:
    """An extractor that can be used: its name, its weights and what its distance is called.

    Attributes:
        name: as registered with torch-fidelity.
        weights: a folder (judge, DINOv2), a file (Inception, CLIP), or None for a CLIP that open_clip finds.
        sha256: of the weights.
        layer: the features that its Frechet distance is taken of.
        result_key: the key of that distance in a result.
        resize: what is done to an image on its way in.
        options: what else the registered class is given.
    """

    name: str
    weights: Path | None
    sha256: str
    layer: str
    result_key: str
    resize: str
    options: dict[str, str] = field(default_factory=dict)

    def protocol(self) -> dict[str, str]:
        """The extractor's part of a protocol."""
        return {"extractor": self.name, "extractor_sha256": self.sha256, "resize": self.resize} | self.options

    def label(self, n: int) -> str:
        """What the distance is called: FID under Inception's published weights alone, FID@n unless n is 50,000."""
        if self.name != INCEPTION:
            return f"Frechet distance ({self.name}, n = {n})"
        if not self.sha256.startswith(INCEPTION_SHA256):  # a file of the user's own, in these shapes
            return f"Frechet distance ({self.name}, weights {self.sha256[:12]}, n = {n})"
        if n == 50000:
            return "FID"
        return f"FID@{n // 1000}k" if n % 1000 == 0 else f"FID@{n}"


class _InMemory(Dataset):
    def __init__(self, images: torch.Tensor):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def load_judge(folder: str | Path) -> ImageEncoder:
    """The judge in evaluation mode.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the weights are corrupt or not all there, or lack the class or the noun head.
    """
    encoder = load_component(ImageEncoder, folder)
    if encoder.class_head is None or encoder.noun_head is None:
        raise ValueError(f"{folder} is no judge: it lacks the class head or the noun head")
    return encoder.requires_grad_(False)


def judge_extractor() -> Extractor:
    """The bundled extractor.

    Raises:
        FileNotFoundError: its weights are not there.
    """
    folder = JUDGE_FOLDER
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} holds no judge: expected what ImageEncoder.save_pretrained writes")
    return Extractor(JUDGE, folder, folder_sha256(folder), "features", "frechet_distance_judge", RESIZE)


def inception_extractor(weights: str | Path | None = None) -> Extractor:
    """Inception with weights from `weights`, torch-fidelity's cache or its download.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: there is no file in the cache and the download failed or brought another file.
    """
    weights = Path(weights) if weights else inception_cache()
    if not weights.is_file():
        if weights != inception_cache():
            raise FileNotFoundError(f"--extractor-weights {weights} is no file")
        _download_inception(weights)
    resize = "bilinear to 299x299, as TensorFlow 1"
    return Extractor(INCEPTION, weights, file_sha256(weights), "2048", "frechet_inception_distance", resize)


def inception_cache() -> Path:
    """Where torch-fidelity keeps its Inception weights."""
    return Path(torch.hub.get_dir()) / "checkpoints" / URL_INCEPTION_V3.rsplit("/", 1)[1]


def load_inception_weights(file: str | Path) -> dict[str, torch.Tensor]:
    """Read a state dict from safetensors, or from a .pth file restricted to tensors.

    Raises:
        ValueError: the file is corrupt or holds anything but tensors.
    """
    file = Path(file)
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{file} is no whole file of Inception weights (tensors alone are read): {error}") from error


def dinov2_extractor(weights: str | Path | None = None) -> Extractor:
    """DINOv2; arguments and errors as in `dinov2_folder`. The hash is of the file, as the hub states it."""
    folder = dinov2_folder(weights)
    sha256 = file_sha256(folder / WEIGHTS_FILE)
    return Extractor(DINOV2, folder, sha256, "class_token", "frechet_distance_dinov2", DINOV2_RESIZE)


def clip_extractor(clip_model: str | None, weights: str | Path | None = None) -> Extractor:
    """The image tower of one of open_clip's models; other arguments and errors as in `load_open_clip`.

    Raises:
        ValueError: no model is named.
    """
    if not clip_model:
        raise ValueError(f"--extractor clip needs --clip-model ARCHITECTURE:TAG, as {EXAMPLE}")
    sha256 = state_dict_sha256(load_open_clip(clip_model, weights)[0])
    weights, options = Path(weights) if weights else None, {"clip_model": clip_model}
    result_key = "frechet_distance_clip"
    return Extractor(OPEN_CLIP, weights, sha256, "image_embeds", result_key, OPEN_CLIP_RESIZE, options)


def _download_inception(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        torch.hub.download_url_to_file(URL_INCEPTION_V3, str(target), hash_prefix=INCEPTION_SHA256)
    except (RuntimeError, HTTPException) as error:  # the hash is not the file's, as behind a proxy; or half an answer
        raise OSError(f"the download of {URL_INCEPTION_V3} failed: {error}") from error
    finally:
        socket.setdefaulttimeout(timeout)


def choose_extractor(kind: str, weights: str | Path | None = None, clip_model: str | None = None) -> Extractor:
    """The extractor for `kind`, one of `EXTRACTORS`; "auto" is Inception where its weights can be had, else the judge.

    When "auto" takes the bundled extractor, one line on stderr says so.

    Args:
        kind: of extractor.
        weights: a file (inception, clip) or a folder (dinov2) instead of the cache or download.
        clip_model: open_clip's architecture:tag.

    Raises:
        ValueError: an unknown kind, an option of another kind, or weights that are corrupt.
        FileNotFoundError: the weights cannot be had, or those named do not exist.
    """
    if kind not in EXTRACTORS:
        raise ValueError(f"extractor is {kind!r}; accepted are {', '.join(EXTRACTORS)}")
    if clip_model and kind != "clip":
        raise ValueError("--clip-model is an option of --extractor clip")
    if kind == "clip":
        return clip_extractor(clip_model, weights)
    if kind == "dinov2":
        return dinov2_extractor(weights)
    if kind == "judge":
        if weights:
            raise ValueError("--extractor judge is bundled: it takes no --extractor-weights")
        return judge_extractor()
    try:
        return inception_extractor(weights)
    except OSError as error:
        if kind == "inception" or weights:
            raise FileNotFoundError(
                f"no Inception weights: {error}. They come from {URL_INCEPTION_V3}; "
                "--extractor-weights FILE takes the file, --extractor judge does without"
            ) from error
        say_judge_is_used("Inception's weights cannot be had here")
        return judge_extractor()


def add_extractor_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that name an extractor, for `choose_extractor`."""
    parser.add_argument("--extractor", choices=EXTRACTORS, default="auto", help="auto: Inception where it can be had")
    parser.add_argument("--extractor-weights", help="a file (inception, clip) or a folder (dinov2) of its weights")
    parser.add_argument("--clip-model", help=f"of --extractor clip: architecture:tag of open_clip, as {EXAMPLE}")


def say_judge_is_used(reason: str) -> None:
    """The one plain line that tells a Frechet distance from FID."""
    line = f"{reason}: the bundled extractor {JUDGE} is used; the number is a Frechet distance and not FID"
    print(line, file=sys.stderr)


def extract_features(
    extractor: Extractor,
    images: torch.Tensor,
    names: tuple[str, ...],
    batch_size: int = 250,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> dict[str, torch.Tensor]:
    """Features of uint8 images [N, 3, H, W] by torch-fidelity's own loop.

    Args:
        names: features that the extractor provides.

    Returns:
        Each name's features, [N, C], on the CPU.

    Raises:
        ValueError: fewer than 2 images, or images that the extractor refuses.
    """
    if len(images) < 2:
        raise ValueError(f"{len(images)} images; at least 2 are needed")
    cuda = torch.device(device).type == "cuda"
    weights = str(extractor.weights) if extractor.weights else None
    settings = {"feature_extractor_weights_path": weights, "verbose": False} | extractor.options
    module = create_feature_extractor(extractor.name, list(names), cuda=cuda, **settings)
    dataset = _InMemory(images)
    # save_cpu_ram: no worker processes, as the images are in memory already
    return get_featuresdict_from_dataset(dataset, module, batch_size, cuda, save_cpu_ram=True, verbose=progress)
