"""Train the one-step student by UFOGen (arXiv 2311.09257) or DMD2 (arXiv 2405.14867).

Generator and discriminator start from the few-step student, or the generator from weights of its own. The generator
has up to four terms: reconstruction of that student's samples from the same noise, by latents and by feature maps; the
adversarial one; and, in DMD2, distribution matching with a teacher.
"""

from functools import partial
from pathlib import Path
from typing import Literal, Self

import torch
import torch.nn.functional as F
from diffusers.models.modeling_utils import ModelMixin
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from mobilediff.checkpoints import VAE, load_component
from mobilediff.diffusion import alpha_sigma, any_timesteps, sample_from_velocity, trailing_timesteps
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.models.latent_decoder import NormalisedLatentDecoder
from mobilediff.models.mobile_unet import MobileUNet
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.sampling.scheduling import checked_interval
from mobilediff.schedulers.ufogen import UFOGenScheduler
from mobilediff.training.bases.generator_stage import GeneratorStage
from mobilediff.training.data.latents import Batch, prepare
from mobilediff.training.data.pairs import PairSettings, sample_pairs
from mobilediff.training.engine.options import Decay, Fraction, GeneratorOptions
from mobilediff.training.engine.pipelines import FrozenParts, load_velocity_pipeline
from mobilediff.training.engine.stage import run_stage
from mobilediff.training.engine.trainer import Draws
from mobilediff.training.losses.adversarial import discriminator_loss, generator_loss, make_discriminator
from mobilediff.training.losses.distribution_matching import distribution_matching_loss, fake_score_loss
from mobilediff.training.losses.perceptual import LatentPerceptualLoss, PerceptualLoss
from mobilediff.training.losses.weighted import weighted_sum


class OneStepOptions(GeneratorOptions):
    """Configure the stage `one_step`; VAE and text encoder are the student's.

    Attributes:
        student: pipeline folder of the few-step student, guidance folded in: the start of generator and
            discriminator, and the source of the reconstruction targets (`Pairs`), through which guidance is distilled.
        initial_weights: folder of a trained generator to start from instead.
        student_steps: steps that the targets are drawn with, a multiple of `num_intervals`.
        num_pairs: number of targets.
        pair_cache: folder of drawn targets, shared by runs.
        num_intervals: timesteps that the generator is trained at, 999 among them; it samples in as many steps and in
            those that divide them.
        first_timestep_probability: fraction of the targets from pure noise; the others are spread evenly over all
            timesteps.
        reconstruction_steps: first steps, with the reconstruction terms alone.
        lambda_reconstruction, lambda_perceptual, lambda_adversarial, lambda_distribution: weights of the generator's
            terms; of the last three, one at 0 is not computed.
        perceptual: folder of the trained `ImageEncoder` that compares the feature maps of decoded samples and targets
            (as the reconstruction loss of DMD, arXiv 2311.18828, section 3.3); for `lambda_perceptual`.
        discriminator_learning_rate, discriminator_betas: of the second optimiser.
        discriminator_every: generator steps a discriminator step.
        discriminator_timesteps: where real and fake are told apart: at "any" timestep of `discriminator_interval`,
            evenly, so that fine detail of one-step samples counts too (DMD2), or at the "next" of the trained
            timesteps, t - delta (UFOGen).
        discriminator_interval: ends of that interval, as fractions of the timesteps.
        lambda_r1: weight of the approximated R1 penalty; at 0 it is not computed. R1 itself needs a second
            derivative, which neither torch.compile nor fused attention has.
        r1_deviation: size of the perturbation in it.
        teacher: pipeline folder of the network whose guided score the samples are to follow; for
            `lambda_distribution`.
        guidance_scale: of that teacher.
        guidance_interval: ends of the interval where it applies (arXiv 2404.07724), as fractions of the timesteps.
        fake_score: pipeline folder of the network that starts to learn the score of the generator's samples; for
            `lambda_distribution`.
        fake_score_learning_rate: of its optimiser.
        fake_score_updates: of it, a generator step.
    """

    student: str
    initial_weights: str | None = None
    default_num_inference_steps: PositiveInt = 1
    default_guidance_scale: float = 1.0
    null_probability: Fraction = 0.0
    student_steps: PositiveInt = 8
    num_pairs: PositiveInt = 60000
    pair_cache: str = "runs/pairs"
    num_intervals: PositiveInt = 4
    first_timestep_probability: Fraction = 0.5
    reconstruction_steps: NonNegativeInt = 0
    lambda_reconstruction: NonNegativeFloat = 1.0
    lambda_perceptual: NonNegativeFloat = 0.3
    lambda_adversarial: NonNegativeFloat = 0.3
    lambda_distribution: NonNegativeFloat = 0.0
    perceptual: str | None = None
    discriminator_learning_rate: PositiveFloat = 1e-4
    discriminator_betas: tuple[Decay, Decay] = (0.5, 0.99)
    discriminator_every: PositiveInt = 1
    discriminator_timesteps: Literal["any", "next"] = "any"
    discriminator_interval: tuple[float, float] = (0.02, 0.4)
    lambda_r1: NonNegativeFloat = 0.0
    r1_deviation: PositiveFloat = 0.05
    teacher: str | None = None
    guidance_scale: float = 2.0
    guidance_interval: tuple[float, float] = (0.15, 0.8)
    fake_score: str | None = None
    fake_score_learning_rate: PositiveFloat = 3e-4
    fake_score_updates: PositiveInt = 1

    _check_intervals = field_validator("guidance_interval", "discriminator_interval")(checked_interval)

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        if self.student_steps % self.num_intervals:
            raise ValueError(
                f"student_steps is {self.student_steps}; accepted are multiples of num_intervals, {self.num_intervals}"
            )
        if self.default_num_inference_steps not in self.step_counts:
            raise ValueError(
                f"default_num_inference_steps is {self.default_num_inference_steps}; accepted are {self.step_counts}"
            )
        if self.reconstruction_steps >= self.steps and (self.lambda_adversarial or self.lambda_distribution):
            raise ValueError(
                f"reconstruction_steps is {self.reconstruction_steps}; accepted are fewer than steps, {self.steps}, "
                "where another term has a weight"
            )
        return self

    @model_validator(mode="after")
    def _check_terms(self) -> Self:
        # of real images alone: the discriminator would take the null prompt for a mark of them
        if self.null_probability:
            raise ValueError(f"null_probability is {self.null_probability}; accepted is 0")
        for weight, folders in (
            ("lambda_perceptual", ("perceptual",)),
            ("lambda_distribution", ("teacher", "fake_score")),
        ):
            for folder in folders:
                if getattr(self, weight) and getattr(self, folder) is None:
                    raise ValueError(
                        f"option {folder} is missing; accepted is a folder, or {weight} 0 instead of "
                        f"{getattr(self, weight)}"
                    )
        return self

    @property
    def step_counts(self) -> list[int]:
        """List the numbers of steps whose timesteps the generator is trained at."""
        return [count for count in range(1, self.num_intervals + 1) if self.num_intervals % count == 0]

    @property
    def pair_settings(self) -> PairSettings:
        """Collect the settings that the reconstruction targets depend on."""
        return PairSettings(
            student_steps=self.student_steps,
            num_pairs=self.num_pairs,
            num_intervals=self.num_intervals,
            first_timestep_probability=self.first_timestep_probability,
            class_probability=self.class_probability,
            phrasing_probability=self.phrasing_probability,
            batch_size=self.sample_batch_size,
            dtype=self.compute_dtype,
        )

    def trial_values(self) -> dict:
        return super().trial_values() | {"num_pairs": 16, "reconstruction_steps": 1}


