"""Feature extractors, registered with torch-fidelity: the bundled judge, and Inception where there are weights."""

import io
import pickle
import socket
import sys
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor
from torch_fidelity.utils import create_feature_extractor, get_featuresdict_from_dataset

from eval.protocol import file_sha256, folder_sha256
from mobilediff.checkpoints import load_component
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.training.augment import to_float

JUDGE = "mobilediff-judge"
INCEPTION = "mobilediff-inception-v3-compat"
JUDGE_FOLDER = Path(__file__).parent / "weights" / "judge"
EXTRACTORS = ("auto", "judge", "inception")
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
            raise ValueError(f"images are {tuple(input.shape)}; accepted is [N, 3, {IMAGE_SIZE}, {IMAGE_SIZE}]")
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


for _name, _class in ((JUDGE, JudgeFeatureExtractor), (INCEPTION, InceptionFeatureExtractor)):
    if _name not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor(_name, _class)


@dataclass(frozen=True)
class Extractor:
    """An extractor that can be used: its name, its weights and what its distance is called.

    Attributes:
        name: as registered with torch-fidelity.
        weights: a folder (judge) or a file (Inception).
        sha256: of the weights.
        layer: the features that its Frechet distance is taken of.
        result_key: the key of that distance in a result.
        resize: what is done to a 32 x 32 image on its way in.
    """

    name: str
    weights: Path
    sha256: str
    layer: str
    result_key: str
    resize: str

    def protocol(self) -> dict:
        """The extractor's part of a protocol."""
        return {"extractor": self.name, "extractor_sha256": self.sha256, "resize": self.resize}

    def label(self, n: int) -> str:
        """What the distance is called in a table; FID is Inception's alone, and FID@n unless n is 50,000."""
        if self.name == JUDGE:
            return f"Frechet distance ({JUDGE}, n = {n})"
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
            raise FileNotFoundError(f"--inception-weights {weights} does not exist")
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


def _download_inception(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = target.stem.rsplit("-", 1)[1]  # the file name ends in the first digits of its SHA-256
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        torch.hub.download_url_to_file(URL_INCEPTION_V3, str(target), hash_prefix=prefix)
    except (RuntimeError, HTTPException) as error:  # the hash is not the file's, as behind a proxy; or half an answer
        raise OSError(f"the download of {URL_INCEPTION_V3} failed: {error}") from error
    finally:
        socket.setdefaulttimeout(timeout)


def choose_extractor(kind: str, inception_weights: str | Path | None = None) -> Extractor:
    """The extractor for `kind`: "judge", "inception", or "auto": Inception where its weights can be had.

    When "auto" takes the bundled extractor, one line on stderr says so.

    Raises:
        ValueError: an unknown kind.
        FileNotFoundError: "inception" without weights, or weights named that do not exist.
    """
    if kind not in EXTRACTORS:
        raise ValueError(f"extractor is {kind!r}; accepted are {', '.join(EXTRACTORS)}")
    if kind == "judge":
        return judge_extractor()
    try:
        return inception_extractor(inception_weights)
    except OSError as error:
        if kind == "inception" or inception_weights:
            raise FileNotFoundError(
                f"no Inception weights: {error}. They come from {URL_INCEPTION_V3}; "
                "--inception-weights FILE takes the file, --extractor judge does without"
            ) from error
        say_judge_is_used("Inception's weights cannot be had here")
        return judge_extractor()


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
    settings = {"feature_extractor_weights_path": str(extractor.weights), "verbose": False}
    module = create_feature_extractor(extractor.name, list(names), cuda=cuda, **settings)
    dataset = _InMemory(images)
    # save_cpu_ram: no worker processes, as the images are in memory already
    return get_featuresdict_from_dataset(dataset, module, batch_size, cuda, save_cpu_ram=True, verbose=progress)
