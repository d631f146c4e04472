"""Losses against a teacher's samples and features."""

# Legend, symbol -> name: that of `mobilediff.diffusion`.

import torch
import torch.nn.functional as F


def truncated_snr_loss(
    prediction: torch.Tensor, target: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """max(alpha^2 / sigma^2, 1) || x - x_target ||^2, a mean over values (arXiv 2202.00512, eq. 9)."""
    weight = (alpha / sigma).square().flatten().clamp(min=1)
    return (weight * (prediction - target).square().mean((1, 2, 3))).mean()


def feature_loss(student: list[torch.Tensor], teacher: list[torch.Tensor]) -> torch.Tensor:
    """Mean over stages of the features' squared error (BK-SDM, arXiv 2305.15798, eq. 3).

    Each stage's error is over the mean square of the teacher's features, so that no stage dominates.
    """
    terms = [
        F.mse_loss(s.float(), t.float()) / t.float().square().mean() for s, t in zip(student, teacher, strict=True)
    ]
    return torch.stack(terms).mean()
