"""Moments of features, and their distance to those of real images."""

import pytest
import torch

from eval.metrics.frechet import feature_statistics, frechet_distance
from mobilediff.images import to_float
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.training.losses.moments import (
    PATCH_SIZE,
    MomentLoss,
    Moments,
    PictureMoments,
    frechet_terms,
    moment_features,
)
from tests.generators import generator
from tests.mobilediff.training.runs import TINY_IMAGES


def moments_of(features):
    moments = Moments()
    for batch in features.split(100):
        moments.add(batch)
    return moments


def correlated(count, seed, scale=1.0):
    values = torch.randn(count, 4, generator=generator(seed)) * scale
    mixing = torch.tensor([[1.0, 0.5, 0.0, 0.0], [0.0, 1.0, 0.3, 0.0], [0.0, 0.0, 0.5, 0.2], [0.0, 0.0, 0.0, 0.1]])
    return values @ mixing + torch.tensor([3.0, -1.0, 0.0, 0.5])


def test_features_are_of_whole_pictures_places_and_patches():
    images = torch.randn(2, 3, 8, 8, generator=generator(0))
    maps = [torch.randn(2, 5, 4, 4, generator=generator(1)), torch.randn(2, 6, 2, 2, generator=generator(2))]
    pooled, fine, coarse, patches = moment_features(images, maps)
    torch.testing.assert_close(pooled, torch.cat([m.mean((2, 3)) for m in maps], dim=1))
    torch.testing.assert_close(fine[4 * 1 + 2], maps[0][0, :, 1, 2])
    torch.testing.assert_close(coarse[4 + 3], maps[1][1, :, 1, 1])
    assert patches.shape == (2 * 4 * 4, 3 * PATCH_SIZE**2)
    torch.testing.assert_close(patches[4 * 1 + 2], images[0, :, 1 : 1 + PATCH_SIZE, 2 : 2 + PATCH_SIZE].flatten())


def test_mean_and_covariance_are_those_of_all_batches():
    features = correlated(250, 0)
    mean, covariance = moments_of(features).mean_and_covariance()
    torch.testing.assert_close(mean.float(), features.mean(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(covariance.float(), torch.cov(features.T, correction=0), atol=1e-5, rtol=0)


def test_the_distance_is_that_of_the_evaluation():
    first, second = torch.randn(500, 4, generator=generator(1)) * 1.5 + 0.3, correlated(500, 2)
    statistics = feature_statistics(second)
    variances, directions = torch.linalg.eigh(torch.from_numpy(statistics.sigma).float())
    turned = (first - torch.from_numpy(statistics.mu).float()) @ directions
    distance = frechet_terms(turned.mean(0), torch.cov(turned.T), variances)
    assert float(distance) == pytest.approx(frechet_distance(feature_statistics(first), statistics), rel=1e-4)


def test_real_features_are_at_no_distance_and_others_are():
    real = correlated(2000, 0)
    assert abs(float(MomentLoss(moments_of(real), 0.9)(real))) < 1e-4
    shifted, wider = MomentLoss(moments_of(real), 0.9), MomentLoss(moments_of(real), 0.9)
    assert float(shifted(real + 0.5)) > 0.05 and float(wider(2 * (real - real.mean(0)) + real.mean(0))) > 0.5


def test_a_direction_that_varies_little_counts_as_one_that_varies_much():
    real = torch.randn(5000, 2, generator=generator(0)) * torch.tensor([10.0, 1.0])
    changed = [real * torch.tensor([2.0, 1.0]), real * torch.tensor([1.0, 2.0])]
    much, little = (float(MomentLoss(moments_of(real), 0.9)(features)) for features in changed)
    assert little == pytest.approx(much, rel=0.15)


def test_the_value_is_of_the_running_moments_and_the_gradient_of_a_whole_batch():
    real, first, second = correlated(1000, 0), correlated(40, 1, 1.5), correlated(40, 2, 1.5).requires_grad_()
    loss = MomentLoss(moments_of(real), 0.9)
    loss(first)
    both = float(loss(second.detach()))  # the second step still takes the plain average
    assert both == pytest.approx(
        float(MomentLoss(moments_of(real), 0.9)(torch.cat([first, second.detach()]))), abs=1e-5
    )

    alone = MomentLoss(moments_of(real), 0.9)
    loss = MomentLoss(moments_of(real), 0.9)
    loss(second.detach())  # the running moments are the batch's own, so the gradients must be equal
    (expected,), (given,) = (torch.autograd.grad(each(second), second) for each in (alone, loss))
    torch.testing.assert_close(given, expected, atol=1e-6, rtol=1e-3)


def test_the_running_moments_forget():
    real = correlated(1000, 0)
    loss = MomentLoss(moments_of(real), 0.5)
    for _ in range(30):
        value = loss(real + 1.0)
    for _ in range(30):
        back = loss(real)
    assert abs(float(back)) < 1e-3 < float(value)


def test_pictures_are_at_no_distance_from_themselves_in_any_kind_and_darker_ones_are():
    encoder = ImageEncoder(**TINY_IMAGES).eval()
    images = torch.randint(0, 256, (600, 3, 8, 8), generator=generator(0), dtype=torch.uint8)  # more than a batch
    same, darker = (PictureMoments(images, encoder, 0.9) for _ in range(2))
    with torch.no_grad():
        terms, dark = (
            moments(pictures, encoder(pictures).feature_maps)
            for moments, pictures in ((same, to_float(images)), (darker, to_float(images) - 0.5))
        )
    assert [*terms] == [f"loss_moments_{kind}" for kind in range(4)]
    assert all(abs(float(terms[name])) < 1e-3 < 0.01 < float(dark[name]) for name in terms)
