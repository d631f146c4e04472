"""The half of a VAE that sampling uses."""

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import nn


class LatentDecoder(nn.Module):
    """The VAE's own modules from the latents that its `decode` takes, [B, C, h, w], to images [B, 3, H, W]."""

    def __init__(self, vae: AutoencoderKL | AutoencoderTiny):
        super().__init__()
        self.post_quant_conv, self.decoder = getattr(vae, "post_quant_conv", None) or nn.Identity(), vae.decoder

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.post_quant_conv(latents))
