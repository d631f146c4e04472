"""Commands on sets without diversity, and on models named in unusual ways: finite figures and valid JSON."""

import json
import math
import os

import numpy as np
import pytest

from eval import accuracy, fid, generate, quality
from eval.samples.images import read_images
from mobilediff.files import read_json
from tests.eval.stand_ins import random_images


def numbers(value):
    """Yield every number of a JSON value."""
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from numbers(one)
    elif isinstance(value, int | float):
        yield value


def refuse_constant(name: str):
    raise AssertionError(f"{name} is no JSON")


@pytest.fixture(params=["black", "white", "copies", "one class missing"])
def images(request, tmp_path):
    """A file of 300 images with labels."""
    pixels, labels = random_images(300, 3).images.permute(0, 2, 3, 1).numpy().copy(), np.arange(300) % 10
    if request.param == "copies":
        pixels[:] = pixels[:1]
    elif request.param == "one class missing":
        labels[labels == 4] = 5
    else:
        pixels[:] = {"black": 0, "white": 255}[request.param]
    np.savez(tmp_path / "set.npz", images=pixels, class_labels=labels)
    return tmp_path / "set.npz"


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (fid, ["--extractor", "judge", "--resamples", "40"]),
        (quality, ["--extractor", "judge"]),
        (accuracy, []),
    ],
)
def test_sets_without_diversity_have_finite_figures(judge, images, command, options, tmp_path):
    file = tmp_path / "result.json"
    command.main(["--images", str(images), *options, "--json", str(file)])
    result = json.loads(file.read_text(), parse_constant=refuse_constant)
    assert all(math.isfinite(number) for number in numbers(result))
    if command is fid:
        assert result["frechet_distance_judge"] >= 0


def test_a_model_is_the_same_with_a_slash_behind_it_and_as_the_current_folder(checkpoints, tmp_path, monkeypatch):
    folder = checkpoints / "student-1step"
    monkeypatch.chdir(folder)
    sets = []
    for place, model in enumerate((str(folder), f"{folder}{os.sep}", ".")):
        output = tmp_path / f"{place}.npz"
        generate.main(["--model", model, "--n", "10", "--output", str(output)])
        sets.append(read_images(output))
    assert all((one.images == sets[0].images).all() for one in sets)
    assert {one.protocol["model"] for one in sets} == {"student-1step"}
    assert read_json(tmp_path / "0.json")["model"] == "student-1step"
