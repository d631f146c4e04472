"""Encode every caption once, and call networks with them."""

import torch
from torch import nn

from mobilediff.captions import CaptionBank
from mobilediff.diffusion import NUM_TRAIN_TIMESTEPS, guidance_scales, guided
from mobilediff.pipeline import encode_text
from mobilediff.training.engine.pipelines import FrozenParts
from mobilediff.training.engine.trainer import Trainer


class Conditioning:
    """Every caption of a `CaptionBank`, encoded once; those of given ids as keyword arguments of a network."""

    @torch.no_grad()
    def __init__(self, parts: FrozenParts, bank: CaptionBank, device: torch.device):
        self.bank = bank
        encoded = [
            encode_text(parts.tokenizer, parts.text_encoder, bank.texts[i : i + 256])
            for i in range(0, len(bank.texts), 256)
        ]
        self.hidden_states = torch.cat([hidden for hidden, _ in encoded]).to(device)
        self.pooled = torch.cat([pooled for _, pooled in encoded]).to(device)

    def __call__(self, caption_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"encoder_hidden_states": self.hidden_states[caption_ids], "class_labels": self.pooled[caption_ids]}

    def null_like(self, caption_ids: torch.Tensor) -> torch.Tensor:
        """As many ids of the null prompt."""
        return torch.full_like(caption_ids, self.bank.null_index)


def velocities(
    network: nn.Module,
    conditioning: Conditioning,
    trainer: Trainer,
    noisy: torch.Tensor,
    timesteps: torch.Tensor,
    caption_ids: torch.Tensor,
    guidance_scale: float = 1.0,
    guidance_interval: tuple[float, float] = (0.0, 1.0),
) -> tuple[torch.Tensor, torch.Tensor]:
    """The network's v in fp32, guided inside the interval, and as it is; without guidance both are the same.

    Args:
        noisy: z_t [B, C, H, W].
        timesteps: t, [B].
        caption_ids: rows of the `CaptionBank`'s texts, [B].
    """
    if guidance_scale == 1:
        with trainer.autocast():
            v = network(noisy, timesteps, **conditioning(caption_ids)).sample.float()
        return v, v
    both = conditioning(torch.cat([caption_ids, conditioning.null_like(caption_ids)]))
    with trainer.autocast():
        prediction = network(torch.cat([noisy, noisy]), torch.cat([timesteps, timesteps]), **both).sample
    v, null = prediction.float().chunk(2)
    scales = guidance_scales(timesteps / NUM_TRAIN_TIMESTEPS, guidance_scale, guidance_interval)
    return guided(v, null, scales), v
