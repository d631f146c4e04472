"""Time pictures of a control checkpoint with and without control."""

from PIL import Image

from eval.benchmark.latency import interleave
from mobilediff.captions import CLASS_NAMES
from mobilediff.downstream.control import MobileDiffusionControlPipeline
from mobilediff.timing import summary

ROUNDS, MAX_SECONDS = 20, 60.0


def control_times(pipeline: MobileDiffusionControlPipeline) -> dict[str, float]:
    """Time single images with and without control, in turn: medians, in milliseconds."""
    sketch = Image.new("L", (pipeline.controlnet.condition_size,) * 2)
    calls = {
        name: (lambda scale=scale: pipeline(CLASS_NAMES[0], sketch, controlnet_conditioning_scale=scale))
        for name, scale in (("controlled", 1.0), ("uncontrolled", 0.0))
    }
    times = interleave(calls, pipeline.device, ROUNDS, MAX_SECONDS)
    return {name: summary(values)["median_ms"] for name, values in times.items()}
