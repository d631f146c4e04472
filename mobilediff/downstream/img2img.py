"""Draw from an image and a prompt: noise the image, and let any checkpoint of the family denoise it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderTiny

from mobilediff.downstream.inputs import check_strength, read_images
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.sampling.calls import Call
from mobilediff.sampling.networks import MAX_SLICE
from mobilediff.sampling.scheduling import distilled_steps


@dataclass(kw_only=True)
class Edit:
    """Hold what a call edits.

    Attributes:
        images: that sampling starts from, those of all drawn images or the one of all, [N, 3, H, W] in [-1, 1].
        steps: of a whole sampling.
        taken: those of them that the call takes; the first of all starts at pure noise.
        latents: the normalised latents of the images, of all drawn images, [B, C, h, w]; None until they are encoded.
    """

    images: torch.Tensor
    steps: int
    taken: slice
    latents: torch.Tensor | None = None


def repeated(tensor: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Repeat rows, those of one image side by side: [N, ...] to [batch_size, ...]."""
    return tensor.repeat_interleave(batch_size // len(tensor), dim=0)


class MobileDiffusionImg2ImgPipeline(MobileDiffusionPipeline):
    """Draw variations of an image; `from_pipe` makes it of any pipeline of the family.

    As in SDEdit (arXiv 2108.01073) the image is noised to the timestep that `strength` says, and denoised from there.
    A one-step student takes one step from any of the timesteps that it was trained at.
    """

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        prompt: str | list[str] | None = None,
        image: Any = None,
        strength: float = 0.8,
        num_inference_steps: int | None = None,
        **kwargs,
    ) -> Any:
        """Generate images from images.

        Args:
            prompt: as of `MobileDiffusionPipeline`.
            image: one, or one for each prompt: PIL images of mode RGB, or floats from 0 to 1 as an array [N, H, W, 3]
                or a tensor [N, 3, H, W].
            strength: how much is drawn anew, above 0 up to 1: of S steps the last int(S * strength) are taken, and 1
                starts at pure noise. A one-step student takes its one step from the timestep at which int(N *
                strength) of the most steps N that it accepts would be left.
            num_inference_steps: S, of a whole sampling; by default the checkpoint's.
            kwargs: other arguments of `MobileDiffusionPipeline`.

        Returns:
            As of `MobileDiffusionPipeline`.

        Raises:
            ValueError: for bad arguments, before any work; a strength that leaves no step is one.
        """
        steps, taken = self._steps_of(check_strength(strength), num_inference_steps)
        edit = Edit(images=read_images(image, self._image_size()), steps=steps, taken=taken)
        return self._draw_edit(edit, {"image": edit.images}, prompt, kwargs)

    def _image_size(self) -> tuple[int, int]:
        """Return height and width of the images that the network draws."""
        if self.vae is None:
            raise ValueError("this pipeline has no VAE, which has to encode the image")
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        height, width = self._latent_shape(1)[-2:]
        return height * factor, width * factor

    def _steps_of(self, strength: float, num_inference_steps: int | None) -> tuple[int, slice]:
        """Choose the steps of a whole sampling, and those of them that are taken."""
        wanted = self._resolve_steps(num_inference_steps)
        one_step = wanted == 1 and strength < 1
        steps = self._most_steps() if one_step else wanted
        first = steps - int(steps * strength)
        if first == steps:
            raise ValueError(
                f"strength is {strength}, which leaves none of {steps} steps; accepted: {1 / steps:g} to 1"
            )
        return steps, slice(first, first + 1 if one_step else steps)

    def _most_steps(self) -> int:
        """Return in how many steps a one-step student samples at most: 1 of another checkpoint."""
        counts = distilled_steps(self.scheduler) or [1]
        return max(counts) if 1 in counts else 1

    def _draw_edit(self, edit: Edit, given: dict[str, torch.Tensor], prompt: Any, kwargs: dict) -> Any:
        """Call `MobileDiffusionPipeline` with an edit, which belongs to this call of this thread.

        Args:
            edit: of the call.
            given: arguments of N rows, one of all images or one for each prompt.
            prompt, kwargs: arguments of the call.
        """
        conditioning = (kwargs.get(name) for name in ("class_labels", "prompt_embeds", "pooled_prompt_embeds"))
        _, count = self._check_conditioning(prompt, *conditioning)
        for name, rows in given.items():
            if len(rows) not in (1, count):
                raise ValueError(f"{name} holds {len(rows)}, accepted: one, or one for each of {count} prompts")
        outer, self._thread.edit = self._edit, edit
        try:
            return super().__call__(prompt, num_inference_steps=edit.steps, **kwargs)
        finally:
            self._thread.edit = outer

    @property
    def _edit(self) -> Any:
        """Return the edit of the call under way in this thread; None where there is none."""
        return getattr(self._thread, "edit", None)

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
        """Sample latents [B, C, H, W] from the noised images, or from noise."""
        taken = self._edit.taken
        timesteps, inside = timesteps[taken], inside[taken]
        call.num_timesteps = len(timesteps)
        if taken.start:
            if hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index(taken.start)
            if taken.stop < self._edit.steps:  # of a one-step student, whose scheduler ends with its last timestep
                scheduler.timesteps = timesteps
            noise = tensors["latents"] / scheduler.init_noise_sigma
            tensors["latents"] = scheduler.add_noise(self._start_of(self._edit, noise), noise, timesteps[:1])
        return super()._sample(scheduler, timesteps, inside, call, tensors, generator, callback, tensor_inputs)

    def _start_of(self, edit: Edit, noise: torch.Tensor) -> torch.Tensor:
        """Return the latents that an edit starts from, of the noise's shape, [B, C, H, W]."""
        if edit.latents is None:
            edit.latents = self._encode_images(edit.images, noise)
        return edit.latents

    def _encode_images(self, images: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Encode images in [-1, 1], [N, 3, H', W'], to normalised latents `like` a tensor, [B, C, H, W]."""
        config = self.vae.config
        parts = [self._encode_part(part.to(like.device)) for part in images.split(MAX_SLICE)]
        latents = torch.cat(parts)
        if "latents_mean" in config:
            mean = torch.tensor(config.latents_mean, device=latents.device).view(1, -1, 1, 1)
            std = torch.tensor(config.latents_std, device=latents.device).view(1, -1, 1, 1)
            latents = (latents - mean) / std
        else:  # AutoencoderTiny has one number for all channels
            latents = (latents - config.shift_factor) * config.scaling_factor
        return repeated(latents, len(like)).to(like.dtype)

    def _encode_part(self, images: torch.Tensor) -> torch.Tensor:
        """Encode images [N, 3, H', W'] to latents, float32; of a distribution the mean."""
        encoded = self.vae.encode(images.to(self.vae.dtype), return_dict=False)[0]
        return (encoded if isinstance(self.vae, AutoencoderTiny) else encoded.mean).float()
