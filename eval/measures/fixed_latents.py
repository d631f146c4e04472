"""Measure how far a changed network's latents are from the unchanged one's, on the same prompts and noise."""

import torch

from eval.samples.draw import batches_of
from eval.samples.prompts import plan_samples
from mobilediff.pipeline import MobileDiffusionPipeline


def relative_error(latents: torch.Tensor, expected: torch.Tensor) -> float:
    """Return |latents - expected| / |expected|, Euclidean norms over all of two tensors of one shape."""
    difference = torch.linalg.vector_norm(latents.double() - expected.double())
    return (difference / torch.linalg.vector_norm(expected.double())).item()


class FixedLatents:
    """Compare a pipeline's latents with those that it gives when it is handed over.

    Each sample has a seed of its own and both networks get the same ones. So the error is of the network alone, and
    far fewer samples show it than a distance between distributions needs.

    Args:
        pipeline: with the unchanged network.
        count: samples, classes in turn.
        seed: of the first sample.
        batch_size: samples drawn at once.
    """

    def __init__(self, pipeline: MobileDiffusionPipeline, count: int, seed: int = 0, batch_size: int = 100):
        self.count, self.seed, self.batch_size = count, seed, batch_size
        self.expected = self.draw(pipeline)

    def error(self, pipeline: MobileDiffusionPipeline) -> float:
        """Return the relative error of the latents that the pipeline gives now."""
        return relative_error(self.draw(pipeline), self.expected)

    def draw(self, pipeline: MobileDiffusionPipeline) -> torch.Tensor:
        """Draw the latents at the pipeline's default steps and guidance, [count, C, H, W]."""
        plan, drawn = plan_samples(self.count, "class", pipeline.config.class_template), []
        for indices in batches_of(list(range(self.count)), self.batch_size, compiled=False):
            generators = [torch.Generator("cpu").manual_seed(self.seed + index) for index in indices]
            prompts = plan.prompts_of(indices)
            drawn.append(pipeline(prompt=prompts, generator=generators, output_type="latent").images)
        return torch.cat(drawn)
