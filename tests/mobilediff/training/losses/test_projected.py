"""The discriminator of feature maps, on maps of its own."""

import pytest
import torch
import torch.nn.functional as F

from mobilediff.training.losses.projected import FeatureDiscriminator, feature_discriminator_loss, repainting_loss

CHANNELS, SIZES, TEXT_DIM = (3, 5), (8, 4), 6


def maps(seed: int, shift: float = 0.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = zip(CHANNELS, SIZES, strict=True)
    return [torch.randn(2, count, size, size, generator=generator) + shift for count, size in shapes]


@pytest.fixture
def discriminator() -> FeatureDiscriminator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FeatureDiscriminator(CHANNELS, TEXT_DIM)


MASKS = torch.zeros(2, 1, 16, 16)
MASKS[..., :8] = 1
TEXT = torch.randn(2, TEXT_DIM, generator=torch.Generator().manual_seed(2))


def test_it_learns_to_tell_maps_apart_and_the_generator_follows(discriminator):
    real, fake = maps(0, 1.0), [one.requires_grad_() for one in maps(1, -1.0)]
    optimizer = torch.optim.Adam(discriminator.parameters(), 0.01)
    losses = []
    for _ in range(40):
        loss = feature_discriminator_loss(discriminator, real, [one.detach() for one in fake], MASKS, TEXT)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    before = repainting_loss(discriminator, fake, MASKS, TEXT)
    gradients = torch.autograd.grad(before, fake)
    moved = [one - gradient for one, gradient in zip(fake, gradients, strict=True)]
    assert repainting_loss(discriminator, moved, MASKS, TEXT) < before


def test_places_that_are_kept_count_for_nothing(discriminator):
    fake = [one.requires_grad_() for one in maps(1)]
    for gradient, size in zip(
        torch.autograd.grad(repainting_loss(discriminator, fake, MASKS, TEXT), fake), SIZES, strict=True
    ):
        assert gradient[..., size // 2 :].count_nonzero() == 0 and gradient[..., : size // 2].count_nonzero() > 0


def test_the_generators_loss_leaves_the_discriminator_without_gradients(discriminator):
    repainting_loss(discriminator, [one.requires_grad_() for one in maps(1)], MASKS, TEXT).backward()
    assert all(one.grad is None and one.requires_grad for one in discriminator.parameters())


def test_it_learns_which_text_belongs_to_an_image(discriminator):
    sides = torch.tensor([1.0, -1.0])[:, None, None, None]  # where the features of the two images are
    features, texts = [one + 3 * sides for one in maps(0)], torch.cat([TEXT, TEXT.flip(0)])
    both = [torch.cat([one, one]) for one in features]  # each image with its own text, then with the other's
    optimizer = torch.optim.Adam(discriminator.parameters(), 0.01)
    for _ in range(200):
        halves = [logits.chunk(2) for logits in discriminator(both, torch.cat([MASKS, MASKS]), texts)]
        loss = sum(F.softplus(-own).mean() + F.softplus(other).mean() for own, other in halves)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(own.mean() > 1 > -1 > other.mean() for own, other in halves)
