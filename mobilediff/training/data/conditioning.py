"""Encode every caption once, and call networks with caption ids."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from mobilediff.captions import CaptionBank
from mobilediff.diffusion import NUM_TRAIN_TIMESTEPS, guidance_scales, guided
from mobilediff.pipeline import encode_text
from mobilediff.training.engine.pipelines import FrozenParts


class Conditioning:
    """Look up the encoded captions of a `CaptionBank` by id.

    Args:
        parts: tokenizer and text encoder.
        bank: its texts are encoded once.
        device: of the encoded captions.
    """

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
        """Look up a network's text arguments for caption ids, int64 [B].

        Returns:
            `encoder_hidden_states` [B, L, D] and `class_labels`, the pooled text, [B, P].
        """
        return {"encoder_hidden_states": self.hidden_states[caption_ids], "class_labels": self.pooled[caption_ids]}

    def null_like(self, caption_ids: torch.Tensor) -> torch.Tensor:
        """Repeat the id of the null prompt, int64 [B], for as many caption ids [B]."""
        return torch.full_like(caption_ids, self.bank.null_index)


class ConditionedNetwork(nn.Module):
    """Call a network with caption ids in the run's precision.

    Args:
        network: called with noisy latents, timesteps and the arguments from `conditioning`; its output has a `sample`.
        conditioning: looks up captions by id.
        autocast: makes the context of each call.
    """

    def __init__(
        self,
        network: nn.Module,
        conditioning: Conditioning,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
    ):
        super().__init__()
        self.network, self.conditioning, self.autocast = network, conditioning, autocast

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, caption_ids: torch.Tensor) -> torch.Tensor:
        """Call the network on noisy latents.

        Args:
            noisy: latents, [B, C, H, W].
            timesteps: [B].
            caption_ids: rows of the `CaptionBank`'s texts, int64 [B].

        Returns:
            The network's output, float32 [B, C', H, W].
        """
        with self.autocast():
            return self.network(noisy, timesteps, **self.conditioning(caption_ids)).sample.float()

    def with_null(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, caption_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Call the network once for the captions' and the null prompt's outputs; shapes as in `forward`."""
        both = torch.cat([caption_ids, self.conditioning.null_like(caption_ids)])
        conditional, unconditional = self(torch.cat([noisy, noisy]), torch.cat([timesteps, timesteps]), both).chunk(2)
        return conditional, unconditional

    def guided(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        caption_ids: torch.Tensor,
        scale: float,
        interval: tuple[float, float],
    ) -> torch.Tensor:
        """Guide the output by `scale` inside the interval, a fraction of the timesteps; shapes as in `forward`."""
        return self.guided_and_plain(noisy, timesteps, caption_ids, scale, interval)[0]

    def guided_and_plain(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        caption_ids: torch.Tensor,
        scale: float,
        interval: tuple[float, float],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the output with guidance, as in `guided`, and without, from one call; shapes as in `forward`."""
        if scale == 1:
            plain = self(noisy, timesteps, caption_ids)
            return plain, plain
        plain, unconditional = self.with_null(noisy, timesteps, caption_ids)
        scales = guidance_scales(timesteps / NUM_TRAIN_TIMESTEPS, scale, interval)
        return guided(plain, unconditional, scales), plain
