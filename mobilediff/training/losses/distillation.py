"""Compare a student's samples and features with a teacher's."""

# Legend, symbol -> name: that of `mobilediff.diffusion`.

import torch
import torch.nn.functional as F


def truncated_snr_loss(
    prediction: torch.Tensor, target: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """Compute max(alpha^2 / sigma^2, 1) || x - x_target ||^2, averaged over values.

    Source: arXiv 2202.00512, eq. 9.

    Args:
        prediction, target: x and x_target, [B, C, H, W].
        alpha, sigma: of the timesteps, [B, 1, 1, 1].

    Returns:
        A scalar.
    """
    weight = (alpha / sigma).square().flatten().clamp(min=1)
    return (weight * (prediction - target).square().mean((1, 2, 3))).mean()


def feature_loss(student: list[torch.Tensor], teacher: list[torch.Tensor]) -> torch.Tensor:
    """Average the features' squared errors over stages (BK-SDM, arXiv 2305.15798, eq. 3).

    Each stage's error is divided by the mean square of the teacher's features, so that no stage dominates.

    Args:
        student, teacher: features of the stages in order, [B, C_i, H_i, W_i] each.

    Returns:
        A scalar.
    """
    terms = [
        F.mse_loss(s.float(), t.float()) / t.float().square().mean() for s, t in zip(student, teacher, strict=True)
    ]
    return torch.stack(terms).mean()
