"""One pass of an extractor feeds every figure of a set of images."""

import eval.extractors.features
from eval.extractors.base import extract_features
from eval.extractors.features import FeatureSet
from eval.measures.accuracy import measure_accuracy
from eval.measures.frechet import measure_frechet_distance
from eval.measures.quality import measure_quality
from tests.eval.stand_ins import random_images


def test_distance_quality_and_accuracy_take_one_pass(judge, monkeypatch):
    passes = []

    def extract(*args, **options):
        passes.append(args)
        return extract_features(*args, **options)

    monkeypatch.setattr(eval.extractors.features, "extract_features", extract)
    images = random_images(60)
    measured = FeatureSet(images)
    together = [measure_accuracy(measured, judge), measure_frechet_distance(measured, judge, resamples=0)]
    together.append(measure_quality(measured, judge))
    assert len(passes) == 1
    alone = [
        measure_accuracy(FeatureSet(images), judge),
        measure_frechet_distance(FeatureSet(images), judge, resamples=0),
    ]
    alone.append(measure_quality(FeatureSet(images), judge))
    assert len(passes) == 4 and together == alone
