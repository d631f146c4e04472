"""The distance under an extractor from outside stands beside the judge's, of the same images."""

from dataclasses import replace

import pytest

from eval.extractors.base import extract_features
from eval.extractors.features import FeatureSet
from eval.measures.outside import measure_outside
from eval.metrics.frechet import feature_statistics, frechet_distance
from eval.samples.images import resized
from eval.schema import Record
from mobilediff.images import resize_images
from tests.eval.stand_ins import random_images


def test_both_distances_are_of_the_same_images(judge, outside):
    images, training = random_images(40), random_images(200, 1)
    result = measure_outside(FeatureSet(images), outside, resamples=40)
    for extractor in (judge, outside):
        key = extractor.result_key
        of_samples, of_training = (
            feature_statistics(extract_features(extractor, one.images, (extractor.layer,))[extractor.layer])
            for one in (images, training)
        )
        assert result[key] == pytest.approx(frechet_distance(of_samples, of_training), rel=1e-6)
        interval = result["intervals"][key]
        assert 0 <= interval["low"] < interval["high"] and interval["resamples"] == 40
    assert result[judge.result_key] != result[outside.result_key]
    protocol = result["protocol"]
    assert (protocol["extractor_sha256"], protocol["judge_sha256"]) == (outside.sha256, judge.sha256)
    assert result["samples"] == images.protocol and result["n"] == 40
    assert (
        Record.model_validate({"outside": result}).model_dump()["outside"][judge.result_key]
        == result[judge.result_key]
    )


def test_larger_images_are_shrunk_for_both(judge, outside):
    images = random_images(40)
    large = replace(images, images=resize_images(images.images, 64))
    result = measure_outside(FeatureSet(large), replace(outside, input_size=None), resamples=40)
    assert result["protocol"]["resized"] == "Lanczos (Pillow), from 64x64"
    shrunk = measure_outside(FeatureSet(resized(large, 32)), outside, resamples=40)
    assert all(result[one.result_key] == shrunk[one.result_key] for one in (judge, outside))
    assert "resized" not in shrunk["protocol"]
    Record.model_validate({"outside": result})


def test_too_few_images_are_refused(outside):
    with pytest.raises(ValueError, match="8 images are too few"):
        measure_outside(FeatureSet(random_images(8)), outside)
