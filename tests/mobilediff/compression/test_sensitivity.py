"""The command of the layers' sensitivity on a tiny checkpoint: its errors, resumed and added to, and refused."""

import pytest
import torch
from PIL import Image

from mobilediff.checkpoints import load_pipeline
from mobilediff.compression import sensitivity
from mobilediff.compression.pruned import read_sensitivity
from mobilediff.compression.pruning import prunable_layers


@pytest.fixture
def command(checkpoints, tmp_path):
    return ["--model", str(checkpoints / "student-1step"), "--output", str(tmp_path / "run"), "--n", "2"]


def test_each_layer_has_an_error_and_none_is_measured_twice(command, tmp_path, monkeypatch, capsys):
    sensitivity.main([*command, "--ratios", "0.9"])
    record = read_sensitivity(tmp_path / "run" / "sensitivity.json")
    layers = prunable_layers(load_pipeline(command[1]).unet)
    assert record.layers == {name: layer.weight.numel() for name, layer in layers.items()}
    assert [one.layer for one in record.errors] == list(layers) and record.ratios() == [0.9]
    assert record.of(0.9)["conv_out"] > 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("n = 2") and len(lines) == 2 + len(layers)
    assert lines[2].split()[0] == max(record.of(0.9), key=record.of(0.9).__getitem__)

    measured, error = [], sensitivity.FixedLatents.error
    monkeypatch.setattr(sensitivity.FixedLatents, "error", lambda *given: measured.append(given) or error(*given))
    sensitivity.main([*command, "--ratios", "0.9", "0.2"])
    added = read_sensitivity(tmp_path / "run" / "sensitivity.json")
    assert added.errors[: len(layers)] == record.errors and added.ratios() == [0.2, 0.9]
    assert len(measured) == len(layers) == len(added.of(0.2))
    with Image.open(tmp_path / "run" / "sensitivity.png") as image:
        image.load()
    with pytest.raises(ValueError, match="is of another run: n was 2 and is now 3; take another output"):
        sensitivity.main([*command, "--n", "3"])


def test_the_error_is_that_of_the_network_with_the_one_layer_pruned(command, tmp_path):
    sensitivity.main([*command, "--ratios", "0.5"])
    measured = read_sensitivity(tmp_path / "run" / "sensitivity.json").of(0.5)["conv_in"]
    pipeline, drawn = load_pipeline(command[1]), []
    pipeline.set_progress_bar_config(disable=True)
    for _ in range(2):
        generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
        labels = ["airplane", "automobile"]
        drawn.append(pipeline(class_labels=labels, generator=generators, output_type="latent").images)
        weight = pipeline.unet.conv_in.weight.data
        weight[weight.abs() <= weight.abs().median()] = 0  # the lower of the two middle ones: half of the weights
    assert measured == pytest.approx(((drawn[1] - drawn[0]).norm() / drawn[0].norm()).item(), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--ratios 1.0", "pruning_ratio is 1.0; accepted are fractions"),
        ("--ratios 0", "ratio is 0.0; accepted are fractions above 0"),
        ("--n 0", "n is 0; accepted is 1 or more"),
    ],
)
def test_bad_options_are_refused_before_anything_is_read(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        sensitivity.main(["--model", "nowhere", "--output", str(tmp_path / "run"), *options.split()])
