"""The figures of a run's samples."""

import pytest
import torch

from mobilediff.training.engine.monitor import Monitor
from tests.tiny import tiny_pipeline


@pytest.mark.slow
def test_the_monitor_measures_the_same_samples_every_time():
    pipeline = tiny_pipeline("student-1step")
    monitor = Monitor(260, torch.device("cpu"))
    with torch.no_grad():
        figures = monitor(pipeline)
        assert figures == monitor(pipeline)
        assert set(figures) == {"distance", "class_accuracy", "recall", "seed_distance"}
        assert figures["distance"] > 10 and figures["seed_distance"] > 0
        pipeline.vae.decoder.conv_out.weight.zero_()  # one image, whatever the seed
        collapsed = monitor(pipeline)
    assert collapsed["seed_distance"] == pytest.approx(0, abs=1e-6) and collapsed["recall"] == 0
    assert collapsed["distance"] > figures["distance"]
