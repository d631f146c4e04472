"""Measure a network by a small set of samples that is the same each time, to compare networks with each other."""

import statistics
from collections.abc import Sequence

import torch

from eval.extractors.base import extract_features
from eval.extractors.clip import ClipModel, bundled_clip
from eval.extractors.judge import judge_extractor
from eval.extractors.statistics import reference_statistics
from eval.measures.clip_score import clip_score
from eval.metrics.frechet import check_count, feature_statistics, frechet_distance
from eval.samples.draw import batches_of, draw
from eval.samples.prompts import plan_samples
from mobilediff.compression.evolution import Quality
from mobilediff.pipeline import MobileDiffusionPipeline


class FixedSet:
    """Draw the same samples of a pipeline: classes in turn, each sample from a seed of its own.

    Args:
        count: samples; more than the judge has features.
        device: of judge and CLIP.
        batch_size: samples drawn at once.
        clip: None for the bundled one.

    Raises:
        ValueError: too few samples.
    """

    def __init__(self, count: int, device: torch.device, batch_size: int = 100, clip: ClipModel | None = None):
        self.count, self.device, self.batch_size, self.judge = count, device, batch_size, judge_extractor()
        self.reference = reference_statistics(self.judge, "train")
        check_count(count, len(self.reference.mu))
        self.clip = clip or bundled_clip(device=device)

    def protocol(self) -> dict:
        """Return the set's part of a protocol."""
        judge = {f"judge_{key}": value for key, value in self.judge.protocol().items()}
        return {"n": self.count, "reference": "train"} | judge | self.clip.protocol()

    @torch.no_grad()
    def __call__(self, pipeline: MobileDiffusionPipeline, seed: int) -> Quality:
        """Measure the pipeline's samples of the seeds from `seed` on, at its default steps and guidance."""
        plan, images = plan_samples(self.count, "class", pipeline.config.class_template), []
        for indices in batches_of(list(range(self.count)), self.batch_size, compiled=False):
            seeds = [seed + index for index in indices]
            images.append(draw(pipeline, "the network", seeds, prompt=plan.prompts_of(indices)))
        drawn, layer = torch.cat(images), self.judge.layer
        features = extract_features(self.judge, drawn, (layer,), device=self.device, progress=False)[layer]
        return Quality(
            clip_score=clip_score(self.clip, drawn, plan.prompts or [], progress=False),
            frechet_distance=frechet_distance(feature_statistics(features), self.reference),
        )

    def noise(self, pipeline: MobileDiffusionPipeline, seed: int, sets: int) -> Quality:
        """Return the standard deviation (n - 1) of each figure over sets of samples, that from `seed` on the first.

        Args:
            pipeline: to draw with.
            seed: of the first set; the others follow it.
            sets: two or more.
        """
        return spread([self(pipeline, seed + turn * self.count) for turn in range(sets)])


def spread(qualities: Sequence[Quality]) -> Quality:
    """Return the standard deviation (n - 1) of each figure."""
    return Quality(
        clip_score=statistics.stdev(one.clip_score for one in qualities),
        frechet_distance=statistics.stdev(one.frechet_distance for one in qualities),
    )
