"""References beside CIFAR-10's splits: images, caches and files of statistics, each tied to what made it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import eval.extractors.statistics
import eval.reference
from eval.extractors.base import Extractor, extract_features
from eval.extractors.features import FeatureSet
from eval.extractors.statistics import (
    compute_reference,
    load_reference,
    reference_file,
    reference_statistics,
    save_reference,
)
from eval.fid import main as fid
from eval.measures.frechet import measure_frechet_distance
from eval.metrics.frechet import feature_statistics, frechet_distance
from eval.protocol import tensor_sha256
from eval.reference import main as reference
from eval.samples.images import ImageSet
from mobilediff.captions import load_nouns
from mobilediff.files import read_json
from tests.eval.stand_ins import FEATURES, random_images, write_png_folder


@pytest.fixture
def folder(tmp_path):
    return write_png_folder(tmp_path / "real", random_images(40, 8).images // 2)


def npz(file, images: torch.Tensor):
    np.savez(file, images=images.permute(0, 2, 3, 1).numpy())
    return file


def test_statistics_keep_the_first_features_and_fit_all(judge, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(eval.extractors.statistics, "MAX_FEATURES", 30)
    file = tmp_path / "kept.safetensors"
    reference(["--images", str(folder), "--extractor", "judge", "--output", str(file)])
    statistics = load_reference(file, judge)
    features = extract_features(judge, random_images(40, 8).images // 2, ("features",))["features"]
    fitted = feature_statistics(features)
    assert (statistics.mu == fitted.mu).all() and (statistics.sigma == fitted.sigma).all() and statistics.n == 40
    assert statistics.features.dtype == np.float16 and statistics.features.shape == (30, FEATURES)
    kept = statistics.kept_features()
    assert kept.dtype == torch.float32
    torch.testing.assert_close(kept, features[:30].float(), rtol=1e-3, atol=1e-4)


def test_statistics_without_features_serve_the_distance_and_nothing_else(judge, tmp_path):
    whole, file = load_reference(reference_file(judge, "train"), judge), tmp_path / "bare.safetensors"
    save_reference(replace(whole, features=None), file)
    statistics = load_reference(file, judge)
    assert statistics.features is None and frechet_distance(statistics, whole) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="hold no features.*python -m eval.reference"):
        statistics.kept_features()


def test_features_that_float16_cannot_hold_are_refused(judge, monkeypatch):
    huge = {"features": torch.randn(20, FEATURES).double() * 1e5}
    monkeypatch.setattr(eval.extractors.statistics, "extract_features", lambda *args, **kwargs: huge)
    images = replace(random_images(20), protocol={"images_sha256": "0"})
    with pytest.raises(ValueError, match="beyond the range of float16"):
        compute_reference(judge, images)


def test_folder_npz_and_statistics_of_the_same_images_are_one_reference(judge, folder, tmp_path):
    images = random_images(20, 9)
    statistics = tmp_path / "real.safetensors"
    reference(["--images", str(folder), "--output", str(statistics)])
    archive = npz(tmp_path / "real.npz", random_images(40, 8).images // 2)
    results = [
        measure_frechet_distance(FeatureSet(images), judge, str(path)) for path in (folder, archive, statistics)
    ]
    features = extract_features(judge, images.images, ("features",))["features"]
    direct = frechet_distance(feature_statistics(features), load_reference(statistics, judge))
    assert direct > 0.01 and [result["frechet_distance_judge"] for result in results] == [pytest.approx(direct)] * 3
    assert [result["protocol"]["reference"] for result in results] == ["real", "real.npz", "real.safetensors"]
    hashes = {result["protocol"]["reference_sha256"] for result in results}
    assert hashes == {tensor_sha256(random_images(40, 8).images // 2)}
    assert all(result["protocol"]["reference_n"] == 40 and "floor" not in result for result in results)


def test_images_are_cached_by_the_hash_of_their_pixels_and_of_the_extractor(judge, folder, monkeypatch):
    first = reference_statistics(judge, str(folder))
    (cached,) = eval.extractors.statistics.CACHE.iterdir()
    assert judge.sha256[:12] in cached.name and first.metadata["images_sha256"][:12] in cached.name
    with monkeypatch.context() as patch:
        patch.setattr(eval.extractors.statistics, "compute_reference", lambda *args: pytest.fail("computed again"))
        assert (reference_statistics(judge, str(folder)).mu == first.mu).all()
    (folder / "000000.png").unlink()
    assert (
        reference_statistics(judge, str(folder)).n == 39 and len(list(eval.extractors.statistics.CACHE.iterdir())) == 2
    )
    save_reference(replace(first, metadata=first.metadata | {"images_sha256": "0" * 64}), cached)
    write_png_folder(folder.with_name("again"), random_images(40, 8).images // 2)
    with pytest.raises(ValueError, match="is of other images than .*again"):
        reference_statistics(judge, str(folder.with_name("again")))


def test_statistics_of_another_extractor_or_of_nothing_are_refused(judge, folder, tmp_path):
    file = tmp_path / "real.safetensors"
    reference(["--images", str(folder), "--output", str(file)])
    other = Extractor("other", judge.weights, judge.sha256, judge.layer, "", judge.resize)
    with pytest.raises(ValueError, match="extractor is 'mobilediff-judge' there, 'other' here.*name its extractor"):
        load_reference(file, other)
    optional = replace(judge, options={"clip_model": "ViT-B-32:openai"})
    with pytest.raises(ValueError, match="clip_model is None there, 'ViT-B-32:openai' here"):
        load_reference(file, optional)
    weights = judge.weights / "diffusion_pytorch_model.safetensors"
    with pytest.raises(ValueError, match="holds no statistics of python -m eval.reference"):
        load_reference(weights, judge)
    save_file({"mu": torch.zeros(3), "sigma_upper": torch.zeros(5)}, file, metadata={"n": "9", "images_sha256": "0"})
    with pytest.raises(ValueError, match="is corrupt: it holds 5 covariances of 3 features"):
        load_reference(file, judge)


def test_a_reference_that_is_nowhere_is_refused_before_samples_are_drawn(judge, tmp_path):
    images = str(write_png_folder(tmp_path / "images", random_images(20).images))
    with pytest.raises(FileNotFoundError, match="there is no validation: accepted are train, test, a folder"):
        fid(["--images", images, "--extractor", "judge", "--reference", "validation"])
    with pytest.raises(FileNotFoundError, match="none.safetensors does not exist: python -m eval.reference"):
        fid(["--images", images, "--extractor", "judge", "--reference", str(tmp_path / "none.safetensors")])


def test_the_command_prints_no_floor_for_another_reference(judge, folder, tmp_path, capsys):
    images = str(write_png_folder(tmp_path / "images", random_images(20).images))
    fid(["--images", images, "--extractor", "judge", "--reference", str(folder)])
    printed = capsys.readouterr().out
    assert "Frechet distance (mobilediff-judge, n = 20) to real:" in printed and "floor" not in printed


def test_references_of_another_size_are_made_once_resized(judge, tmp_path):
    small = torch.randint(0, 256, (12, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    folder, file = write_png_folder(tmp_path / "small", small), tmp_path / "small.safetensors"
    with pytest.raises(ValueError, match="--resize 32"):
        reference(["--images", str(folder), "--output", str(file)])
    reference(["--images", str(folder), "--output", str(file), "--resize", "32"])
    assert load_reference(file, judge).n == 12


def test_the_command_without_images_makes_what_is_shipped(judge, monkeypatch, tmp_path):
    sets = {"train": random_images(30, 1), "test": random_images(20, 2)}
    nouns = {"train": torch.tensor([-1, 2, 2] * 10), "test": torch.tensor([-1, 7] * 10)}
    sets = {
        split: ImageSet(one.images, noun_ids=nouns[split], protocol={"images_sha256": split})
        for split, one in sets.items()
    }
    monkeypatch.setattr(eval.reference, "SHIPPED_NOUN_COUNTS", tmp_path / "noun_counts.json")
    monkeypatch.setattr(eval.reference, "SHIPPED_TRAINING_NOUN_COUNTS", tmp_path / "training_noun_counts.json")
    monkeypatch.setattr(eval.reference, "real_images", lambda data, split: sets[split])
    monkeypatch.setattr(eval.reference, "write_real_clip_score", lambda data: None)
    reference(["--data", "stand-in"])
    for split, n in (("train", 30), ("test", 20)):
        statistics = load_reference(reference_file(judge, split), judge)
        assert statistics.n == n == len(statistics.kept_features())
        assert statistics.metadata["images_sha256"] == split
    assert read_json(tmp_path / "noun_counts.json") == {list(load_nouns())[7]: 10}
    assert read_json(tmp_path / "training_noun_counts.json") == {list(load_nouns())[2]: 20}
    sets["test"] = replace(sets["train"], noun_ids=None)
    with pytest.raises(ValueError, match="no image has a noun"):
        reference(["--data", "stand-in"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "train"], "go together"),
        (["--output", "a.safetensors"], "go together"),
        (["--extractor", "inception"], "--extractor with them"),
        (["--images", "train", "--output", "a.npz"], "ends in .safetensors"),
    ],
)
def test_options_that_do_not_go_together_are_refused(judge, options, message):
    with pytest.raises(ValueError, match=message):
        reference(options)


def test_a_file_that_holds_no_statistics_is_kept_and_statistics_are_replaced(judge, folder, tmp_path):
    file = tmp_path / "weights.safetensors"
    options = ["--images", str(folder), "--output", str(file)]
    save_file({"weight": torch.ones(3)}, file)
    before = file.read_bytes()
    with pytest.raises(ValueError, match="--output is kept, .*weights.safetensors holds no statistics"):
        reference(options)
    assert file.read_bytes() == before
    file.unlink()
    reference(options)
    reference([*options, "--resize", "32"])
    assert load_reference(file, judge).n == 40


def test_the_result_is_json(judge, folder, tmp_path):
    images = str(write_png_folder(tmp_path / "images", random_images(20).images))
    result = tmp_path / "result.json"
    fid(["--images", images, "--extractor", "judge", "--reference", str(folder), "--json", str(result)])
    protocol = json.loads(result.read_text())["protocol"]
    assert {"extractor", "extractor_sha256", "resize", "image_size", "reference", "reference_sha256"} <= set(protocol)
