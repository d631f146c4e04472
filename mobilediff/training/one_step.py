"""Stage `one_step`: UFOGen (arXiv 2311.09257), a diffusion GAN that starts from the distilled student."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from mobilediff.models.mobile_unet import MobileUNet
from mobilediff.models.variants import variant
from mobilediff.schedulers.ufogen import UFOGenScheduler
from mobilediff.training.generator import (
    Conditioning,
    FrozenParts,
    GeneratorOptions,
    LatentData,
    exporter,
    load_velocity_pipeline,
    make_pipeline,
    noise_scheduler,
    sampler,
    setup,
    trailing_timesteps,
)
from mobilediff.training.losses import add_noise, alpha_sigma, ddim_step, sample_from_velocity
from mobilediff.training.options import RunLimits, run_stage
from mobilediff.training.trainer import Trainer, TrainingStep, derived_seed


@dataclass
class OneStepOptions(GeneratorOptions):
    """Options of the stage; VAE and text encoder are the student's.

    Attributes:
        student: pipeline folder of the few-step student: the start of generator and discriminator, and the source of
            the reconstruction targets (noise and the sample it becomes), through which guidance is distilled.
        student_steps: steps that the targets are drawn with.
        num_pairs: number of targets.
        num_intervals: timesteps that the generator is trained at, 999 among them.
        first_timestep_probability: share of the batch at pure noise; the others are spread evenly.
        discriminator_learning_rate: of the second optimiser.
        discriminator_every: generator steps a discriminator step.
        adversarial_start: first step with a discriminator; before it reconstruction alone.
        lambda_reconstruction, lambda_adversarial: weights of the generator's two terms.
        lambda_r1: weight of the approximated R1 penalty. R1 itself needs a second derivative, which fused attention
            does not have.
        r1_deviation: size of the perturbation in it.
    """

    POSITIVE = (*GeneratorOptions.POSITIVE, "num_pairs", "num_intervals", "discriminator_every")

    student: str = ""
    student_steps: int = 8
    num_pairs: int = 20000
    num_intervals: int = 4
    first_timestep_probability: float = 0.5
    discriminator_learning_rate: float = 1e-4
    discriminator_every: int = 1
    adversarial_start: int = 0
    lambda_reconstruction: float = 1.0
    lambda_adversarial: float = 1.0
    lambda_r1: float = 1.0
    r1_deviation: float = 0.05


@dataclass
class Pairs:
    """Noise, the few-step student's sample from it, and its caption's row: [N, C, H, W] twice and [N]."""

    noise: torch.Tensor
    latents: torch.Tensor
    rows: torch.Tensor


@torch.no_grad()
def sample_pairs(unet: nn.Module, data: LatentData, trainer: Trainer, options: OneStepOptions) -> Pairs:
    """Draw the reconstruction targets with the distilled student, or read them from an earlier start of this run."""
    file = Path(options.output) / "pairs.safetensors"
    if not file.is_file():
        generator = torch.Generator(device=trainer.device).manual_seed(derived_seed(options.seed, "pairs"))
        alphas_cumprod = noise_scheduler().alphas_cumprod.to(trainer.device)
        grid = trailing_timesteps(options.student_steps, trainer.device)
        parts = []
        for start in range(0, options.num_pairs, 250):
            count = min(250, options.num_pairs - start)
            images = torch.arange(start, start + count, device=trainer.device) % len(data.labels)
            rows = data.conditioning.bank.draw(
                data.labels[images],
                data.noun_ids[images],
                generator,
                options.class_probability,
                phrasing_probability=options.phrasing_probability,
            )
            noise = torch.randn(count, *data.latents.shape[2:], generator=generator, device=trainer.device)
            latents = noise.contiguous(memory_format=torch.channels_last)
            for t, next_t in zip(grid[:-1], grid[1:], strict=True):
                with trainer.autocast():
                    v = unet(latents, t.expand(count), **data.conditioning(rows)).sample.float()
                here, there = alpha_sigma(alphas_cumprod, t[None]), alpha_sigma(alphas_cumprod, next_t[None])
                latents = ddim_step(latents, v, *here, *there)
            parts.append((noise.half(), latents.contiguous().half(), rows))
        noise, latents, rows = (torch.cat(column) for column in zip(*parts, strict=True))
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({"noise": noise, "latents": latents, "rows": rows}, file.with_suffix(".tmp"))
        file.with_suffix(".tmp").replace(file)
    return Pairs(**{name: tensor.to(trainer.device) for name, tensor in load_file(file).items()})


def make_discriminator(unet: MobileUNet) -> MobileUNet:
    """The student's network with its weights, and one logit a latent pixel in place of its last layer."""
    discriminator = variant(unet, out_channels=1)
    weights = {name: value for name, value in unet.state_dict().items() if not name.startswith("conv_out.")}
    missing, unexpected = discriminator.load_state_dict(weights, strict=False)
    if unexpected or any(not name.startswith("conv_out.") for name in missing):
        raise ValueError(f"the student's weights do not fit the discriminator: {missing}, {unexpected}")
    return discriminator


