"""One pass of an extractor feeds every figure of a set of images."""

import torch

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


def test_features_of_whole_batches_are_taken_over_to_the_last_bit(judge, monkeypatch):
    extracted = []

    def extract(extractor, images, *args, **options):
        extracted.append(len(images))
        return extract_features(extractor, images, *args, **options)

    monkeypatch.setattr(eval.extractors.features, "extract_features", extract)
    images = random_images(620)
    measured = FeatureSet(images.first(510))
    measured.of(judge)
    longer = FeatureSet(images, first=measured).of(judge)
    assert extracted == [510, 120]  # from the last batch that was full
    at_once = FeatureSet(images).of(judge)
    assert longer.keys() == at_once.keys() and all(torch.equal(longer[name], at_once[name]) for name in at_once)
