"""The losses of a decoder and of its discriminator."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mobilediff.training.losses.decoder import (
    DecoderLoss,
    PatchDiscriminator,
    gradient_in,
    hinge_loss,
    patch_discriminator_loss,
    scaled_like,
)
from tests.mobilediff.training.losses.overfit import overfit


@pytest.mark.slow
def test_a_decoder_that_sees_one_batch_learns_its_pixels_and_features(perceptual_loss):
    torch.manual_seed(0)
    decoder = nn.Sequential(
        nn.Conv2d(4, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 12, 3, padding=1), nn.PixelShuffle(2)
    )
    latents = torch.randn(1, 4, 16, 16)
    with torch.no_grad():
        targets = torch.tanh(F.interpolate(latents[:, :3], scale_factor=2))
    loss, logged = DecoderLoss(perceptual_loss, F.l1_loss, lambda_perceptual=0.5), []

    def surrogate() -> torch.Tensor:
        value, terms = loss(decoder(latents), targets, adversarial_on=False)
        logged.append({name: term.item() for name, term in terms.items()})
        return value

    overfit(decoder.parameters(), surrogate, steps=100)
    assert set(logged[0]) == {"loss_reconstruction", "loss_perceptual"}
    assert all(logged[-1][name] < logged[0][name] / 4 for name in logged[0]), logged[:: len(logged) - 1]


def test_the_surrogates_gradient_is_that_of_the_weighted_terms(perceptual_loss):
    torch.manual_seed(0)
    decoded, targets = torch.randn(2, 3, 16, 16, requires_grad=True), torch.randn(2, 3, 16, 16)
    surrogate, _ = DecoderLoss(perceptual_loss, F.mse_loss, lambda_perceptual=0.3)(
        decoded, targets, adversarial_on=True
    )
    surrogate.backward()
    gradient, decoded.grad = decoded.grad, None
    (F.mse_loss(decoded, targets) + 0.3 * perceptual_loss(decoded, targets)).backward()
    torch.testing.assert_close(gradient, decoded.grad)


def test_moments_see_the_images_and_their_maps_and_join_the_gradient_by_their_weight(perceptual_loss):
    torch.manual_seed(0)
    decoded, targets = torch.randn(2, 3, 16, 16, requires_grad=True), torch.randn(2, 3, 16, 16)

    def moments(images, maps):
        return {"loss_brightness": images[1:].mean().square(), "loss_map": maps[0][1:].mean()}

    loss, gradients = DecoderLoss(perceptual_loss, F.mse_loss, lambda_perceptual=0.3), []
    for lambda_moments in (0.0, 0.5):
        decoded.grad = None
        surrogate, terms = loss(decoded, targets, False, moments, lambda_moments)
        surrogate.backward()
        gradients.append(decoded.grad)
    expected = moments(decoded, perceptual_loss.encoder(decoded).feature_maps)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)
    decoded.grad = None
    sum(expected.values()).backward()
    torch.testing.assert_close(gradients[1] - gradients[0], 0.5 * decoded.grad, atol=1e-6, rtol=1e-4)


def test_the_adversarial_gradient_has_its_fraction_of_the_norm_and_raises_the_logits(perceptual_loss):
    torch.manual_seed(0)
    discriminator = PatchDiscriminator((8, 16))
    decoded, targets = torch.randn(2, 3, 16, 16, requires_grad=True), torch.randn(2, 3, 16, 16)
    loss = DecoderLoss(
        perceptual_loss, F.mse_loss, lambda_perceptual=0.3, discriminator=discriminator, lambda_adversarial=0.5
    )
    gradients = []
    for adversarial_on in (False, True):
        decoded.grad = None
        surrogate, terms = loss(decoded, targets, adversarial_on)
        assert "loss_adversarial" in terms
        surrogate.backward()
        gradients.append(decoded.grad)
    added = gradients[1] - gradients[0]
    torch.testing.assert_close(added.norm(), 0.5 * gradients[0].norm())
    with torch.no_grad():
        assert discriminator(decoded - 0.01 * added).mean() > discriminator(decoded).mean()
    assert all(p.grad is None and p.requires_grad for p in discriminator.parameters())


def test_a_patch_discriminator_that_sees_one_batch_tells_it_apart():
    torch.manual_seed(0)
    discriminator, real, decoded = PatchDiscriminator((8, 16)), torch.rand(4, 3, 16, 16), torch.randn(4, 3, 16, 16)
    decoded.requires_grad_()
    first, last = overfit(
        discriminator.parameters(), lambda: patch_discriminator_loss(discriminator, real, decoded)[0]
    )
    assert last < first / 4
    assert decoded.grad is None
    figures = patch_discriminator_loss(discriminator, real, decoded)[1]
    assert figures["real_fraction"] > 0.9 and figures["fake_fraction"] > 0.9


def test_the_discriminators_gradient_points_to_what_it_calls_real():
    torch.manual_seed(0)
    discriminator, images = PatchDiscriminator(), torch.randn(2, 3, 32, 32, requires_grad=True)
    logits = discriminator(images)
    assert logits.shape == (2, 1, 8, 8)
    other = torch.randn_like(images)
    gradient = gradient_in(images, -logits.mean())
    scaled = scaled_like(gradient, other)
    torch.testing.assert_close(scaled.norm(), other.norm())
    torch.testing.assert_close(torch.cosine_similarity(scaled.flatten(), gradient.flatten(), dim=0), torch.tensor(1.0))
    assert discriminator(images - 0.01 * scaled).mean() > logits.mean()
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.0, 1.0])
    assert hinge_loss(real, fake).item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3)
