"""Draw by a sketch and coarse colours, through a MobileControlNet beside the network."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.models.modeling_utils import ModelMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from PIL import Image
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.sampling.calls import Call
from mobilediff.sampling.code import isolate_code

# Fields along a side that a colour map may have.
COLOR_MAP_SIZES = (4, 8)


@dataclass
class Control:
    """Hold what a call is steered by.

    Attributes:
        conditions: of all images or the one of all, [N, 6, H, W], as `MobileControlNet` takes them.
        scales: factor of the residuals in each step.
        num_images_per_prompt: images that share a condition.
        by_timestep: the factors by timestep, once these are known.
    """

    conditions: torch.Tensor
    scales: list[float]
    num_images_per_prompt: int
    by_timestep: dict[float, float] = field(default_factory=dict)


def read_condition(name: str, image: Any, channels: int, sizes: Sequence[int]) -> torch.Tensor:
    """Read an image or several as a condition.

    Args:
        name: of the argument, for errors.
        image: as `MobileDiffusionControlPipeline.__call__` takes it.
        channels: 1 for edges, 3 for colours.
        sizes: accepted numbers of pixels along a side.

    Returns:
        float32 [N, channels, size, size] in [0, 1].

    Raises:
        ValueError: naming the argument, its value and what is accepted.
    """
    if isinstance(image, (list, tuple)):
        if not image:
            raise ValueError(f"{name} is an empty list; accepted: one image, or one for each prompt")
        parts = [read_condition(f"{name}[{index}]", part, channels, sizes) for index, part in enumerate(image)]
        if len(shapes := {tuple(part.shape[1:]) for part in parts}) > 1:
            raise ValueError(f"{name} holds images of the shapes {sorted(shapes)}; accepted are images of one")
        return torch.cat(parts)
    if isinstance(image, Image.Image):
        modes = ("1", "L", "RGB") if channels == 1 else ("RGB",)
        if image.mode not in modes:
            raise ValueError(f"{name} is of mode {image.mode}; accepted: {', '.join(modes)}")
        values = torch.from_numpy(np.array(image.convert("L" if image.mode == "1" else image.mode))).float() / 255
        values = values[..., None] if values.ndim == 2 else values
        values = values.permute(2, 0, 1)[None]
    elif isinstance(image, np.ndarray) and image.dtype.kind == "f" and image.ndim in (3, 4):
        values = torch.from_numpy(image).float().movedim(-1, -3)
    elif isinstance(image, torch.Tensor) and image.is_floating_point() and image.ndim in (3, 4):
        values = image.detach().float().cpu()
    else:
        kind = (
            f"{type(image).__name__} of {image.dtype}, {list(image.shape)}" if hasattr(image, "dtype") else repr(image)
        )
        raise ValueError(
            f"{name} is {kind}; accepted: PIL images, float arrays [N, H, W, C] and float tensors [N, C, H, W]"
        )
    values = values if values.ndim == 4 else values[None]
    if values.shape[1] not in (channels, 3) or values.shape[2] != values.shape[3] or values.shape[2] not in sizes:
        accepted = " or ".join(f"{size} x {size}" for size in sizes)
        counts = "1 or 3 channels" if channels == 1 else "3 channels"
        raise ValueError(
            f"{name} has {values.shape[1]} channels of {values.shape[2]} x {values.shape[3]}; accepted: {counts} of "
            f"{accepted}"
        )
    if not (torch.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"{name} has values that are NaN or outside 0 to 1; accepted are those from 0 to 1")
    if values.shape[1] == channels:
        return values
    if not (torch.equal(values[:, 0], values[:, 1]) and torch.equal(values[:, 0], values[:, 2])):
        raise ValueError(f"{name} is coloured; accepted are white strokes on black, such as the edges of a picture")
    return values[:, :1]


def read_conditions(
    image: Any, color_map: Any, size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Read a sketch, a colour map or both, as `MobileControlNet.join_conditions` takes them.

    Args:
        image, color_map: as `MobileDiffusionControlPipeline.__call__` takes them.
        size: pixels along a side of the sketch.

    Returns:
        Edges in [0, 1], [N, 1, size, size], colours in [-1, 1], [N, 3, h, w], and whether each is given, [N].

    Raises:
        ValueError: neither is given, their numbers differ, or as in `read_condition`.
    """
    if image is None and color_map is None:
        raise ValueError("image and color_map are None; accepted: a sketch, a map of colours, or both")
    given = [part is not None for part in (image, color_map)]
    edges = torch.zeros(1, 1, size, size) if image is None else read_condition("image", image, 1, [size])
    colors = torch.full((1, 3, 1, 1), 0.5)
    if color_map is not None:
        colors = read_condition("color_map", color_map, 3, COLOR_MAP_SIZES)
    if len({len(edges), len(colors)} - {1}) > 1:
        raise ValueError(f"image holds {len(edges)} and color_map {len(colors)}; accepted are as many, or one")
    count = max(len(edges), len(colors))
    edges, colors = (part.expand(count, -1, -1, -1) for part in (edges, 2 * colors - 1))
    has_edges, has_colors = (torch.full((count,), float(has)) for has in given)
    return edges, colors, has_edges, has_colors


