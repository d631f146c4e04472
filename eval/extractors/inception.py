"""Extract features by torch-fidelity's Inception, its weights read as tensors alone."""

import io
import pickle
import socket
from http.client import HTTPException
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from eval.extractors.base import Extractor, registered
from eval.protocol import file_sha256

INCEPTION = "mobilediff-inception-v3-compat"
# The published file's name ends in the first digits of its SHA-256.
INCEPTION_SHA256 = URL_INCEPTION_V3.removesuffix(".pth").rsplit("-", 1)[1]
DOWNLOAD_TIMEOUT = 15  # seconds


@registered(INCEPTION)
class InceptionFeatureExtractor(FeatureExtractorInceptionV3):
    """Run torch-fidelity's Inception with weights that were read without unpickling code.

    torch-fidelity loads its weights with `weights_only=False`, and so does `load_state_dict_from_url`. Here they are
    read by `load_inception_weights`, and the base class is given a buffer that holds those tensors alone.
    """

    def __init__(self, name, features_list, feature_extractor_weights_path=None, **kwargs):
        state_dict = load_inception_weights(feature_extractor_weights_path or inception_cache())
        buffer = io.BytesIO()
        torch.save(state_dict, buffer)
        buffer.seek(0)
        super().__init__(name, features_list, feature_extractor_weights_path=buffer, **kwargs)


def inception_extractor(weights: str | Path | None = None) -> Extractor:
    """Make the Inception extractor with weights from `weights`, torch-fidelity's cache or its download.

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
    sha256, logits = file_sha256(weights), ("logits_unbiased",)
    return Extractor(INCEPTION, weights, sha256, "2048", "frechet_inception_distance", resize, logits=logits)


def inception_cache() -> Path:
    """Return the file of torch-fidelity's Inception weights."""
    return Path(torch.hub.get_dir()) / "checkpoints" / URL_INCEPTION_V3.rsplit("/", 1)[1]


def load_inception_weights(file: str | Path) -> dict[str, torch.Tensor]:
    """Read a state dict, tensors of any shape, from safetensors or a .pth file.

    A .pth file is read restricted to tensors.

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
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        torch.hub.download_url_to_file(URL_INCEPTION_V3, str(target), hash_prefix=INCEPTION_SHA256)
    except (RuntimeError, HTTPException) as error:  # the hash is not the file's, as behind a proxy; or half an answer
        raise OSError(f"the download of {URL_INCEPTION_V3} failed: {error}") from error
    finally:
        socket.setdefaulttimeout(timeout)
