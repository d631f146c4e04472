"""Conditions of pictures that a control checkpoint draws by itself: for calibration and comparison, without data."""

import torch

from mobilediff.downstream.conditions import canny_edges, color_maps
from mobilediff.downstream.control import COLOR_MAP_SIZES, MobileDiffusionControlPipeline
from mobilediff.images import to_bytes


def drawn_conditions(
    pipeline: MobileDiffusionControlPipeline,
    prompts: list[str],
    num_inference_steps: int,
    generator: torch.Generator | list[torch.Generator],
) -> dict[str, torch.Tensor]:
    """Draw a picture of each prompt without control, and extract its edges and colours.

    Returns:
        `image` [N, 1, H, W] and `color_map` [N, 3, h, h] in [0, 1], arguments of the pipeline's call.
    """
    size = pipeline.controlnet.condition_size
    images = pipeline(
        prompts,
        image=torch.zeros(1, 1, size, size),
        controlnet_conditioning_scale=0,
        num_inference_steps=num_inference_steps,
        generator=generator,
        output_type="pt",
    ).images
    images = to_bytes(2 * images - 1)
    return {"image": canny_edges(images) / 255, "color_map": color_maps(images, COLOR_MAP_SIZES[-1]) / 2 + 0.5}
