"""What a run's samples are worth while it trains: distance, class accuracy, recall, and how far seeds lie apart.

The figures are of the judge's features, of few samples and in the training's precision: they compare a run with
itself.
"""

import torch

from eval.accuracy import top_k_accuracy
from eval.copies import pairwise_distance
from eval.extractors import extract_features, judge_extractor
from eval.fid import frechet_distance
from eval.gaussian import feature_statistics
from eval.manifold import manifold_metrics
from eval.quality import NEIGHBOURS
from eval.reference import reference_statistics
from eval.sampling import plan_samples
from mobilediff.captions import CLASS_NAMES
from mobilediff.pipeline import MobileDiffusionPipeline

BATCH_SIZE = 100


class Watch:
    """Draws the same samples every time: classes in turn, each sample from a seed of its own.

    Args:
        count: samples, a multiple of the ten classes; more than the judge has features.
        device: of the judge.
    """

    def __init__(self, count: int, device: torch.device):
        self.count, self.device, self.judge = count, device, judge_extractor()
        self.statistics = reference_statistics(self.judge, "train")
        self.real = self.statistics.kept_features()[:count]

    def __call__(self, pipeline: MobileDiffusionPipeline, num_inference_steps: int | None = None) -> dict[str, float]:
        """`distance`, `class_accuracy`, `recall` and `seed_distance` of the pipeline's samples as it stands."""
        plan = plan_samples(self.count, "class", pipeline.config.class_template)
        images = []
        for start in range(0, self.count, BATCH_SIZE):
            batch = range(start, min(start + BATCH_SIZE, self.count))
            output = pipeline(
                prompt=[plan.prompts[index] for index in batch],
                num_inference_steps=num_inference_steps,
                generator=[torch.Generator().manual_seed(index) for index in batch],
                output_type="pt",
            )
            images.append((output.images.cpu() * 255).round().to(torch.uint8))
        names = (self.judge.layer, "class_logits")
        extracted = extract_features(self.judge, torch.cat(images), names, device=self.device, progress=False)
        features, labels = extracted[self.judge.layer], torch.tensor(plan.class_labels)
        by_class = torch.stack([features[labels == label] for label in range(len(CLASS_NAMES))])
        return {
            "distance": frechet_distance(feature_statistics(features), self.statistics),
            "class_accuracy": top_k_accuracy(extracted["class_logits"], labels),
            "recall": manifold_metrics(self.real, features[: len(self.real)], k=NEIGHBOURS)["recall"],
            "seed_distance": pairwise_distance(by_class),
        }
