"""The discriminator of UFOGen (arXiv 2311.09257): the student's own network, which tells noised latents apart."""

import torch
import torch.nn.functional as F
from torch import nn

from mobilediff.diffusion import add_noise, alpha_sigma
from mobilediff.models.mobile_unet import MobileUNet
from mobilediff.models.variants import variant
from mobilediff.training.data.conditioning import Conditioning
from mobilediff.training.data.latents import Batch
from mobilediff.training.engine.trainer import Trainer


def make_discriminator(unet: MobileUNet) -> MobileUNet:
    """The student's network with its weights, and one logit a latent pixel in place of its last layer."""
    discriminator = variant(unet, out_channels=1)
    weights = {name: value for name, value in unet.state_dict().items() if not name.startswith("conv_out.")}
    missing, unexpected = discriminator.load_state_dict(weights, strict=False)
    if unexpected or any(not name.startswith("conv_out.") for name in missing):
        raise ValueError(f"the student's weights do not fit the discriminator: {missing}, {unexpected}")
    return discriminator


class Discriminator:
    """The discriminator with its optimiser (arXiv 2311.09257, eq. 5, non-saturating), at the timesteps it is given.

    Its options are those of `OneStepOptions`.
    """

    def __init__(self, trainer: Trainer, unet: MobileUNet, conditioning: Conditioning):
        self.trainer, self.options, self.conditioning = trainer, trainer.options, conditioning
        self.network = make_discriminator(unet)
        self.module = trainer.add(
            "discriminator",
            self.network,
            learning_rate=self.options.discriminator_learning_rate,
            betas=self.options.discriminator_betas,
            ema_decay=0.0,
        )
        # the bare network for the generator's loss: a distributed wrapper would wait for gradients that never come
        self.bare = trainer.compiled(self.network)

    def _noised(self, latents: torch.Tensor, timesteps: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        noise = torch.empty_like(latents).normal_(generator=generator)
        return add_noise(latents, noise, *alpha_sigma(timesteps))

    def _logits(self, network: nn.Module, noisy, timesteps, caption_ids) -> torch.Tensor:
        with self.trainer.autocast():
            return network(noisy, timesteps.clamp(min=0), **self.conditioning(caption_ids)).sample.float()

    def generator_loss(self, fake: Batch, timesteps: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """-log D on predictions noised forward to `timesteps` [B]; no gradient reaches the discriminator's weights."""
        noisy = self._noised(fake.latents, timesteps, generator)
        self.network.requires_grad_(False)
        loss = F.softplus(-self._logits(self.bare, noisy, timesteps, fake.caption_ids)).mean()
        self.network.requires_grad_(True)
        return loss

    def train(self, real: Batch, fake: Batch, timesteps: torch.Tensor, generator: torch.Generator) -> dict:
        """One step of the discriminator.

        The penalty is R1 by a difference (arXiv 2501.08316) instead of a derivative, here over the deviation squared,
        so that it estimates the squared gradient whatever the deviation.

        Args:
            real, fake: latents, the second ones without a gradient, and their captions.
            timesteps: where both are noised to, [B].

        Returns:
            Its loss, the penalty where it has a weight, and the fractions of real and fake logits that it has right.
        """
        deviation, penalised = self.options.r1_deviation, self.options.lambda_r1 > 0
        noisy = [self._noised(batch.latents, timesteps, generator) for batch in (real, fake)]
        caption_ids = [real.caption_ids, fake.caption_ids]
        if penalised:
            noisy.append(noisy[0] + deviation * torch.empty_like(noisy[0]).normal_(generator=generator))
            caption_ids.append(real.caption_ids)
        stacked = self._logits(
            self.module, torch.cat(noisy), torch.cat([timesteps] * len(noisy)), torch.cat(caption_ids)
        )
        logits_real, logits_fake, *perturbed = stacked.chunk(len(noisy))
        loss = F.softplus(-logits_real).mean() + F.softplus(logits_fake).mean()
        figures = {
            "loss_discriminator": loss,
            "real_share": (logits_real > 0).float().mean(),
            "fake_share": (logits_fake < 0).float().mean(),
        }
        if penalised:
            change = logits_real.mean((1, 2, 3)) - perturbed[0].mean((1, 2, 3))
            figures["loss_r1"] = change.square().mean() / deviation**2
            loss = loss + self.options.lambda_r1 * figures["loss_r1"]
        self.trainer.update("discriminator", loss)
        return figures
