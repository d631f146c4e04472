"""Stage `one_step`: UFOGen (arXiv 2311.09257), or DMD2 (arXiv 2405.14867) where distributions are matched too.

Generator and discriminator start from the few-step student, or the generator from weights of its own. The generator
has up to four terms: reconstruction of what that student makes of the same noise, by latents and by feature maps, the
adversarial one, and distribution matching with a teacher.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from mobilediff.checkpoints import load_component
from mobilediff.diffusion import alpha_sigma, any_timesteps, sample_from_velocity, trailing_timesteps
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.models.latent_decoder import LatentDecoder, latent_statistics
from mobilediff.models.mobile_unet import MobileUNet
from mobilediff.pipeline import checked_interval
from mobilediff.schedulers.ufogen import UFOGenScheduler
from mobilediff.training.data.conditioning import ConditionedNetwork
from mobilediff.training.data.latents import Batch, setup
from mobilediff.training.data.pairs import PairSettings, sample_pairs
from mobilediff.training.engine.options import GeneratorOptions, RunLimits, run_stage
from mobilediff.training.engine.pipelines import FrozenParts, exporter, load_velocity_pipeline, make_pipeline, sampler
from mobilediff.training.engine.trainer import TrainingStep
from mobilediff.training.losses.adversarial import discriminator_loss, generator_loss, make_discriminator
from mobilediff.training.losses.distribution_matching import distribution_matching_loss, fake_score_loss
from mobilediff.training.losses.perceptual import LatentPerceptualLoss, PerceptualLoss


@dataclass
class OneStepOptions(GeneratorOptions):
    """Options of the stage; VAE and text encoder are the student's.

    Attributes:
        student: pipeline folder of the few-step student, guidance folded in: the start of generator and
            discriminator, and the source of the reconstruction targets (`Pairs`), through which guidance is distilled.
        weights: folder of a trained generator to start from instead.
        student_steps: steps that the targets are drawn with, a multiple of `num_intervals`.
        num_pairs: number of targets.
        pairs_seed: of what they are drawn from.
        pair_cache: folder of drawn targets, shared by runs.
        num_intervals: timesteps that the generator is trained at, 999 among them; it samples in as many steps and in
            those that divide them.
        first_timestep_probability: fraction of the targets from pure noise; the others are spread evenly over all
            timesteps.
        reconstruction_steps: first steps, with the reconstruction term alone.
        lambda_reconstruction, lambda_perceptual, lambda_adversarial, lambda_distribution: weights of the generator's
            terms; of the last three, one at 0 is not computed.
        perceptual: folder of the trained `ImageEncoder` whose feature maps of the decoded samples are compared with
            those of the targets, where that has a weight: the reconstruction loss of DMD (arXiv 2311.18828, section
            3.3) is such a one.
        discriminator_learning_rate, discriminator_betas: of the second optimiser.
        discriminator_every: generator steps a discriminator step.
        discriminator_timesteps: where real and fake are told apart: at the "next" of the timesteps, t - delta
            (UFOGen), or at "any" of `discriminator_interval`, evenly, so that fine detail of one-step samples counts
            too (DMD2).
        discriminator_interval: from where to where that is, as fractions of the timesteps.
        lambda_r1: weight of the approximated R1 penalty; at 0 it is not computed. R1 itself needs a second
            derivative, which neither torch.compile nor fused attention has.
        r1_deviation: size of the perturbation in it.
        teacher: pipeline folder of the network whose guided score the samples are to follow, where distributions are
            matched.
        guidance_scale: of that teacher.
        guidance_interval: from where to where it applies (arXiv 2404.07724), as fractions of the timesteps.
        fake_score: pipeline folder of the network that learns the score of the generator's samples, from its weights
            on.
        fake_score_learning_rate: of its optimiser.
        fake_score_updates: of it, a generator step.
    """

    POSITIVE = (*GeneratorOptions.POSITIVE, "num_pairs", "num_intervals", "discriminator_every", "fake_score_updates")

    student: str = ""
    weights: str | None = None
    default_num_inference_steps: int = 1
    null_probability: float = 0.0
    student_steps: int = 8
    num_pairs: int = 20000
    pairs_seed: int = 0
    pair_cache: str = "runs/pairs"
    num_intervals: int = 4
    first_timestep_probability: float = 0.5
    reconstruction_steps: int = 0
    lambda_reconstruction: float = 1.0
    lambda_perceptual: float = 0.0
    lambda_adversarial: float = 1.0
    lambda_distribution: float = 0.0
    perceptual: str = ""
    discriminator_learning_rate: float = 1e-4
    discriminator_betas: tuple[float, float] = (0.5, 0.99)
    discriminator_every: int = 1
    discriminator_timesteps: str = "next"
    discriminator_interval: tuple[float, float] = (0.02, 0.98)
    lambda_r1: float = 1.0
    r1_deviation: float = 0.05
    teacher: str = ""
    guidance_scale: float = 3.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    fake_score: str = ""
    fake_score_learning_rate: float = 1e-4
    fake_score_updates: int = 1

    def __post_init__(self):
        super().__post_init__()
        checked_interval(self.guidance_interval)
        checked_interval(self.discriminator_interval)
        if self.student_steps % self.num_intervals:
            raise ValueError(
                f"student_steps is {self.student_steps}; accepted are multiples of num_intervals, {self.num_intervals}"
            )
        if self.discriminator_timesteps not in ("next", "any"):
            raise ValueError(
                f"discriminator_timesteps is {self.discriminator_timesteps!r}; accepted are 'next' and 'any'"
            )
        # of real images alone: the discriminator would take the null prompt for a mark of them
        if self.null_probability:
            raise ValueError(f"null_probability is {self.null_probability}; accepted is 0")
        if self.default_num_inference_steps not in self.step_counts:
            raise ValueError(
                f"default_num_inference_steps is {self.default_num_inference_steps}; accepted are {self.step_counts}"
            )
        if not 0 <= self.first_timestep_probability <= 1:
            raise ValueError(
                f"first_timestep_probability is {self.first_timestep_probability}; accepted are fractions from 0 to 1"
            )
        if self.reconstruction_steps >= self.steps and (self.lambda_adversarial or self.lambda_distribution):
            raise ValueError(
                f"reconstruction_steps is {self.reconstruction_steps}; accepted are fewer than steps, {self.steps}, "
                "where another term has a weight"
            )

    @property
    def step_counts(self) -> list[int]:
        """The numbers of steps whose timesteps the generator is trained at."""
        return [count for count in range(1, self.num_intervals + 1) if self.num_intervals % count == 0]

    @property
    def pair_settings(self) -> PairSettings:
        """What the reconstruction targets depend on."""
        return PairSettings(
            student_steps=self.student_steps,
            num_pairs=self.num_pairs,
            seed=self.pairs_seed,
            num_intervals=self.num_intervals,
            first_timestep_probability=self.first_timestep_probability,
            class_probability=self.class_probability,
            phrasing_probability=self.phrasing_probability,
            batch_size=self.sample_batch_size,
            precision=self.mixed_precision,
        )


def train(options: OneStepOptions, limits: RunLimits) -> bool:
    """Train the generator, its discriminator and its fake score; see `Trainer.fit` for the returned value."""
    source = load_velocity_pipeline(options.student)
    source.nfe(options.student_steps)  # refuses steps that the student was not distilled for
    if not source.config.guidance_distilled:
        raise ValueError(f"{options.student} samples with guidance; accepted is a student that has it folded in")
    if options.lambda_distribution:
        teacher, fake_score = (load_velocity_pipeline(folder).unet for folder in (options.teacher, options.fake_score))
    if options.lambda_perceptual:
        encoder = load_component(ImageEncoder, options.perceptual)
    generator = source.unet if options.weights is None else load_component(MobileUNet, options.weights)
    parts = FrozenParts.of(source)
    if limits.trial:
        options.num_pairs, options.reconstruction_steps = 16, 1
    trainer, data = setup(options, limits, parts)
    scheduler = UFOGenScheduler(prediction_type="v_prediction", distilled_num_inference_steps=options.step_counts)
    pipeline = make_pipeline(parts, generator, scheduler, options, guidance_distilled=True)
    unet = source.unet.to(trainer.device, memory_format=torch.channels_last)

    def conditioned(network: nn.Module) -> ConditionedNetwork:
        return ConditionedNetwork(network, data.conditioning, trainer.autocast)

    with trainer.accelerator.main_process_first():
        pairs = sample_pairs(
            conditioned(trainer.compiled(unet)), data, options.pair_settings, Path(options.pair_cache)
        )
    if options.lambda_perceptual:
        mean, std = latent_statistics(parts.vae)
        decoder = trainer.frozen(LatentDecoder(parts.vae))

        def decode(latents: torch.Tensor) -> torch.Tensor:
            with trainer.autocast():
                return decoder(latents * std + mean)

        loss = PerceptualLoss(encoder).to(trainer.device, memory_format=torch.channels_last)
        perceptual = LatentPerceptualLoss(loss, decode, pairs.latents, trainer.autocast)
    if options.lambda_adversarial:
        network = make_discriminator(unet)
        discriminator = conditioned(
            trainer.add(
                "discriminator",
                network,
                learning_rate=options.discriminator_learning_rate,
                betas=options.discriminator_betas,
                ema_decay=0.0,
            )
        )
        frozen_discriminator = conditioned(trainer.compiled(network))
    if options.lambda_distribution:
        teacher_network = conditioned(trainer.frozen(teacher))

        def guided_teacher(noisy, timesteps, caption_ids) -> torch.Tensor:
            return teacher_network.guided(
                noisy, timesteps, caption_ids, options.guidance_scale, options.guidance_interval
            )

        fake_score_network = conditioned(
            trainer.add("fake_score", fake_score, learning_rate=options.fake_score_learning_rate, ema_decay=0.0)
        )
    module = conditioned(trainer.add("generator", generator))
    timesteps = trailing_timesteps(options.num_intervals, trainer.device)
    loss_weights = {
        "loss_reconstruction": options.lambda_reconstruction,
        "loss_perceptual": options.lambda_perceptual,
        "loss_adversarial": options.lambda_adversarial,
        "loss_distribution": options.lambda_distribution,
    }

    def step_function(step: TrainingStep) -> dict[str, torch.Tensor]:
        draws = step.generator
        picked = torch.randint(0, len(pairs.caption_ids), step.indices.shape, generator=draws, device=trainer.device)
        caption_ids, target = pairs.caption_ids[picked], pairs.latents[picked].float()
        interval = pairs.interval[picked]
        t = timesteps[interval]
        alpha, sigma = alpha_sigma(t)
        noisy = pairs.noisy[picked].float().contiguous(memory_format=torch.channels_last)
        v = module(noisy, t, caption_ids)
        fake = Batch(sample_from_velocity(noisy, v, alpha, sigma), caption_ids)
        terms = {"loss_reconstruction": F.mse_loss(fake.latents, target)}
        if options.lambda_perceptual:
            terms["loss_perceptual"] = perceptual(fake.latents, picked)
        adversarial_on = step.index >= options.reconstruction_steps
        if options.lambda_adversarial and adversarial_on:
            if options.discriminator_timesteps == "next":
                adversarial_timesteps = timesteps[interval + 1]
            else:
                adversarial_timesteps = any_timesteps(
                    len(caption_ids), options.discriminator_interval, draws, trainer.device
                )
            terms["loss_adversarial"] = generator_loss(frozen_discriminator, fake, adversarial_timesteps, draws)
        if options.lambda_distribution and adversarial_on:
            terms["loss_distribution"] = distribution_matching_loss(guided_teacher, fake_score_network, fake, draws)
        trainer.update("generator", sum(loss_weights[name] * term for name, term in terms.items()))
        fake.latents = fake.latents.detach()
        if options.lambda_adversarial and adversarial_on and step.index % options.discriminator_every == 0:
            loss, figures = discriminator_loss(
                discriminator,
                data.draw(step),
                fake,
                adversarial_timesteps,
                draws,
                lambda_r1=options.lambda_r1,
                r1_deviation=options.r1_deviation,
            )
            trainer.update("discriminator", loss)
            terms |= figures
        if options.lambda_distribution and adversarial_on:
            for _ in range(options.fake_score_updates):
                terms["loss_fake_score"] = fake_score_loss(fake_score_network, fake, draws)
                trainer.update("fake_score", terms["loss_fake_score"])
        return terms

    return trainer.fit(step_function, exporter(pipeline), sampler(trainer, pipeline))


if __name__ == "__main__":
    run_stage(train, OneStepOptions)
