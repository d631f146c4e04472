"""Run network and VAE: noise, predictions and pixels, in slices and in the precision that each takes."""

import threading
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.torch_utils import randn_tensor

# Images that network and VAE work on at once; more are drawn in slices. A guided call has twice as many rows.
MAX_SLICE = 256

# A VAE that decodes in another precision than it is kept in is changed for as long.
_UPCASTING = threading.Lock()


def compute_dtype(model: ModelMixin, first_layer: torch.nn.Conv2d) -> torch.dtype:
    """Return the precision that a model computes in."""
    # `model.dtype` looks through every module for casting hooks; where they are, the first layer has one.
    return model.dtype if hasattr(first_layer, "_diffusers_hook") else first_layer.weight.dtype


def compute_device(network: Any) -> torch.device:
    """Return the device that a network computes on: its weights', or where accelerate brings them."""
    for module in network.modules() if hasattr(network, "_hf_hook") else ():
        device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return torch.device(device)
    return network.device


# What the methods of mixins are called on; not DiffusionPipeline, of which diffusers accepts one class a file.
PipelineBase: Any = object


class NetworksMixin(PipelineBase):
    """Run network and VAE on any number of images, some at once."""

    unet: Any
    vae: Any

    @property
    def _execution_device(self) -> torch.device:
        # diffusers looks through every module of every component for offloading hooks, which takes longer than a
        # fifth of a one-step network call; without an accelerator there is nothing to offload from.
        if not torch.accelerator.is_available():
            return torch.device("cpu")
        return super()._execution_device

    def _latent_shape(self, batch_size: int) -> tuple[int, int, int, int]:
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return batch_size, self.unet.config.in_channels, height, width

    def prepare_latents(
        self, batch_size: int, generator, latents: torch.Tensor | None, device: torch.device
    ) -> torch.Tensor:
        """Draw initial noise in float32, or take `latents`; [B, C, H, W] in the network's precision."""
        if latents is None:
            shape = self._latent_shape(batch_size)
            latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        return latents.to(device=device, dtype=compute_dtype(self.unet, self.unet.conv_in))

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode normalised latents [B, C, H, W] to images in [-1, 1], float32 [B, 3, H', W'].

        Raises:
            ValueError: a pixel is NaN or infinite.
        """
        config, latents = self.vae.config, latents.float()
        if "latents_mean" in config:
            mean = torch.tensor(config.latents_mean, device=latents.device).view(1, -1, 1, 1)
            std = torch.tensor(config.latents_std, device=latents.device).view(1, -1, 1, 1)
            latents = latents * std + mean
        else:  # AutoencoderTiny has one number for all channels
            latents = latents / config.scaling_factor + config.shift_factor
        images = torch.cat([self._decode(part) for part in latents.split(MAX_SLICE)])
        if not torch.isfinite(images).all():
            raise ValueError(
                f"decoding ended in NaN or infinite pixels, so there is no image; the VAE, {type(self.vae).__name__}, "
                f"is kept in {self.vae.dtype}"
            )
        return images

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        decoder = self.vae.decoder
        first_layer = decoder.layers[0] if hasattr(decoder, "layers") else decoder.conv_in
        with _UPCASTING:
            dtype = compute_dtype(self.vae, first_layer)
            # A VAE's activations may overflow in float16, which its config says by diffusers' `force_upcast`.
            if dtype == torch.float16 and self.vae.config.force_upcast:
                self.vae.to(torch.float32)
                try:
                    return self.vae.decode(latents, return_dict=False)[0]
                finally:
                    self.vae.to(dtype)
        return self.vae.decode(latents.to(dtype), return_dict=False)[0].float()

    def _predict(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        prompt_embeds: torch.Tensor,
        pooled_prompt_embeds: torch.Tensor,
        scale: float | None,
    ) -> torch.Tensor:
        """Compute the network's output for B latents, [B, C, H, W], guided where `scale` is given.

        Args:
            latents: x_t as the network takes it, [B, C, H, W].
            timestep: t of all of them.
            prompt_embeds, pooled_prompt_embeds: of B rows, or 2 B with those of the unconditional branch in front.
        """
        batch_size, branches = len(latents), 1 if scale is None else 2
        conditioning = [
            embeds.unflatten(0, (-1, batch_size))[-branches:] for embeds in (prompt_embeds, pooled_prompt_embeds)
        ]
        outputs = []
        for start in range(0, batch_size, MAX_SLICE):
            part = slice(start, start + MAX_SLICE)
            hidden_states, pooled = (embeds[:, part].flatten(0, 1) for embeds in conditioning)
            output = self._run_network(torch.cat([latents[part]] * branches), timestep, hidden_states, pooled, part)
            if scale is not None:
                null_output, text_output = output.chunk(2)
                output = null_output + scale * (text_output - null_output)
            outputs.append(output)
        return torch.cat(outputs)

    def _run_network(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        prompt_embeds: torch.Tensor,
        pooled_prompt_embeds: torch.Tensor,
        part: slice,
    ) -> torch.Tensor:
        """Call the network on one slice of the call's images; a pipeline with further inputs overrides this.

        Args:
            sample: latents of R rows, [R, C, H, W]: those of the slice, twice if guided.
            timestep: t of all of them.
            prompt_embeds, pooled_prompt_embeds: of R rows.
            part: which of the call's images these are.
        """
        return self.unet(
            sample,
            timestep,
            encoder_hidden_states=prompt_embeds,
            class_labels=pooled_prompt_embeds,
            return_dict=False,
        )[0]
