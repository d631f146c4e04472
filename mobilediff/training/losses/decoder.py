"""Compare a decoder's images by pixels, feature maps and their moments, and a discriminator of patches.

The loss of a latent diffusion model's autoencoder (arXiv 2112.10752, section 3.1).
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import nn

from mobilediff.training.losses.perceptual import PerceptualLoss
from mobilediff.training.losses.weighted import weighted_sum

# Images [N, 3, H, W] and their feature maps, [N, C_i, H_i, W_i], to scalars by name.
MomentTerms = Callable[[torch.Tensor, Sequence[torch.Tensor]], dict[str, torch.Tensor]]


class PatchDiscriminator(nn.Sequential):
    """Map images to a logit for each patch (PatchGAN, arXiv 1611.07004, section 3.2.2).

    The images are [N, 3, H, W], the logits [N, 1, H / 4, W / 4].
    """

    def __init__(self, channels: tuple[int, ...] = (32, 64, 128)):
        layers = [nn.Conv2d(3, channels[0], 3, padding=1), nn.LeakyReLU(0.2)]
        for inner, outer in zip(channels, channels[1:], strict=False):
            layers += [nn.Conv2d(inner, outer, 4, stride=2, padding=1), nn.GroupNorm(8, outer), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.Conv2d(channels[-1], 1, 3, padding=1))


def hinge_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Compute the discriminator's hinge loss on real and fake logits (arXiv 1705.02894, eq. 4).

    Args:
        real, fake: logits of any shape.

    Returns:
        A scalar.
    """
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def scaled_like(gradient: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Scale `gradient` to the norm of `other`; tensors of any shape."""
    return gradient * (other.norm() / gradient.norm().clamp(min=1e-12))


def gradient_in(image: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
    """Compute d loss / d image of a leaf.

    Adds to the gradient of every other leaf that requires one.

    Args:
        image: the leaf, [N, 3, H, W].
        loss: a scalar.

    Returns:
        [N, 3, H, W].
    """
    image.grad = None
    loss.backward()
    return image.grad  # pyright: ignore[reportReturnType] - of the call above


class DecoderLoss:
    """Compare decoded images with targets, the terms' gradients balanced in the images.

    Args:
        perceptual: compares feature maps of images and targets.
        pixel_loss: of float images and targets, a scalar.
        lambda_perceptual: weight of the perceptual term.
        discriminator: not wrapped for several devices (see `adversarial.generator_loss`); None for no such term.
        lambda_adversarial: norm of its gradient in the images, as a fraction of the other terms'.
        autocast: makes the context of the networks' forward passes.
    """

    def __init__(
        self,
        perceptual: PerceptualLoss,
        pixel_loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        *,
        lambda_perceptual: float,
        discriminator: nn.Module | None = None,
        lambda_adversarial: float = 0.0,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
    ):
        self.perceptual, self.pixel_loss, self.discriminator = perceptual, pixel_loss, discriminator
        self.lambda_perceptual, self.lambda_adversarial = lambda_perceptual, lambda_adversarial
        self.autocast = autocast

    def __call__(
        self,
        decoded: torch.Tensor,
        targets: torch.Tensor,
        adversarial_on: bool,
        moments: MomentTerms | None = None,
        lambda_moments: float = 0.0,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the terms and their gradient in the decoded images.

        Args:
            decoded: float images [N, 3, H, W] in [-1, 1], with a gradient.
            targets: float images [N, 3, H, W] in [-1, 1].
            adversarial_on: whether the adversarial term's gradient counts; the term is logged either way.
            moments: further terms, of images and their feature maps; None for none.
            lambda_moments: weight of each of these.

        Returns:
            `loss`, a surrogate to call backward on (its value has no meaning), and the loss terms for the log.
        """
        output = decoded.detach().requires_grad_()
        terms = {"loss_reconstruction": self.pixel_loss(output, targets)}
        with self.autocast():
            terms["loss_perceptual"], maps = self.perceptual.compare(output, targets)
        loss = terms["loss_reconstruction"] + self.lambda_perceptual * terms["loss_perceptual"]
        if moments is not None:
            further = moments(output, maps)
            loss = loss + weighted_sum(further, dict.fromkeys(further, lambda_moments))
            terms |= further
        gradient = gradient_in(output, loss)
        if self.discriminator is not None:
            self.discriminator.requires_grad_(False)
            with self.autocast():
                terms["loss_adversarial"] = -self.discriminator(output).float().mean()
            if adversarial_on:
                towards_real = gradient_in(output, terms["loss_adversarial"])
                gradient = gradient + self.lambda_adversarial * scaled_like(towards_real, gradient)
            self.discriminator.requires_grad_(True)
        return (decoded * gradient).sum(), terms


def patch_discriminator_loss(
    discriminator: nn.Module,
    real: torch.Tensor,
    decoded: torch.Tensor,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Compute the hinge loss of as many real images as decoded ones.

    Args:
        discriminator: logits of images.
        real, decoded: float images [N, 3, H, W] in [-1, 1]; no gradient reaches them.
        autocast: makes the context of the forward pass.

    Returns:
        The loss, a scalar, and figures for the log: it, and the fractions of real and fake logits on their side of 0.
    """
    with autocast():
        logits_real, logits_fake = discriminator(torch.cat([real, decoded.detach()])).float().chunk(2)
    loss = hinge_loss(logits_real, logits_fake)
    return loss, {
        "loss_discriminator": loss,
        "real_fraction": (logits_real > 0).float().mean(),
        "fake_fraction": (logits_fake < 0).float().mean(),
    }
