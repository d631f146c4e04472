"""Match mean and covariance of features of drawn pictures to those of real images.

Moments of a frozen encoder's features, averaged over many steps, teach a generator without a discriminator (GFMN,
arXiv 1904.02762, section 3.2). They are compared by the Frechet distance of the Gaussians that have them (arXiv
1706.08500, equation 6).
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from mobilediff.images import to_float

PATCH_SIZE = 5
REAL_BATCH_SIZE = 500
# Of the mean variance: directions that vary less count less.
SHRINKAGE = 1e-3
# Of the largest eigenvalue: smaller ones are rounding, and their roots have no finite gradient.
RELATIVE_FLOOR = 1e-6


def moment_features(images: torch.Tensor, feature_maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Lay out what moments are taken of: whole pictures, places of each map, and patches of pixels.

    Args:
        images: float [N, 3, H, W].
        feature_maps: of these, [N, C_i, H_i, W_i].

    Returns:
        float32 [N, sum of C_i], the maps' means over their places; [N x H_i x W_i, C_i] of each map; and the patches,
        [N x places, 3 x PATCH_SIZE^2].
    """
    pooled = torch.cat([features.float().mean((2, 3)) for features in feature_maps], dim=1)
    places = [features.float().movedim(1, -1).flatten(0, 2) for features in feature_maps]
    patches = F.unfold(images.float(), PATCH_SIZE).transpose(1, 2).flatten(0, 1)
    return [pooled, *places, patches]


def frechet_terms(mean: torch.Tensor, covariance: torch.Tensor, variances: torch.Tensor) -> torch.Tensor:
    """Compute the Frechet distance of a Gaussian to one of mean 0 whose features do not correlate; a scalar.

    Args:
        mean, covariance: of the first, [F] and [F, F].
        variances: of the second, [F].
    """
    root = variances.sqrt()
    eigenvalues = torch.linalg.eigvalsh(root[:, None] * covariance * root)
    roots = eigenvalues[eigenvalues > RELATIVE_FLOOR * eigenvalues[-1]].sqrt().sum()
    return mean.square().sum() + covariance.trace() + variances.sum() - 2 * roots


class Moments:
    """Sum up features [N, F], batch by batch, for their mean and covariance."""

    def __init__(self):
        self.count, self._total, self._squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, features: torch.Tensor) -> None:
        """Add a batch, [N, F]."""
        self.count += len(features)
        self._total = self._total + features.sum(0).double()
        self._squares = self._squares + (features.T @ features).double()

    def mean_and_covariance(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute both in float64, [F] and [F, F]."""
        mean = self._total / self.count
        return mean, self._squares / self.count - torch.outer(mean, mean)


class MomentLoss(nn.Module):
    """Compare the running moments of one kind of features with those of real images.

    The features are turned and scaled so that real ones do not correlate and vary equally: else what varies most, such
    as brightness, would hide the rest. The value is the Frechet distance at the running moments, divided by the number
    of features. The gradient is the one that the batch would have if the running averages were its own moments.

    Args:
        real: of real images.
        decay: of the running averages; while there are fewer steps than it spans, they are plain averages.
    """

    centre: torch.Tensor
    whitening: torch.Tensor
    variances: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    steps: torch.Tensor

    def __init__(self, real: Moments, decay: float):
        super().__init__()
        self.decay = decay
        mean, covariance = real.mean_and_covariance()
        variances, directions = torch.linalg.eigh(covariance)
        variances = variances.clamp(min=0)
        scales = variances + SHRINKAGE * variances.mean()
        # of the real images alone: a state holds the running moments
        self.register_buffer("centre", mean.float(), persistent=False)
        self.register_buffer("whitening", (directions / scales.sqrt()).float(), persistent=False)
        self.register_buffer("variances", (variances / scales).float(), persistent=False)
        self.register_buffer("first", torch.zeros_like(self.centre))
        self.register_buffer("second", torch.zeros_like(self.whitening))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Take features [N, F] into the running moments and compare these; returns a scalar."""
        self.steps += 1
        share = max(1 - self.decay, 1 / float(self.steps))
        white = (features - self.centre) @ self.whitening
        first, second = white.mean(0), white.T @ white / len(white)
        self.first.lerp_(first.detach(), share)
        self.second.lerp_(second.detach(), share)
        # the running averages' value, the batch's gradient
        first = self.first + (first - first.detach())
        second = self.second + (second - second.detach())
        return frechet_terms(first, second - torch.outer(first, first), self.variances) / len(first)


class PictureMoments(nn.Module):
    """Compare pictures with real images by a `MomentLoss` of each kind of `moment_features`.

    Args:
        real: images, uint8 [N, 3, H, W].
        encoder: an `ImageEncoder`, whose feature maps are compared.
        decay: of the running moments.
    """

    @torch.no_grad()
    def __init__(self, real: torch.Tensor, encoder: nn.Module, decay: float):
        super().__init__()
        kinds: dict[int, Moments] = defaultdict(Moments)
        for images in real.split(REAL_BATCH_SIZE):
            images = to_float(images)
            for kind, features in enumerate(moment_features(images, encoder(images).feature_maps)):
                kinds[kind].add(features)
        self.losses = nn.ModuleList(MomentLoss(moments, decay) for moments in kinds.values())

    def forward(self, pictures: torch.Tensor, feature_maps: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Take pictures [N, 3, H, W] with their maps [N, C_i, H_i, W_i] into the running moments.

        Returns:
            A scalar of each kind, by the name of its term.
        """
        kinds = zip(self.losses, moment_features(pictures, feature_maps), strict=True)
        return {f"loss_moments_{kind}": loss(features) for kind, (loss, features) in enumerate(kinds)}
