"""Stage `one_step`: UFOGen (arXiv 2311.09257), or DMD2 (arXiv 2405.14867) where distributions are matched too.

Generator and discriminator start from the few-step student, or the generator from weights of its own. The generator
has up to four terms: reconstruction of what that student makes of the same noise, by latents and by feature maps, the
adversarial one, and distribution matching with a teacher.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from mobilediff.checkpoints import load_component
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.models.mobile_unet import MobileUNet
from mobilediff.pipeline import checked_interval
from mobilediff.schedulers.ufogen import UFOGenScheduler
from mobilediff.training.critic import Critic
from mobilediff.training.distribution_matching import DistributionMatcher, any_timesteps
from mobilediff.training.generator import (
    Batch,
    FrozenParts,
    GeneratorOptions,
    exporter,
    load_velocity_pipeline,
    make_pipeline,
    noise_scheduler,
    sampler,
    setup,
    trailing_timesteps,
    velocities,
)
from mobilediff.training.losses import alpha_sigma, sample_from_velocity
from mobilediff.training.options import RunLimits, run_stage
from mobilediff.training.pairs import sample_pairs
from mobilediff.training.perceptual import LatentPerceptualLoss
from mobilediff.training.trainer import TrainingStep


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
        first_timestep_probability: share of the targets from pure noise; the others are spread evenly over all
            timesteps.
        reconstruction_steps: first steps, with the reconstruction term alone.
        lambda_reconstruction, lambda_perceptual, lambda_adversarial, lambda_distribution: weights of the generator's
            terms; of the last three, one at 0 is not computed.
        perceptual: folder of the trained `ImageEncoder` whose feature maps of the decoded samples are compared with
            those of the targets, where that has a weight: the reconstruction loss of DMD (arXiv 2311.18828, section
            3.3) is such a one.
        discriminator_learning_rate, discriminator_betas: of the second optimiser.
        discriminator_every: generator steps a discriminator step.
        critic_timesteps: where real and fake are told apart: at the "next" of the timesteps, t - delta (UFOGen),
            or at "any" of `critic_interval`, evenly, so that fine detail of one-step samples is judged too (DMD2).
        critic_interval: from where to where that is, as shares of the timesteps.
        lambda_r1: weight of the approximated R1 penalty; at 0 it is not computed. R1 itself needs a second
            derivative, which neither torch.compile nor fused attention has.
        r1_deviation: size of the perturbation in it.
        teacher: pipeline folder of the network whose guided score the samples are to follow, where distributions are
            matched.
        guidance_scale: of that teacher.
        guidance_interval: from where to where it applies (arXiv 2404.07724), as shares of the timesteps.
        follower: pipeline folder of the network that learns the score of the generator's samples, from its weights on.
        follower_learning_rate: of its optimiser.
        follower_updates: of it, a generator step.
    """

    POSITIVE = (*GeneratorOptions.POSITIVE, "num_pairs", "num_intervals", "discriminator_every", "follower_updates")

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
    critic_timesteps: str = "next"
    critic_interval: tuple[float, float] = (0.02, 0.98)
    lambda_r1: float = 1.0
    r1_deviation: float = 0.05
    teacher: str = ""
    guidance_scale: float = 3.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    follower: str = ""
    follower_learning_rate: float = 1e-4
    follower_updates: int = 1

    def __post_init__(self):
        super().__post_init__()
        checked_interval(self.guidance_interval)
        checked_interval(self.critic_interval)
        if self.student_steps % self.num_intervals:
            raise ValueError(
                f"student_steps is {self.student_steps}; accepted are multiples of num_intervals, {self.num_intervals}"
            )
        if self.critic_timesteps not in ("next", "any"):
            raise ValueError(f"critic_timesteps is {self.critic_timesteps!r}; accepted are 'next' and 'any'")
        if self.null_probability:  # of real images alone: the critic would take the null prompt for a mark of them
            raise ValueError(f"null_probability is {self.null_probability}; accepted is 0")
        if self.default_num_inference_steps not in self.step_counts:
            raise ValueError(
                f"default_num_inference_steps is {self.default_num_inference_steps}; accepted are {self.step_counts}"
            )
        if not 0 <= self.first_timestep_probability <= 1:
            raise ValueError(
                f"first_timestep_probability is {self.first_timestep_probability}; accepted are shares from 0 to 1"
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


def train(options: OneStepOptions, limits: RunLimits) -> bool:
    """Train the generator and what judges it; see `Trainer.fit` for the returned value."""
    source = load_velocity_pipeline(options.student)
    source.nfe(options.student_steps)  # refuses steps that the student was not distilled for
    if not source.config.guidance_distilled:
        raise ValueError(f"{options.student} samples with guidance; accepted is a student that has it folded in")
    if options.lambda_distribution:
        teacher, follower = (load_velocity_pipeline(folder).unet for folder in (options.teacher, options.follower))
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
    with trainer.accelerator.main_process_first():
        pairs = sample_pairs(unet, data, trainer)
    perceptual = critic = matcher = None
    if options.lambda_perceptual:
        perceptual = LatentPerceptualLoss(trainer, encoder, parts.vae, pairs.latents)
    if options.lambda_adversarial:
        critic = Critic(trainer, unet, data.conditioning)
    if options.lambda_distribution:
        matcher = DistributionMatcher(trainer, teacher, follower, data.conditioning)
    module = trainer.add("generator", generator)
    alphas_cumprod = noise_scheduler().alphas_cumprod.to(trainer.device)
    grid = trailing_timesteps(options.num_intervals, trainer.device)
    weights = {
        "loss_reconstruction": options.lambda_reconstruction,
        "loss_perceptual": options.lambda_perceptual,
        "loss_adversarial": options.lambda_adversarial,
        "loss_distribution": options.lambda_distribution,
    }

    def step_function(step: TrainingStep) -> dict[str, torch.Tensor]:
        draws = step.generator
        picked = torch.randint(0, len(pairs.rows), step.indices.shape, generator=draws, device=trainer.device)
        rows, target = pairs.rows[picked], pairs.latents[picked].float()
        interval = pairs.interval[picked]
        timesteps = grid[interval]
        alpha, sigma = alpha_sigma(alphas_cumprod, timesteps)
        noisy = pairs.noisy[picked].float().contiguous(memory_format=torch.channels_last)
        v, _ = velocities(module, data.conditioning, trainer, noisy, timesteps, rows)
        fake = Batch(sample_from_velocity(noisy, v, alpha, sigma), rows)
        terms = {"loss_reconstruction": F.mse_loss(fake.latents, target)}
        if perceptual:
            terms["loss_perceptual"] = perceptual(fake.latents, picked)
        judged = step.index >= options.reconstruction_steps
        if critic and judged:
            if options.critic_timesteps == "next":
                judged_at = grid[interval + 1]
            else:
                judged_at = any_timesteps(rows, options.critic_interval, draws)
            terms["loss_adversarial"] = critic.generator_loss(fake, judged_at, draws)
        if matcher and judged:
            terms["loss_distribution"] = matcher.generator_loss(fake, draws)
        trainer.update("generator", sum(weights[name] * term for name, term in terms.items()))
        fake.latents = fake.latents.detach()
        if critic and judged and step.index % options.discriminator_every == 0:
            terms |= critic.train(data.draw(step), fake, judged_at, draws)
        if matcher and judged:
            terms |= matcher.train(fake, draws)
        return terms

    return trainer.fit(step_function, exporter(pipeline), sampler(trainer, pipeline))


if __name__ == "__main__":
    run_stage(train, OneStepOptions)
