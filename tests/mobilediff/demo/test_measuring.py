"""Figures of uploaded pictures are those of the commands; what cannot be measured is said."""

import threading

import numpy as np
import pytest
import torch
from PIL import Image

from eval.extractors.features import FeatureSet
from eval.extractors.judge import judge_extractor
from eval.measures.frechet import measure_frechet_distance
from eval.metrics.manifold import manifold_metrics
from eval.samples.images import ImageSet
from mobilediff.demo.environment import ROOT
from mobilediff.demo.service import measuring
from mobilediff.demo.service.measuring import COLUMNS, measure_pictures, near_copies, real_figures, reference
from mobilediff.demo.service.turns import Cancelled
from tests.mobilediff.demo.steps import result

CLASSES = {"a-fire-truck": 9, "a-bullfrog": 6, "a-tabby": 3}


def measured(images: torch.Tensor, labels: list[int] | None = None) -> tuple[dict[str, list[str]], str]:
    """Rows by the figure's name, without it, and the notes."""
    labels = [-1] * len(images) if labels is None else labels
    names = [f"picture {index}" for index in range(len(images))]
    figures = result(measure_pictures(images, labels, names, threading.Event()))
    assert all(len(row) == len(COLUMNS) for row in figures.rows)
    return {name: values for name, *values in figures.rows}, " ".join(figures.notes)


@pytest.fixture(scope="module")
def drawn() -> tuple[torch.Tensor, list[int]]:
    """The app's precomputed examples of three prompts at 32 x 32, with the prompts' classes."""
    pictures = [
        (np.asarray(Image.open(file).convert("RGB")), label)
        for folder, label in CLASSES.items()
        for file in sorted((ROOT / "examples" / folder).iterdir())
    ]
    small = [(picture, label) for picture, label in pictures if picture.shape == (32, 32, 3)]
    images = torch.from_numpy(np.stack([picture for picture, _ in small]))
    return images.permute(0, 3, 1, 2).contiguous(), [label for _, label in small]


@pytest.fixture(scope="module")
def many() -> torch.Tensor:
    return torch.randint(0, 256, (300, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_figures_are_those_of_the_commands(many):
    labels = torch.arange(300) % 10
    rows, notes = measured(many, labels.tolist())
    protocol = {"images_sha256": "", "n": 300}
    features = FeatureSet(ImageSet(many, labels, protocol=protocol))
    expected = measure_frechet_distance(features, judge_extractor())
    interval = expected["intervals"]["frechet_distance_judge"]
    value, between, real, reported = rows["Fréchet distance"]
    assert value == f"{expected['frechet_distance_judge']:.2f}" and reported == f"{expected['floor']:.2f}"
    assert between == f"{interval['low']:.2f} to {interval['high']:.2f}"
    assert float(reported) < float(real) < float(value)
    accuracy = expected["intervals"]["class_accuracy"]
    assert rows["Class accuracy"][0] == f"{expected['class_accuracy']:.1%}"
    assert rows["Class accuracy"][1] == f"{accuracy['low']:.1%} to {accuracy['high']:.1%}"
    real = reference("train").kept_features()[:300]
    manifold = manifold_metrics(real, features.of(judge_extractor())["features"], k=3)
    assert [rows[name][0] for name in ("Precision", "Recall")] == [
        f"{manifold[name]:.3f}" for name in ("precision", "recall")
    ]
    assert "Near copies lie nearer" in notes and "No " not in notes


@pytest.mark.slow
def test_the_judge_recognises_drawn_pictures_and_few_have_no_distance(drawn):
    images, labels = drawn
    rows, notes = measured(images, labels)
    assert float(rows["Class accuracy"][0].rstrip("%")) > 80
    assert float(rows["Precision"][0]) > 0.5
    assert "Fréchet distance" not in rows
    assert "No Fréchet distance: it compares means and covariances of 256 features, which needs at least 257" in notes
    wrong, _ = measured(images, [(label + 1) % 10 for label in labels])
    assert float(wrong["Class accuracy"][0].rstrip("%")) < 20


@pytest.mark.slow
def test_one_picture_without_a_label_is_measured_as_far_as_it_can_be(drawn):
    rows, notes = measured(drawn[0][:1])
    assert list(rows) == ["Near copies"]
    assert "there is 1." in notes and "No precision and recall" in notes and "No class accuracy" in notes


@pytest.mark.slow
def test_accuracy_is_of_the_labelled_pictures(drawn):
    images, labels = drawn
    _, notes = measured(images[:12], labels[:6] + [-1] * 6)
    assert "Class accuracy is of the 6 pictures with a label." in notes


@pytest.mark.slow
def test_training_images_are_near_copies_and_test_images_are_not():
    training = result(near_copies(reference("train").kept_features()[:50].double()))
    assert training["copy_fraction"] == 1 and training["distances"].max() == 0 and training["n_training"] == 10_000
    test = result(near_copies(reference("test").kept_features()[2000:2200].double()))
    assert test["copy_fraction"] < 0.05


@pytest.mark.slow
def test_real_figures_near_those_of_all_test_images_with_their_number():
    few, more = real_figures(300), real_figures(5000)
    assert measuring.reported_real()["distance"] < more["distance"] < few["distance"]
    assert real_figures(100)["distance"] is None and real_figures(100)["precision"] is not None
    assert real_figures(1) == {"distance": None, "precision": None, "recall": None}


@pytest.mark.slow
def test_a_visitor_who_leaves_ends_the_interval(many):
    cancelled = threading.Event()
    steps = measure_pictures(many, [-1] * 300, ["picture"] * 300, cancelled)
    while "interval" not in next(steps):
        pass
    cancelled.set()
    with pytest.raises(Cancelled):
        next(steps)
    with measuring.TURNS.of_visitor():  # nobody holds a turn
        pass


def test_rows_for_precision_are_taken_at_random():
    rows = measuring.some_rows(torch.arange(3000.0)[:, None]).flatten()
    assert len(set(rows.tolist())) == 1000 and rows.max() > 2900 and rows.min() < 100
    assert (rows == measuring.some_rows(torch.arange(3000.0)[:, None]).flatten()).all()
