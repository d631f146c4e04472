"""The half of a VAE that sampling uses, and the scale of its latents."""

import torch
from diffusers import AutoencoderTiny
from torch import nn

from mobilediff.checkpoints import VAE


class LatentDecoder(nn.Module):
    """The VAE's own modules from the latents that its `decode` takes, [B, C, h, w], to images [B, 3, H, W]."""

    def __init__(self, vae: VAE):
        super().__init__()
        self.post_quant_conv, self.decoder = getattr(vae, "post_quant_conv", None) or nn.Identity(), vae.decoder

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.post_quant_conv(latents))


def latent_statistics(vae: VAE) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each latent channel by the config, each [C, 1, 1] on the VAE's device."""
    config, device = vae.config, vae.device
    if isinstance(vae, AutoencoderTiny):
        channels = config["latent_channels"]
        means, deviations = [config["shift_factor"]] * channels, [1 / config["scaling_factor"]] * channels
    else:
        means, deviations = config["latents_mean"], config["latents_std"]
    mean, deviation = (torch.tensor(values, device=device)[:, None, None] for values in (means, deviations))
    return mean, deviation
