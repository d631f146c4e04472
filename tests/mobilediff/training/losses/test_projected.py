"""The discriminator of feature maps, on maps of its own."""

import pytest
import torch

from mobilediff.training.losses.projected import FeatureDiscriminator, feature_discriminator_loss, repainting_loss

CHANNELS, SIZES = (3, 5), (8, 4)


def maps(seed: int, shift: float = 0.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = zip(CHANNELS, SIZES, strict=True)
    return [torch.randn(2, count, size, size, generator=generator) + shift for count, size in shapes]


@pytest.fixture
def discriminator() -> FeatureDiscriminator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FeatureDiscriminator(CHANNELS)


MASKS = torch.zeros(2, 1, 16, 16)
MASKS[..., :8] = 1


def test_it_learns_to_tell_maps_apart_and_the_generator_follows(discriminator):
    real, fake = maps(0, 1.0), [one.requires_grad_() for one in maps(1, -1.0)]
    optimizer = torch.optim.Adam(discriminator.parameters(), 0.01)
    losses = []
    for _ in range(40):
        loss = feature_discriminator_loss(discriminator, real, [one.detach() for one in fake], MASKS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    before = repainting_loss(discriminator, fake, MASKS)
    gradients = torch.autograd.grad(before, fake)
    moved = [one - gradient for one, gradient in zip(fake, gradients, strict=True)]
    assert repainting_loss(discriminator, moved, MASKS) < before


def test_places_that_are_kept_count_for_nothing(discriminator):
    fake = [one.requires_grad_() for one in maps(1)]
    for gradient, size in zip(
        torch.autograd.grad(repainting_loss(discriminator, fake, MASKS), fake), SIZES, strict=True
    ):
        assert gradient[..., size // 2 :].count_nonzero() == 0 and gradient[..., : size // 2].count_nonzero() > 0


def test_the_generators_loss_leaves_the_discriminator_without_gradients(discriminator):
    repainting_loss(discriminator, [one.requires_grad_() for one in maps(1)], MASKS).backward()
    assert all(one.grad is None and one.requires_grad for one in discriminator.parameters())
