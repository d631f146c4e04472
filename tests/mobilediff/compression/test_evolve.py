"""The command of the evolution on a tiny checkpoint: its log, picture and checkpoint; resumed, and what is refused."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from eval.benchmark import blocks
from eval.measures.fixed_set import FixedSet, spread
from mobilediff.checkpoints import load_pipeline
from mobilediff.compression import evolve, latency_table
from mobilediff.compression.blocks import block_names
from mobilediff.compression.evolution import Quality, read_evolution
from mobilediff.files import read_json, write_json
from tests.tiny import tiny_pipeline

# Milliseconds of each kind of part.
MS = {"embedding": 1, "stem": 1, "resnet": 3, "transformer": 5, "downsampler": 1, "upsampler": 1, "head": 1}
MS |= {"shortcut": 1, "a": 0.001, "network": 40}


def timer(calls, device, rounds, max_seconds, before):
    return {key: [MS[key.split()[0]] / 1000] * rounds for key in calls}


@pytest.fixture
def command(checkpoints, tmp_path, monkeypatch, judge, clip_of_colours):
    """The command with a made-up table and clock, a tiny judge and a CLIP of colours."""
    measure_blocks, measure_network = blocks.measure_blocks, blocks.measure_network
    monkeypatch.setattr(latency_table, "measure_blocks", lambda *options: measure_blocks(*options, timer=timer))
    monkeypatch.setattr(evolve, "measure_network", lambda *options: measure_network(*options, timer=timer))
    model, file = str(checkpoints / "student-1step"), str(tmp_path / "latency.json")
    latency_table.main(["--model", model, "--output", file, "--threads", "1", "--rounds", "3", "--networks", "0"])
    start = ["--model", model, "--latency-table", file, "--output", str(tmp_path / "run")]
    return [*start, "--n", "20", "--noise-sets", "2"]


@pytest.mark.slow
def test_a_run_is_logged_drawn_and_exported_and_resumes(command, tmp_path, capsys):
    # 44 ms: five parts of 1, 6 ResNet blocks and 4 transformers, without about 0.001 ms each
    evolve.main([*command, "--target-ms", "33", "39", "--group-size", "2"])
    log = read_evolution(tmp_path / "run" / "evolution.json")
    first, last = log.steps[0], log.steps[-1]
    assert (
        [size.target_ms for size in log.sizes] == [39, 33] and first.action == "start" and first.removed_blocks == []
    )
    assert first.predicted_ms == pytest.approx(43, abs=0.1) and last.predicted_ms <= 33
    assert {step.measured_ms for step in log.steps} == {40}
    assert log.noise.frechet_distance > 0 and log.protocol["n"] == 20
    for candidate in log.steps[1].candidates:
        lost = first.quality.clip_score - candidate.quality.clip_score
        assert candidate.value == pytest.approx(lost / (first.predicted_ms - candidate.predicted_ms))
    with Image.open(tmp_path / "run" / "evolution.png") as image:
        image.load()
    for size in log.sizes:
        removed = log.step_of(size).removed_blocks
        assert log.step_of(size).predicted_ms <= size.target_ms
        exported = load_pipeline(tmp_path / "run" / f"export-{size.target_ms:g}ms")
        assert exported.unet.config.removed_blocks == removed
        assert block_names(exported.unet) == [name for name in log.blocks if name not in removed]
    printed = capsys.readouterr().out
    assert "noise (standard deviation over 2 sets of samples)" in printed

    content = read_json(tmp_path / "run" / "evolution.json")
    write_json(tmp_path / "run" / "evolution.json", content | {"steps": content["steps"][:1], "sizes": []})
    evolve.main([*command, "--target-ms", "39", "33", "--group-size", "2"])
    assert read_evolution(tmp_path / "run" / "evolution.json") == log
    with pytest.raises(ValueError, match=r"is of another run: target_ms was \[39.0, 33.0\] and is now \[34.0\]"):
        evolve.main([*command, "--target-ms", "34", "--group-size", "2"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--target-ms 0", "target_ms is 0.0; accepted is a number above 0"),
        ("--target-ms 5 --group-size 0", "group_size is 0; accepted is 1 or more"),
        ("--target-ms 5 --noise-sets 1", "noise_sets is 1; accepted is 2 or more"),
    ],
)
def test_bad_options_are_refused_before_anything_is_read(options, message, tmp_path):
    start = ["--model", "nowhere", "--latency-table", "nowhere.json", "--output", str(tmp_path / "run")]
    with pytest.raises(ValueError, match=message):
        evolve.main([*start, *options.split()])


def test_too_few_samples_and_an_unknown_runtime_are_named(command):
    with pytest.raises(ValueError, match="8"):
        evolve.main([*command, "--target-ms", "33", "--n", "5"])
    with pytest.raises(ValueError, match="runtime is 'onnxruntime'; accepted are those of the table: pytorch"):
        evolve.main([*command, "--target-ms", "33", "--runtime", "onnxruntime"])


def test_the_fixed_set_is_the_same_each_time(command):
    samples, pipeline = FixedSet(20, torch.device("cpu"), batch_size=7), tiny_pipeline("student-1step")
    first = samples(pipeline, 0)
    again = replace_batch(samples, 20)(pipeline, 0)
    assert again.clip_score == pytest.approx(first.clip_score, abs=1e-3)
    assert again.frechet_distance == pytest.approx(first.frechet_distance, rel=1e-2)
    assert samples(pipeline, 20) != first
    assert samples.noise(pipeline, 0, 2) == spread([first, samples(pipeline, 20)])


def replace_batch(samples: FixedSet, batch_size: int) -> FixedSet:
    return FixedSet(samples.count, samples.device, batch_size, replace(samples.clip))


def test_the_spread_is_the_standard_deviation_of_each_figure():
    qualities = [Quality(clip_score=value, frechet_distance=2 * value) for value in (1.0, 2.0, 3.0)]
    assert spread(qualities) == Quality(clip_score=1.0, frechet_distance=2.0)
