"""Distribution matching (DMD2, arXiv 2405.14867): where the teacher's score and the generator's own one disagree."""

import torch
import torch.nn.functional as F
from torch import nn

from mobilediff.diffusion import Diffused, any_timesteps, diffuse, sample_from_velocity
from mobilediff.training.data.conditioning import Conditioning, velocities
from mobilediff.training.data.latents import Batch
from mobilediff.training.engine.trainer import Trainer

# Without the ends of the diffusion, where one of the two predictions says nothing (arXiv 2405.14867, appendix).
MATCHED = (0.02, 0.98)


class DistributionMatcher:
    """Two denoisers of the generator's samples: the guided teacher, frozen, and the fake score.

    The fake score is trained here, by the diffusion's own loss on samples of the generator alone. The options are
    those of `OneStepOptions`.
    """

    def __init__(self, trainer: Trainer, teacher: nn.Module, fake_score: nn.Module, conditioning: Conditioning):
        self.trainer, self.options, self.conditioning = trainer, trainer.options, conditioning
        self.teacher = trainer.frozen(teacher)
        self.fake_score = trainer.add(
            "fake_score", fake_score, learning_rate=self.options.fake_score_learning_rate, ema_decay=0.0
        )

    def _diffuse(self, samples: Batch, generator: torch.Generator) -> tuple[torch.Tensor, Diffused]:
        timesteps = any_timesteps(len(samples.latents), MATCHED, generator, samples.latents.device)
        return timesteps, diffuse(samples.latents, timesteps, generator)

    def _velocity(self, network: nn.Module, noisy, timesteps, caption_ids, *guidance) -> torch.Tensor:
        return velocities(network, self.conditioning, self.trainer, noisy, timesteps, caption_ids, *guidance)[0]

    def generator_loss(self, samples: Batch, generator: torch.Generator) -> torch.Tensor:
        """A loss whose gradient in the samples is x_follower - x_teacher, over the teacher's distance to the sample.

        Half the square of that, as a value (arXiv 2311.18828, equations 7 and 8; 2405.14867, section 3).
        """
        guidance = self.options.guidance_scale, self.options.guidance_interval
        with torch.no_grad():
            timesteps, z = self._diffuse(samples, generator)
            v = self._velocity(self.teacher, z.noisy, timesteps, samples.caption_ids, *guidance)
            taught = sample_from_velocity(z.noisy, v, z.alpha, z.sigma)
            v = self._velocity(self.fake_score, z.noisy, timesteps, samples.caption_ids)
            followed = sample_from_velocity(z.noisy, v, z.alpha, z.sigma)
            scale = (samples.latents - taught).abs().mean((1, 2, 3), keepdim=True)
            target = samples.latents - (followed - taught) / scale
        return F.mse_loss(samples.latents, target) / 2

    def train(self, samples: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """The fake score's steps on samples without a gradient; returns its last loss."""
        for _ in range(self.options.fake_score_updates):
            timesteps, z = self._diffuse(samples, generator)
            loss = F.mse_loss(self._velocity(self.fake_score, z.noisy, timesteps, samples.caption_ids), z.velocity)
            self.trainer.update("fake_score", loss)
        return {"loss_follower": loss}
