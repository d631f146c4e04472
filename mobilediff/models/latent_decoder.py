"""Decode latents by the decoding half of a VAE, and look up their scale."""

import torch
from diffusers import AutoencoderTiny
from torch import nn

from mobilediff.checkpoints import VAE


class LatentDecoder(nn.Module):
    """Decode latents by the VAE's own modules, which it shares."""

    def __init__(self, vae: VAE):
        super().__init__()
        self.post_quant_conv, self.decoder = getattr(vae, "post_quant_conv", None) or nn.Identity(), vae.decoder

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents [B, C, h, w] to images [B, 3, H, W] in [-1, 1], as `vae.decode`."""
        return self.decoder(self.post_quant_conv(latents))


class NormalisedLatentDecoder(LatentDecoder):
    """Decode the normalised latents that the generators draw."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, vae: VAE):
        super().__init__(vae)
        for name, values in zip(("mean", "std"), latent_statistics(vae), strict=True):
            self.register_buffer(name, values, persistent=False)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode normalised latents [B, C, h, w] to images [B, 3, H, W] in [-1, 1]."""
        return super().forward(latents * self.std + self.mean)


def latent_statistics(vae: VAE) -> tuple[torch.Tensor, torch.Tensor]:
    """Look up the mean and deviation of each latent channel in the config.

    Returns:
        Mean and deviation, float32 [C, 1, 1] each, on the VAE's device.
    """
    config, device = vae.config, vae.device
    if isinstance(vae, AutoencoderTiny):
        channels = config["latent_channels"]
        means, deviations = [config["shift_factor"]] * channels, [1 / config["scaling_factor"]] * channels
    else:
        means, deviations = config["latents_mean"], config["latents_std"]
    mean, deviation = (torch.tensor(values, device=device)[:, None, None] for values in (means, deviations))
    return mean, deviation
