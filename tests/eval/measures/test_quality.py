"""What the figures of features do when images are damaged in known ways; on a tiny judge, and on the bundled one."""

import pytest
import torch

from eval.extractors.base import extract_features
from eval.extractors.features import FeatureSet
from eval.extractors.statistics import compute_reference, save_reference
from eval.measures.quality import TrainingFeatures, measure_quality
from eval.metrics.frechet import feature_statistics
from eval.samples.images import ImageSet
from tests.eval.stand_ins import random_images


@pytest.fixture
def reference(judge, tmp_path):
    """Statistics with features of 200 images that no test measures."""
    images = random_images(200, 1)
    file = tmp_path / "reference.safetensors"
    hashed = ImageSet(images.images, images.class_labels, protocol={"images_sha256": "1"})
    save_reference(compute_reference(judge, hashed), file)
    return str(file)


def test_all_figures_of_samples_with_labels(judge, reference):
    result = measure_quality(FeatureSet(random_images(100, 5)), judge, reference)
    assert result["n"] == 100 and result["subset_size"] == 100 and result["neighbours"] == 3
    darker = measure_quality(FeatureSet(ImageSet(random_images(100, 5).images // 2)), judge, reference)
    assert darker["kernel_distance_mean"] > 10 * abs(result["kernel_distance_mean"])  # the one of one distribution
    assert 1 <= result["classifier_score_mean"] <= 10 and result["seed_distance"] > 0
    assert 0.5 < result["precision"] <= 1 and 0.5 < result["recall"] <= 1
    assert "copies" not in result and not any("inception" in key for key in result)
    for key in ("gaussian_kernel_distance", "sliced_wasserstein", "frechet_distance_infinity"):
        assert darker[key] > 3 * abs(result[key])
    assert result["directions"] == 1000
    assert result["protocol"]["reference_sha256"] == "1" and result["protocol"]["reference_n"] == 100


def test_images_without_labels_have_no_distance_between_seeds(judge, reference):
    assert "seed_distance" not in measure_quality(FeatureSet(random_images(50, 5, labels=False)), judge, reference)


def test_one_image_over_and_over_keeps_its_precision_and_loses_recall_and_diversity(judge, reference):
    images = random_images(100, 5)
    same = ImageSet(images.images[:1].expand(100, -1, -1, -1), images.class_labels)
    varied, collapsed = (measure_quality(FeatureSet(one), judge, reference) for one in (images, same))
    assert collapsed["recall"] < 0.1 < varied["recall"]
    assert collapsed["coverage"] < varied["coverage"]
    assert collapsed["seed_distance"] == pytest.approx(0, abs=1e-6) and varied["seed_distance"] > 0.01
    assert collapsed["kernel_distance_mean"] > varied["kernel_distance_mean"]


def test_planted_copies_are_counted(judge, reference, monkeypatch):
    splits = {"train": random_images(150, 7), "test": random_images(120, 8)}
    monkeypatch.setattr("eval.measures.quality.real_images", lambda data, split: splits[split])
    training = TrainingFeatures(judge, None)
    images = random_images(100, 5)
    images.images[:25] = splits["train"].images[50:75]
    copies = measure_quality(FeatureSet(images), judge, reference, training=training)["copies"]
    assert copies["n_training"] == 150 and copies["n"] == 100
    assert copies["copy_fraction"] == pytest.approx(0.25, abs=0.03)
    clean = measure_quality(FeatureSet(random_images(100, 6)), judge, reference, training=training)["copies"]
    assert clean["copy_fraction"] <= 0.05
    for found, tested in ((copies, -1), (clean, 0)):
        assert found["authentic_fraction"] == pytest.approx(found["authentic_fraction_test"] + tested / 4, abs=0.15)
        assert found["c_t"] is None and found["c_t_cells"] == 0, "100 samples are too few for ten cells"


def test_planted_copies_move_the_rank_statistic(judge, reference, monkeypatch):
    splits = {"train": random_images(300, 7), "test": random_images(600, 8)}
    monkeypatch.setattr("eval.measures.quality.real_images", lambda data, split: splits[split])
    training, images = TrainingFeatures(judge, None), random_images(600, 5)
    clean = measure_quality(FeatureSet(images), judge, reference, training=training)["copies"]
    planted = images.images.clone()
    planted[::2] = splits["train"].images
    copied = measure_quality(FeatureSet(ImageSet(planted)), judge, reference, training=training)["copies"]
    assert clean["c_t_cells"] > 5 and abs(clean["c_t"]) < 1.5 and copied["c_t"] < -3


def test_a_reference_without_features_is_refused(judge, tmp_path):
    features = extract_features(judge, random_images(50, 1).images, (judge.layer,))[judge.layer]
    file = tmp_path / "no-features.safetensors"
    save_reference(feature_statistics(features, images_sha256="1", n="50", **judge.protocol()), file)
    with pytest.raises(ValueError, match="hold no features"):
        measure_quality(FeatureSet(random_images(50, 5)), judge, str(file))


def test_figures_do_not_depend_on_the_order_of_the_images(judge, reference):
    images = random_images(60, 5, labels=False)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    first = measure_quality(FeatureSet(images), judge, reference)
    second = measure_quality(FeatureSet(ImageSet(images.images[order])), judge, reference)
    for key in ("precision", "recall", "density", "coverage"):
        assert second[key] == pytest.approx(first[key], abs=1e-9)
    newer = ("gaussian_kernel_distance", "sliced_wasserstein", "frechet_distance_infinity")
    for key in ("kernel_distance_mean", "classifier_score_mean", *newer):
        assert second[key] == pytest.approx(first[key], rel=1e-5)


def test_too_few_images_for_a_line_have_no_distance_of_infinitely_many(judge, reference):
    assert "frechet_distance_infinity" not in measure_quality(FeatureSet(random_images(12, 5)), judge, reference)