class Critic:
    """The discriminator at the timesteps t - delta, with its losses (arXiv 2311.09257, eq. 5, non-saturating)."""

    def __init__(self, module: nn.Module, network: nn.Module, conditioning: Conditioning, trainer: Trainer):
        self.module, self.network, self.conditioning, self.trainer = module, network, conditioning, trainer

    def _logits(self, network: nn.Module, noisy, timesteps, rows) -> torch.Tensor:
        with self.trainer.autocast():
            return network(noisy, timesteps.clamp(min=0), **self.conditioning(rows)).sample.float()

    def generator_loss(self, noisy_fake: torch.Tensor, timesteps: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """-log D on forward-noised predictions; no gradient reaches the discriminator's weights."""
        self.network.requires_grad_(False)
        # the bare network: a distributed wrapper would wait for gradients that never come
        loss = F.softplus(-self._logits(self.network, noisy_fake, timesteps, rows)).mean()
        self.network.requires_grad_(True)
        return loss

    def losses(self, noisy_real, rows_real, noisy_fake, rows_fake, timesteps, deviation: float, generator) -> tuple:
        """The discriminator's loss, the approximated R1 penalty, and the shares of real and fake it tells right.

        The penalty (arXiv 2501.08316) is here over the deviation squared, so that it estimates the squared gradient
        whatever the deviation.
        """
        noise = torch.empty_like(noisy_real).normal_(generator=generator)
        stacked = torch.cat([noisy_real, noisy_fake, noisy_real + deviation * noise])
        times, rows = torch.cat([timesteps] * 3), torch.cat([rows_real, rows_fake, rows_real])
        real, fake, perturbed = self._logits(self.module, stacked, times, rows).chunk(3)
        loss = F.softplus(-real).mean() + F.softplus(fake).mean()
        penalty = (real.mean((1, 2, 3)) - perturbed.mean((1, 2, 3))).square().mean() / deviation**2
        return loss, penalty, (real > 0).float().mean(), (fake < 0).float().mean()


def train(options: OneStepOptions, limits: RunLimits) -> bool:
    """Train generator and discriminator; see `Trainer.fit` for the returned value."""
    source = load_velocity_pipeline(options.student)
    source.nfe(options.student_steps)  # refuses steps that the student was not distilled for
    parts = FrozenParts.of(source)
    if limits.trial:
        options.num_pairs, options.adversarial_start = 16, 1
    trainer, data = setup(options, limits, parts)
    unet = source.unet.to(trainer.device, memory_format=torch.channels_last)
    with trainer.accelerator.main_process_first():
        pairs = sample_pairs(unet, data, trainer, options)
    discriminator = make_discriminator(unet)
    generator_module = trainer.add("generator", unet)
    discriminator_module = trainer.add(
        "discriminator",
        discriminator,
        learning_rate=options.discriminator_learning_rate,
        betas=(0.0, 0.99),
        ema_decay=0.0,
    )
    critic = Critic(discriminator_module, discriminator, data.conditioning, trainer)
    scheduler = UFOGenScheduler(prediction_type="v_prediction")
    pipeline = make_pipeline(parts, unet, scheduler, options, guidance_distilled=True)
    alphas_cumprod = noise_scheduler().alphas_cumprod.to(trainer.device)
    grid = trailing_timesteps(options.num_intervals, trainer.device)

    def step_function(step: TrainingStep) -> dict[str, torch.Tensor]:
        batch, draws, count = data.draw(step), step.generator, len(step.indices)
        picked = torch.randint(0, len(pairs.rows), (count,), generator=draws, device=trainer.device)
        rows, target = pairs.rows[picked], pairs.latents[picked].float()
        interval = torch.randint(0, options.num_intervals, (count,), generator=draws, device=trainer.device)
        first = torch.rand(count, generator=draws, device=trainer.device) < options.first_timestep_probability
        interval = torch.where(first, 0, interval)
        alpha, sigma = alpha_sigma(alphas_cumprod, grid[interval])
        next_alpha, next_sigma = alpha_sigma(alphas_cumprod, grid[interval + 1])
        noisy = add_noise(target, pairs.noise[picked].float(), alpha, sigma).contiguous(
            memory_format=torch.channels_last
        )
        with trainer.autocast():
            prediction = generator_module(noisy, grid[interval], **data.conditioning(rows)).sample
        fake = sample_from_velocity(noisy, prediction.float(), alpha, sigma)
        loss_reconstruction = (fake - target).square().mean()
        if step.index < options.adversarial_start:
            trainer.update("generator", options.lambda_reconstruction * loss_reconstruction)
            return {"loss_reconstruction": loss_reconstruction}

        def noised(latents: torch.Tensor) -> torch.Tensor:
            return add_noise(latents, torch.empty_like(latents).normal_(generator=draws), next_alpha, next_sigma)

        times, noisy_fake = grid[interval + 1], noised(fake)
        loss_adversarial = critic.generator_loss(noisy_fake, times, rows)
        trainer.update(
            "generator",
            options.lambda_reconstruction * loss_reconstruction + options.lambda_adversarial * loss_adversarial,
        )
        values = {"loss_reconstruction": loss_reconstruction, "loss_adversarial": loss_adversarial}
        if step.index % options.discriminator_every == 0:
            loss_discriminator, loss_r1, real_share, fake_share = critic.losses(
                noised(batch.latents), batch.rows, noisy_fake.detach(), rows, times, options.r1_deviation, draws
            )
            trainer.update("discriminator", loss_discriminator + options.lambda_r1 * loss_r1)
            values |= {"loss_discriminator": loss_discriminator, "loss_r1": loss_r1}
            values |= {"real_share": real_share, "fake_share": fake_share}
        return values

    return trainer.fit(step_function, exporter(pipeline), sampler(trainer, pipeline))


if __name__ == "__main__":
    run_stage(train, OneStepOptions)
