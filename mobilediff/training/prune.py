"""Stage `prune`: prune the one-step student, then repair it against its unpruned self."""

from dataclasses import dataclass

import torch

from mobilediff.compression.pruning import METHODS, check_pruning_ratio, prune_channels, prune_weights
from mobilediff.diffusion import diffuse, sample_from_velocity, trailing_timesteps
from mobilediff.training.data.conditioning import ConditionedNetwork
from mobilediff.training.data.latents import setup
from mobilediff.training.engine.options import GeneratorOptions, RunLimits, run_stage
from mobilediff.training.engine.pipelines import FrozenParts, exporter, load_velocity_pipeline, make_pipeline, sampler
from mobilediff.training.engine.trainer import TrainingStep


@dataclass
class PruneOptions(GeneratorOptions):
    """Options of the stage; VAE and text encoder are the student's.

    Attributes:
        student: pipeline folder of the one-step student.
        method: "structured" (whole channels) or "unstructured" (single weights, L1, as MobileGen).
        pruning_ratio: fraction to remove.
        num_intervals: timesteps of the repair, those of the student's own training.
    """

    POSITIVE = (*GeneratorOptions.POSITIVE, "num_intervals")

    student: str = ""
    method: str = "structured"
    pruning_ratio: float = 0.3
    num_intervals: int = 4

    def __post_init__(self):
        super().__post_init__()
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}; accepted are {', '.join(METHODS)}")
        check_pruning_ratio(self.pruning_ratio)


def train(options: PruneOptions, limits: RunLimits) -> bool:
    """Prune and repair; see `Trainer.fit` for the returned value."""
    source = load_velocity_pipeline(options.student)
    parts = FrozenParts.of(source)
    trainer, data = setup(options, limits, parts)
    teacher = ConditionedNetwork(trainer.frozen(source.unet), data.conditioning, trainer.autocast)
    if options.method == "structured":
        unet = prune_channels(source.unet, options.pruning_ratio)
    else:
        unet = prune_channels(source.unet, 0.0)  # a copy
        parameters = dict(unet.named_parameters())
        for name, mask in prune_weights(unet, options.pruning_ratio).items():
            parameters[name].register_hook(mask.mul)  # without a gradient a pruned weight stays 0
    student = ConditionedNetwork(trainer.add("unet", unet), data.conditioning, trainer.autocast)
    pipeline = make_pipeline(parts, unet, source.scheduler, options, guidance_distilled=True)
    timesteps = trailing_timesteps(options.num_intervals, trainer.device)

    def step_function(step: TrainingStep) -> dict[str, torch.Tensor]:
        batch = data.draw(step)
        interval = torch.randint(
            0, options.num_intervals, batch.caption_ids.shape, generator=step.generator, device=trainer.device
        )
        t = timesteps[interval]
        z = diffuse(batch.latents, t, step.generator)
        with torch.no_grad():
            expected = teacher(z.noisy, t, batch.caption_ids)
        prediction = student(z.noisy, t, batch.caption_ids)
        samples = [sample_from_velocity(z.noisy, v, z.alpha, z.sigma) for v in (prediction, expected)]
        loss_kd_output = (samples[0] - samples[1]).square().mean()
        trainer.update("unet", loss_kd_output)
        return {"loss_kd_output": loss_kd_output}

    return trainer.fit(step_function, exporter(pipeline), sampler(trainer, pipeline))


if __name__ == "__main__":
    run_stage(train, PruneOptions)
