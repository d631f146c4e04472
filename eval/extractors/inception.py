"""Extract features by torch-fidelity's Inception, its weights read as tensors alone."""

import io
import socket
from http.client import HTTPException
from pathlib import Path

import torch
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from eval.extractors.base import Extractor, registered
from eval.extractors.state_dict import read_state_dict
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
        file = feature_extractor_weights_path or inception_cache()
        state_dict = load_inception_weights(file)
        buffer = io.BytesIO()
        torch.save(state_dict, buffer)
        buffer.seek(0)
        try:
            super().__init__(name, features_list, feature_extractor_weights_path=buffer, **kwargs)
        except RuntimeError as error:  # tensors of other names or shapes
            raise ValueError(f"{file} holds no weights of this Inception: {str(error)[:200]}") from error


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
    """Read Inception's weights from `file`; returns and errors as in `read_state_dict`."""
    file = Path(file)
    advice = "" if file != inception_cache() else "; delete it to have it downloaded again"
    return read_state_dict(file, "Inception", advice)


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
