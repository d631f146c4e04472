"""The half of a VAE that sampling uses."""

import torch
from diffusers import AutoencoderKL
from torch import nn


class LatentDecoder(nn.Module):
    """The VAE's own modules from latents [B, C, h, w], not normalised, to images [B, 3, H, W]."""

    def __init__(self, vae: AutoencoderKL):
        super().__init__()
        self.post_quant_conv, self.decoder = vae.post_quant_conv or nn.Identity(), vae.decoder

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.post_quant_conv(latents))