def check_count(conditions: int, prompts: int) -> None:
    """Refuse a number of conditions that is neither one nor that of the prompts.

    Raises:
        ValueError: naming both.
    """
    if conditions not in (1, prompts):
        raise ValueError(f"image or color_map holds {conditions}, accepted: one, or one for each of {prompts} prompts")


def check_scale(scale: Any) -> None:
    """Refuse a factor of the residuals that is no finite number from 0.

    Raises:
        ValueError: naming it.
    """
    is_number = isinstance(scale, Real) and not isinstance(scale, bool)
    if not is_number or not math.isfinite(scale) or scale < 0:
        raise ValueError(f"controlnet_conditioning_scale is {scale!r}, accepted: finite numbers from 0")


class MobileDiffusionControlPipeline(MobileDiffusionPipeline):
    """Generate images that follow a sketch, a coarse map of colours or both.

    `from_pipe(pipeline, controlnet=network)` makes one of a pipeline and a `MobileControlNet` trained on it.

    Args:
        controlnet: `MobileControlNet` trained on `unet`.

    The other arguments and the errors are those of `MobileDiffusionPipeline`.
    """

    model_cpu_offload_seq = "text_encoder->controlnet->unet->vae"

    def __init__(
        self,
        vae: AutoencoderKL | AutoencoderTiny,
        text_encoder: CLIPTextModelWithProjection,
        tokenizer: CLIPTokenizer,
        unet: ModelMixin,
        controlnet: ModelMixin,
        scheduler: SchedulerMixin,
        nouns: dict[str, int] | None = None,
        null_prompt: str | None = None,
        class_template: str | None = None,
        default_num_inference_steps: int | None = None,
        default_guidance_scale: float | None = None,
        default_guidance_low: float | None = None,
        default_guidance_high: float | None = None,
        guidance_distilled: bool | None = None,
    ):
        super().__init__(
            vae,
            text_encoder,
            tokenizer,
            unet,
            scheduler,
            nouns,
            null_prompt,
            class_template,
            default_num_inference_steps,
            default_guidance_scale,
            default_guidance_low,
            default_guidance_high,
            guidance_distilled,
        )
        isolate_code(type(controlnet))
        for name in ("in_channels", "block_out_channels", "layers_per_block"):
            control, network = (_plain(part.config[name]) for part in (controlnet, unet))  # pyright: ignore[reportAttributeAccessIssue] - ConfigMixin's
            if control != network:
                raise ValueError(
                    f"{name} of the controlnet is {control}, that of the unet {network}; accepted are equal"
                )
        self.register_modules(controlnet=controlnet)

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        prompt: str | list[str] | None = None,
        image: Any = None,
        color_map: Any = None,
        controlnet_conditioning_scale: float = 1.0,
        control_guidance_start: float = 0.0,
        control_guidance_end: float = 1.0,
        num_inference_steps: int | None = None,
        num_images_per_prompt: int = 1,
        **kwargs,
    ) -> Any:
        """Generate images; give `image`, `color_map` or both.

        Args:
            prompt: as of `MobileDiffusionPipeline`.
            image: a sketch, or one for each prompt: white edges or strokes on black, of the size of the images drawn.
                PIL images of mode L, 1 or RGB, or floats from 0 to 1 as an array [N, H, W, C] or a tensor
                [N, C, H, W], C being 1 or 3.
            color_map: the mean colours of 4 x 4 or 8 x 8 fields, or one for each prompt: PIL images of mode RGB of
                that size, or floats as above with three channels.
            controlnet_conditioning_scale: factor of what the control network adds, from 0; 0 draws as without it.
            control_guidance_start, control_guidance_end: fractions of the steps between which it is added, 0 being
                the first step; of one step the whole, 0 and 1.
            num_inference_steps, num_images_per_prompt: as of `MobileDiffusionPipeline`.
            kwargs: other arguments of `MobileDiffusionPipeline`.

        Returns:
            As of `MobileDiffusionPipeline`.

        Raises:
            ValueError: for bad arguments, before any work; an interval that holds no step is one.
        """
        control = Control(
            self.controlnet.join_conditions(*read_conditions(image, color_map, self.controlnet.condition_size)),
            self._scales(
                self._resolve_steps(num_inference_steps),
                controlnet_conditioning_scale,
                control_guidance_start,
                control_guidance_end,
            ),
            num_images_per_prompt,
        )
        outer, self._thread.control = getattr(self._thread, "control", None), control
        try:
            return super().__call__(
                prompt,
                num_inference_steps=num_inference_steps,
                num_images_per_prompt=num_images_per_prompt,
                **kwargs,
            )
        finally:
            self._thread.control = outer

    def _scales(self, steps: int, scale: float, start: float, end: float) -> list[float]:
        """Choose the factor of each of a call's steps."""
        check_scale(scale)
        for name, bound in (("control_guidance_start", start), ("control_guidance_end", end)):
            if not isinstance(bound, Real) or isinstance(bound, bool) or not 0 <= bound <= 1:
                raise ValueError(f"{name} is {bound!r}, accepted: numbers from 0 to 1")
        inside = [start <= step / steps and (step + 1) / steps <= end for step in range(steps)]
        if not any(inside):
            raise ValueError(
                f"control_guidance_start is {start} and control_guidance_end {end}, between which none of {steps} "
                f"steps lies whole; accepted are wider ones, such as 0 and {1 / steps:g}"
            )
        return [float(scale) if within else 0.0 for within in inside]

    def check_inputs(self, prompts: list[str] | None, batch_size: int, *args, **kwargs) -> None:
        """Refuse bad arguments of `__call__`, among them another number of conditions than of prompts."""
        super().check_inputs(prompts, batch_size, *args, **kwargs)
        control = self._thread.control
        check_count(len(control.conditions), batch_size // control.num_images_per_prompt)

    def _sample(
        self,
        scheduler: Any,
        timesteps: torch.Tensor,
        inside: list[bool],
        call: Call,
        tensors: dict[str, torch.Tensor],
        generator: torch.Generator | list[torch.Generator] | None,
        callback: Callable | None,
        tensor_inputs: Sequence[str],
    ) -> torch.Tensor:
        """Sample latents [B, C, H, W] from noise, with the call's conditions on the network's device."""
        control, latents = self._thread.control, tensors["latents"]
        control.by_timestep = dict(zip(timesteps.tolist(), control.scales, strict=True))
        repeats = len(latents) // len(control.conditions)
        control.conditions = control.conditions.repeat_interleave(repeats, dim=0).to(latents.device, latents.dtype)
        return super()._sample(scheduler, timesteps, inside, call, tensors, generator, callback, tensor_inputs)

    def _run_network(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        prompt_embeds: torch.Tensor,
        pooled_prompt_embeds: torch.Tensor,
        part: slice,
    ) -> torch.Tensor:
        """Call the network with the control network's residuals; arguments as those of the method replaced."""
        control = self._thread.control
        scale = control.by_timestep[timestep.item()]
        if not scale:
            return super()._run_network(sample, timestep, prompt_embeds, pooled_prompt_embeds, part)
        conditions = control.conditions[part]
        down_residuals, mid_residual = self.controlnet(
            sample,
            timestep,
            torch.cat([conditions] * (len(sample) // len(conditions))),
            pooled_prompt_embeds,
            scale,
            return_dict=False,
        )
        return self.unet(
            sample,
            timestep,
            encoder_hidden_states=prompt_embeds,
            class_labels=pooled_prompt_embeds,
            down_block_additional_residuals=down_residuals,
            mid_block_additional_residual=mid_residual,
            return_dict=False,
        )[0]


def _plain(value: Any) -> Any:
    """Turn a tuple of a config into a list, which it is once loaded."""
    return list(value) if isinstance(value, tuple) else value