class OneStep(GeneratorStage[OneStepOptions]):
    """Train the generator, its discriminator and its fake score."""

    def setup(self) -> None:
        options = self.options
        source = self.load_student()
        generator = source.unet
        if options.initial_weights is not None:
            generator = load_component(MobileUNet, options.initial_weights)
        if options.lambda_distribution:
            folders = options.teacher, options.fake_score
            networks = [load_velocity_pipeline(folder).unet for folder in folders]  # pyright: ignore[reportArgumentType]
        if options.lambda_perceptual:
            encoder = load_component(ImageEncoder, options.perceptual)  # pyright: ignore[reportArgumentType]
        parts = FrozenParts.of(source)
        self.trainer, self.data = prepare(options, self.limits, parts)
        unet = source.unet.to(self.trainer.device, memory_format=torch.channels_last)
        with self.trainer.accelerator.main_process_first():
            student = self.data.conditioned(self.trainer.compiled(unet))
            self.pairs = sample_pairs(student, self.data, options.pair_settings, Path(options.pair_cache))
        self.timesteps = trailing_timesteps(options.num_intervals, self.trainer.device)
        if options.lambda_perceptual:
            self.add_perceptual(encoder, parts.vae)
        if options.lambda_adversarial:
            self.add_discriminator(unet)
        if options.lambda_distribution:
            self.add_scores(*networks)
        self.generator = self.data.conditioned(self.trainer.add("generator", generator))
        scheduler = UFOGenScheduler(distilled_num_inference_steps=options.step_counts)
        self.make_pipeline(parts, generator, scheduler, guidance_distilled=True)

    def load_student(self) -> MobileDiffusionPipeline:
        """Load the few-step student.

        Raises:
            ValueError: it samples with guidance, or was not distilled for `student_steps`.
        """
        source = load_velocity_pipeline(self.options.student)
        source.nfe(self.options.student_steps)
        if not source.config.guidance_distilled:
            raise ValueError(
                f"{self.options.student} samples with guidance; accepted is a student that has it folded in"
            )
        return source

    def add_perceptual(self, encoder: ImageEncoder, vae: VAE) -> None:
        """Make the loss of decoded samples' feature maps."""
        decoder, autocast = self.trainer.frozen(NormalisedLatentDecoder(vae)), self.trainer.autocast

        def decode(latents: torch.Tensor) -> torch.Tensor:
            with autocast():
                return decoder(latents)

        loss = PerceptualLoss(encoder).to(self.trainer.device).to(memory_format=torch.channels_last)
        self.perceptual = LatentPerceptualLoss(loss, decode, self.pairs.latents, autocast)

    def add_discriminator(self, unet: MobileUNet) -> None:
        """Train a discriminator from the student's weights."""
        options, network = self.options, make_discriminator(unet)
        self.discriminator = self.data.conditioned(
            self.trainer.add(
                "discriminator",
                network,
                learning_rate=options.discriminator_learning_rate,
                betas=options.discriminator_betas,
                ema_decay=0.0,
            )
        )
        self.bare_discriminator = self.data.conditioned(self.trainer.compiled(network))

    def add_scores(self, teacher: ModelMixin, fake_score: ModelMixin) -> None:
        """Freeze the guided teacher, and train the fake score."""
        options = self.options
        self.teacher = partial(
            self.data.conditioned(self.trainer.frozen(teacher)).guided,
            scale=options.guidance_scale,
            interval=options.guidance_interval,
        )
        self.fake_score = self.data.conditioned(
            self.trainer.add("fake_score", fake_score, learning_rate=options.fake_score_learning_rate, ema_decay=0.0)
        )

    def batch(self, draws: Draws) -> torch.Tensor:
        """Draw the ids of the step's pairs, int64 [B]."""
        return torch.randint(
            0,
            len(self.pairs.caption_ids),
            draws.indices.shape,
            generator=draws.generator,
            device=self.trainer.device,
        )

    def step(self, batch: torch.Tensor, draws: Draws) -> dict[str, torch.Tensor]:
        options, pairs = self.options, self.pairs[batch]
        t = self.timesteps[pairs.interval]
        noisy = pairs.noisy.float().contiguous(memory_format=torch.channels_last)
        v = self.generator(noisy, t, pairs.caption_ids)
        fake = Batch(sample_from_velocity(noisy, v, *alpha_sigma(t)), pairs.caption_ids)
        terms = {"loss_reconstruction": F.mse_loss(fake.latents, pairs.latents.float())}
        if options.lambda_perceptual:
            terms["loss_perceptual"] = self.perceptual(fake.latents, batch)
        other_terms = draws.index >= options.reconstruction_steps
        adversarial_on = other_terms and options.lambda_adversarial > 0
        distribution_on = other_terms and options.lambda_distribution > 0
        if adversarial_on:
            noised_to = self.adversarial_timesteps(pairs.interval, draws)
            terms["loss_adversarial"] = generator_loss(self.bare_discriminator, fake, noised_to, draws.generator)
        if distribution_on:
            terms["loss_distribution"] = distribution_matching_loss(
                self.teacher, self.fake_score, fake, draws.generator
            )
        self.trainer.update("generator", self.weighted(terms))
        fake = Batch(fake.latents.detach(), fake.caption_ids)
        if adversarial_on and draws.index % options.discriminator_every == 0:
            terms |= self.train_discriminator(fake, noised_to, draws)
        if distribution_on:
            terms |= self.train_fake_score(fake, draws)
        return terms

    def weighted(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        """Sum the generator's terms by their weights, scalars."""
        options = self.options
        loss_weights = {
            "loss_reconstruction": options.lambda_reconstruction,
            "loss_perceptual": options.lambda_perceptual,
            "loss_adversarial": options.lambda_adversarial,
            "loss_distribution": options.lambda_distribution,
        }
        return weighted_sum(terms, loss_weights)

    def adversarial_timesteps(self, interval: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Choose where real and fake are told apart: int64 [B], for samples of `interval`, [B]."""
        if self.options.discriminator_timesteps == "next":
            return self.timesteps[interval + 1]
        return any_timesteps(len(interval), self.options.discriminator_interval, draws.generator, self.trainer.device)

    def train_discriminator(self, fake: Batch, timesteps: torch.Tensor, draws: Draws) -> dict[str, torch.Tensor]:
        """Train one step of the discriminator on real and fake latents at timesteps [B]; returns figures to log."""
        loss, figures = discriminator_loss(
            self.discriminator,
            self.data.draw(draws),
            fake,
            timesteps,
            draws.generator,
            lambda_r1=self.options.lambda_r1,
            r1_deviation=self.options.r1_deviation,
        )
        self.trainer.update("discriminator", loss)
        return figures

    def train_fake_score(self, fake: Batch, draws: Draws) -> dict[str, torch.Tensor]:
        """Train the fake score's steps on the generator's samples; returns its last loss to log, a scalar."""
        for _ in range(self.options.fake_score_updates):
            loss = fake_score_loss(self.fake_score, fake, draws.generator)
            self.trainer.update("fake_score", loss)
        return {"loss_fake_score": loss}


if __name__ == "__main__":
    run_stage(OneStep, OneStepOptions)
