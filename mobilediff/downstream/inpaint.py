"""Repaint the masked part of an image, and keep the rest of it to the last bit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from mobilediff.downstream.img2img import Edit, MobileDiffusionImg2ImgPipeline, repeated
from mobilediff.downstream.inputs import check_strength, read_images, read_masks
from mobilediff.sampling.calls import Call

# Pixels, odd, of the neighbourhoods that a hole is filled from; the last has a whole image.
WINDOWS = (5, 9, 17, 33, 65)
SEAM = 5  # pixels, odd: the neighbourhood of a pixel in which the kept part corrects the repainted one


@dataclass(kw_only=True)
class Inpainting(Edit):
    """Hold what a call repaints.

    Attributes:
        originals: the given images, [N, 3, H, W] in [-1, 1].
        masks: 1 where they are repainted, [M, 1, H, W].
        hidden: the given images as `filled` returns them.
        seen: what the network takes beside noisy latents, [B, C', h, w]; None for nothing.
    """

    originals: torch.Tensor
    masks: torch.Tensor
    hidden: torch.Tensor
    seen: torch.Tensor | None = None


def filled(images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Fill holes with the average of what is kept around each pixel, of the nearest that there is.

    Args:
        images: [N, 3, H, W].
        masks: 1 in the holes, [M, 1, H, W], N or M 1 or both alike.

    Returns:
        [max(N, M), 3, H, W], of which nothing depends on what was in the holes.
    """
    kept = 1 - masks
    sums, shares = torch.zeros_like(kept * images), torch.zeros_like(kept)
    for rank, window in enumerate(WINDOWS):
        average = torch.nn.AvgPool2d(window, stride=1, padding=window // 2)
        weight = 100.0**-rank  # so that a wider window counts where a narrower one has nothing
        sums, shares = sums + weight * average(kept * images), shares + weight * average(kept)
    return torch.where(masks == 1, sums / shares, images)


def blended(images: torch.Tensor, originals: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Put originals back where they are kept, and draw the repainted part near them to their colours.

    The difference between the two at the kept pixels nearby, averaged, is added to a repainted pixel, in proportion to
    how many of its neighbours are kept.

    Args:
        images, originals: [B, 3, H, W].
        masks: 1 where the image is repainted, [B, 1, H, W].

    Returns:
        [B, 3, H, W]; where `masks` is 0 the originals' very values.
    """
    kept = 1 - masks
    shares = F.avg_pool2d(kept, SEAM, stride=1, padding=SEAM // 2)
    differences = F.avg_pool2d(kept * (originals - images), SEAM, stride=1, padding=SEAM // 2)
    # at a straight seam half of the neighbours are kept, and the whole difference is added
    corrections = differences / shares.clamp(min=1e-6) * (2 * shares).clamp(max=1)
    return torch.where(kept == 1, originals, (images + corrections).clamp(-1, 1))


class MobileDiffusionInpaintPipeline(MobileDiffusionImg2ImgPipeline):
    """Repaint the masked part of an image; `from_pipe` makes it of any pipeline of the family.

    The kept part is noised to each timestep anew (as RePaint, arXiv 2201.09865, without its repetitions). A one-step
    student takes its step from the image with its hole filled by the surroundings' colours, noised to the second of
    its timesteps. A network with more input channels sees the mask and the latents of the filled image as well, in
    this order behind the noisy latents.
    """

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        prompt: str | list[str] | None = None,
        image: Any = None,
        mask_image: Any = None,
        strength: float = 1.0,
        num_inference_steps: int | None = None,
        **kwargs,
    ) -> Any:
        """Generate images that differ from the given ones where the mask is white.

        Args:
            prompt, image, num_inference_steps: as of `MobileDiffusionImg2ImgPipeline`.
            strength: as there; at 1 what lies under the mask is not seen.
            mask_image: one, or one for each prompt, of the image's size: PIL images of mode L or 1, or floats from 0
                to 1 as an array [N, H, W] or a tensor [N, 1, H, W]; from 0.5 on a pixel is repainted.
            kwargs: other arguments of `MobileDiffusionPipeline`. Of `output_type="latent"` nothing is put back.

        Returns:
            As of `MobileDiffusionPipeline`, with the image's own pixels where the mask is black.

        Raises:
            ValueError: for bad arguments, before any work; an empty or a full mask is one, and so is one step of a
                checkpoint that was made for more.
        """
        noise_level = check_strength(strength)
        if strength == 1 and self._resolve_steps(num_inference_steps) == 1:
            if self._most_steps() == 1:
                raise ValueError(
                    "num_inference_steps is 1, which starts at pure noise and does not see the image; accepted: more"
                )
            noise_level = 1 - 1 / self._most_steps()
        steps, taken = self._steps_of(noise_level, num_inference_steps)
        images = read_images(image, self._image_size())
        masks = read_masks(mask_image, self._image_size())
        given = {"image": images, "mask_image": masks}
        if len(images) != len(masks) and 1 not in (len(images), len(masks)):
            raise ValueError(f"mask_image holds {len(masks)}, accepted: one, or one for each of {len(images)} images")
        hidden = filled(images, masks)
        edit = Inpainting(
            images=hidden if strength == 1 else images,
            steps=steps,
            taken=taken,
            originals=images,
            masks=masks,
            hidden=hidden,
        )
        return self._draw_edit(edit, given, prompt, kwargs)

    @property
    def _sees_masks(self) -> bool:
        """Return whether the network takes masks and masked latents."""
        return self.unet.config.in_channels == 2 * self.unet.config.out_channels + 1

    def _latent_shape(self, batch_size: int) -> tuple[int, int, int, int]:
        return batch_size, self.unet.config.out_channels, *super()._latent_shape(batch_size)[-2:]

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
        """Sample latents [B, C, H, W] of which the kept part is that of the images."""
        edit, noise = self._edit, tensors["latents"] / scheduler.init_noise_sigma
        masks = F.max_pool2d(edit.masks.to(noise.device), edit.masks.shape[-1] // noise.shape[-1])
        masks = repeated(masks, len(noise)).to(noise.dtype)
        clean, remaining = self._start_of(edit, noise), timesteps[edit.taken]
        if self._sees_masks:
            hidden = clean if edit.images is edit.hidden else self._encode_images(edit.hidden, noise)
            edit.seen = torch.cat([masks, hidden], dim=1)

        def put_back(pipeline, i: int, t: torch.Tensor, stepped: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            later = remaining[i + 1 : i + 2]
            kept = scheduler.add_noise(clean, noise, later) if len(later) else clean
            stepped["latents"] = torch.where(masks == 1, stepped["latents"], kept)
            given = {name: stepped[name] for name in tensor_inputs}
            outputs = {} if callback is None else callback(pipeline, i, t, given) or {}
            return {"latents": stepped["latents"], **outputs}

        names = [*tensor_inputs, "latents"]
        return super()._sample(scheduler, timesteps, inside, call, tensors, generator, put_back, names)

    def _predict(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        prompt_embeds: torch.Tensor,
        pooled_prompt_embeds: torch.Tensor,
        scale: float | None,
    ) -> torch.Tensor:
        """Compute the network's output, [B, C, H, W], with what it sees of the images."""
        if self._edit.seen is not None:
            latents = torch.cat([latents, self._edit.seen], dim=1)
        return super()._predict(latents, timestep, prompt_embeds, pooled_prompt_embeds, scale)

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode normalised latents to images in [-1, 1], float32 [B, 3, H', W'], the call's kept pixels put back."""
        images, edit = super().decode_latents(latents), self._edit
        if edit is None:
            return images
        originals, masks = (repeated(given.to(images.device), len(images)) for given in (edit.originals, edit.masks))
        return blended(images, originals, masks)
