"""From noise and text embeddings to pictures with a checkpoint's graphs, whoever runs them."""

from collections.abc import Callable, Mapping

import numpy as np

from mobilediff.ondevice.manifest import Step

# Runs the graph of that name: its inputs by name -> its outputs in order.
Run = Callable[[str, dict[str, np.ndarray]], list[np.ndarray]]


def draw(
    run: Run,
    steps: list[Step],
    fused: bool,
    noise: np.ndarray,
    hidden_states: np.ndarray,
    pooled: np.ndarray,
    control: Mapping[str, np.ndarray],
) -> np.ndarray:
    """Draw a batch of pictures in [-1, 1], float32 [B, 3, H', W'].

    Args:
        run: of the graph "image" if `fused`, else of "network" and "decoder".
        steps: of the schedule.
        fused: all steps and the decoder are one graph.
        noise: [S B, C, H, W], S = `noise_count(steps)`: the initial noise of the batch, then that of further steps.
        hidden_states: [B, L, D].
        pooled: [B, P].
        control: further inputs of a fused graph with a control network, as `CONTROL` of the manifest names them.
    """
    text = {"hidden_states": hidden_states, "pooled": pooled}
    if fused:
        return run("image", {"noise": noise} | text | dict(control))[0]
    batch_size = len(pooled)
    sample = noise[:batch_size]
    for index, step in enumerate(steps):
        inputs = {"sample": sample, "step": np.array([index], dtype=np.int32)} | text
        velocity = run("network", inputs)[0]
        sample = np.float32(step.sample_scale) * sample + np.float32(step.velocity_scale) * velocity
    return run("decoder", {"latents": sample})[0]
