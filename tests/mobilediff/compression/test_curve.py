"""The command of the pruning curve on a tiny checkpoint: its points, resumed and added to, repaired, and refused."""

import pytest
import torch
from PIL import Image

from eval.benchmark import blocks
from mobilediff.compression import curve
from mobilediff.compression.pruned import read_curve

MS = {"network": 3, "unpruned": 4}
CONFIG = """
output: unused
student: unused
batch_size: 4
warmup_steps: 1
log_every: 1
null_probability: 0.0
"""


def timer(calls, device, rounds, max_seconds, before):
    return {key: [MS[key] / 1000] * rounds for key in calls}


@pytest.fixture
def command(checkpoints, tmp_path, monkeypatch, judge, clip_of_colours):
    """The command with a made-up clock, a tiny judge and a CLIP of colours."""
    in_turns_with = blocks.in_turns_with
    monkeypatch.setattr(curve, "in_turns_with", lambda *options: in_turns_with(*options, timer=timer))
    start = ["--model", str(checkpoints / "student-1step"), "--output", str(tmp_path / "run")]
    return [*start, "--n", "20", "--noise-sets", "2", "--threads", "1", "--rounds", "3"]


@pytest.mark.slow
def test_points_are_measured_once_and_added_to(command, tmp_path, monkeypatch, capsys):
    curve.main([*command, "--ratios", "0.5", "--methods", "unstructured", "structured", "--runtimes"])
    untimed = read_curve(tmp_path / "run" / "curve.json")
    assert untimed.runtimes() == [] and "latency" not in untimed.protocol
    assert "pytorch" not in capsys.readouterr().out
    curve.main([*command, "--ratios", "0.5", "--methods", "unstructured", "structured"])
    first = read_curve(tmp_path / "run" / "curve.json")
    unpruned, unstructured, structured = first.points
    assert [point.model_copy(update={"latency": {}}) for point in first.points] == untimed.points
    assert [point.key for point in first.points] == [(None, 0, 0), ("unstructured", 0.5, 0), ("structured", 0.5, 0)]
    assert unstructured.params == unpruned.params and unstructured.macs == unpruned.macs
    assert unstructured.weights_bytes == unpruned.weights_bytes
    assert unstructured.gzip_bytes < 0.8 * unpruned.gzip_bytes
    assert structured.params < unpruned.params and structured.macs < unpruned.macs
    assert structured.weights_bytes < unpruned.weights_bytes
    assert structured.latency["pytorch"].relative == 0.75
    assert first.noise.frechet_distance > 0 and len(first.block_errors) == 10
    printed = capsys.readouterr().out
    assert "structured 0.5" in printed and "noise (standard deviation over 2 sets of samples)" in printed

    measured, samples = [], curve.FixedSet.__call__
    monkeypatch.setattr(curve.FixedSet, "__call__", lambda *given: measured.append(given) or samples(*given))
    curve.main([*command, "--ratios", "0.2", "0.5"])
    second = read_curve(tmp_path / "run" / "curve.json")
    assert second.points[:3] == first.points
    new = [("unstructured", 0.2, 0), ("structured", 0.2, 0), ("blocks", 0.2, 0), ("blocks", 0.5, 0)]
    assert [point.key for point in second.points[3:]] == new and len(measured) == 4
    ordered = sorted(second.block_errors, key=second.block_errors.__getitem__)
    assert set(second.points[5].removed_blocks) == set(ordered[:2])
    assert set(second.points[6].removed_blocks) == set(ordered[:5])
    with Image.open(tmp_path / "run" / "curve.png") as image:
        image.load()
    with pytest.raises(ValueError, match="is of another run: latency was .*; take another output"):
        curve.main([*command, "--rounds", "4"])
    with pytest.raises(ValueError, match="is of another run: seed was 0 and is now 1; take another output"):
        curve.main([*command, "--seed", "1"])


@pytest.mark.slow
def test_repaired_networks_are_those_of_the_stage(command, tmp_path, monkeypatch, data_folder):
    config = tmp_path / "prune.yaml"
    config.write_text(f"{CONFIG}data: {data_folder}\nlatent_cache: {tmp_path / 'latents'}\n")
    repair = ["--repair", "0", "2", "--repair-config", str(config), "--ratios", "0.5"]
    curve.main([*command, *repair])
    points = {point.key: point for point in read_curve(tmp_path / "run" / "curve.json").points}
    for method in curve.METHODS:
        before, after = points[method, 0.5, 0], points[method, 0.5, 2]
        assert (after.params, after.macs, after.removed_blocks) == (before.params, before.macs, before.removed_blocks)
        assert after.quality != before.quality
        folder = tmp_path / "run" / "repair" / f"{method}-0.5-2"
        assert len((folder / "stats.jsonl").read_text().splitlines()) == 2
    pruned = points["unstructured", 0.5, 2]  # its zeros have stayed
    assert pruned.nonzero_params < 0.55 * pruned.params
    config.write_text(config.read_text() + "learning_rate: 1.0e-3\n")
    with pytest.raises(ValueError, match="is of another run: repair_config_sha256 was"):
        curve.main([*command, *repair])


def test_an_interrupted_repair_interrupts_the_command(command, tmp_path, monkeypatch, data_folder):
    config = tmp_path / "prune.yaml"
    config.write_text(f"{CONFIG}data: {data_folder}\nlatent_cache: {tmp_path / 'latents'}\n")
    monkeypatch.setattr(curve.Prune, "run", lambda stage: False)
    repair = ["--repair", "2", "--repair-config", str(config), "--ratios", "0.5", "--methods", "structured"]
    with pytest.raises(KeyboardInterrupt):
        curve.main([*command, *repair])
    assert [point.key for point in read_curve(tmp_path / "run" / "curve.json").points] == [(None, 0, 0)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--ratios 1.5", "pruning_ratio is 1.5; accepted are fractions"),
        ("--ratios 0.5 0", "ratio is 0.0; accepted are fractions above 0"),
        ("--repair -1", "repair is -1; accepted is 0 or more"),
        ("--noise-sets 1", "noise_sets is 1; accepted is 2 or more"),
        ("--rounds 1", "rounds is 1; accepted is 3 or more"),
    ],
)
def test_bad_options_are_refused_before_anything_is_read(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        curve.main(["--model", "nowhere", "--output", str(tmp_path / "run"), *options.split()])


def test_too_few_samples_and_a_missing_config_are_named(command, tmp_path):
    with pytest.raises(ValueError, match="8"):
        curve.main([*command, "--n", "5"])
    with pytest.raises(FileNotFoundError, match="nowhere.yaml"):
        curve.main([*command, "--repair", "2", "--repair-config", str(tmp_path / "nowhere.yaml")])
    assert torch.is_grad_enabled() and not (tmp_path / "run").exists()
