"""How fast a stage trains."""

import json

import pytest
import yaml

from mobilediff.training.engine.options import TrainingOptions, parse_options
from tests.mobilediff.training.engine.regression import Regression


def test_the_benchmark_times_a_stage_and_saves_nothing(tmp_path, capsys):
    config = tmp_path / "toy.yaml"
    config.write_text(yaml.safe_dump({"output": str(tmp_path / "toy")}))
    options, limits = parse_options(TrainingOptions, ["--config", str(config), "--benchmark"])
    assert not Regression(options.output, steps=100, batch_size=6, limits=limits, dtype="fp16-weights").fit()
    figures = json.loads(capsys.readouterr().out)
    macs = [9 * 27 * 8, 9 * 8]  # of the two convolutions; the first has no gradient of its input
    assert figures["gflops_image"] == pytest.approx(2e-9 * (3 * sum(macs) - macs[0]))
    assert figures["fraction_of_peak"] == pytest.approx(figures["gflops"] / figures["peak_gflops"])
    assert figures["images_per_second"] == pytest.approx(6000 / figures["median_ms"])
    assert not list((tmp_path / "toy-benchmark").glob("*.json*"))
