"""Measure a run's samples while it trains: distance, class accuracy, recall, and how far seeds lie apart.

The figures are of the judge's features, of few samples, which are drawn in the training's precision: they compare a
run with itself.
"""

import torch

from eval.extractors.base import extract_features
from eval.extractors.judge import judge_extractor
from eval.extractors.statistics import reference_statistics
from eval.metrics.accuracy import top_k_accuracy
from eval.metrics.frechet import feature_statistics, frechet_distance
from eval.metrics.manifold import NEIGHBOURS, manifold_metrics
from eval.metrics.nearest import pairwise_distance
from eval.samples.draw import batches_of, draw
from eval.samples.prompts import plan_samples
from mobilediff.captions import CLASS_NAMES
from mobilediff.pipeline import MobileDiffusionPipeline


class Monitor:
    """Draw the same samples every time: classes in turn, each sample from a seed of its own.

    Args:
        count: samples, a multiple of the ten classes; more than the judge has features.
        device: of the judge.
        batch_size: samples drawn at once.
    """

    def __init__(self, count: int, device: torch.device, batch_size: int = 250):
        self.count, self.device, self.batch_size, self.judge = count, device, batch_size, judge_extractor()
        self.statistics = reference_statistics(self.judge, "train")
        self.real = self.statistics.kept_features()[:count]

    @torch.no_grad()
    def __call__(self, pipeline: MobileDiffusionPipeline, num_inference_steps: int | None = None) -> dict[str, float]:
        """Measure `frechet_distance`, `class_accuracy`, `recall` and `seed_distance` of the pipeline's samples."""
        plan = plan_samples(self.count, "class", pipeline.config.class_template)
        images = []
        for seeds in batches_of(list(range(self.count)), self.batch_size, compiled=False):
            prompts = plan.prompts_of(seeds)
            images.append(draw(pipeline, "the run", seeds, prompt=prompts, num_inference_steps=num_inference_steps))
        names = (self.judge.layer, "class_logits")
        with torch.autocast(self.device.type, enabled=False):  # as the statistics were made
            extracted = extract_features(self.judge, torch.cat(images), names, device=self.device, progress=False)
        features, labels = extracted[self.judge.layer], torch.tensor(plan.class_labels)
        by_class = torch.stack([features[labels == label] for label in range(len(CLASS_NAMES))])
        return {
            "frechet_distance": frechet_distance(feature_statistics(features), self.statistics),
            "class_accuracy": top_k_accuracy(extracted["class_logits"], labels),
            "recall": manifold_metrics(self.real, features[: len(self.real)], k=NEIGHBOURS)["recall"],
            "seed_distance": pairwise_distance(by_class),
        }
