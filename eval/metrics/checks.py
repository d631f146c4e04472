"""Check and order a metric's feature tensors."""

import numpy as np
import torch


def check_features(features: torch.Tensor, name: str, least: int = 1) -> torch.Tensor:
    """Convert features to float64, refusing too few rows and values that are not finite.

    Args:
        features: floats [N, F].
        name: of the rows in an error.
        least: rows needed.

    Returns:
        float64 [N, F].

    Raises:
        ValueError: not [N, F] of floats, fewer than `least` rows, or a value that is not finite.
    """
    if features.ndim != 2 or not features.is_floating_point():
        raise ValueError(f"{name} rows are {features.dtype} {tuple(features.shape)}; accepted are floats [N, F]")
    if len(features) < least:
        raise ValueError(f"{len(features)} {name} rows are too few: at least {least} are needed")
    finite = torch.isfinite(features).all(dim=1)
    if not finite.all():
        row = int(finite.logical_not().nonzero()[0])
        raise ValueError(f"{name} row {row} is not finite")
    return features.double()


def in_canonical_order(features: torch.Tensor) -> torch.Tensor:
    """Sort the rows of features [N, F] by their values; returns [N, F].

    Draws of rows by number then do not depend on the order of the images.
    """
    columns = features[:, :4].cpu().numpy()  # rows that tie here are copies of one image
    return features[np.lexsort(columns.T[::-1]).copy()]


def check_pair(
    first: torch.Tensor, second: torch.Tensor, names: tuple[str, str], least: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Convert two sets of features of one extractor, [N, F] and [M, F], to float64.

    Raises:
        ValueError: as in `check_features`, or the two have different numbers of features.
    """
    pair = check_features(first, names[0], least), check_features(second, names[1], least)
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"{names[0]} rows have {first.shape[1]} features, {names[1]} rows {second.shape[1]}: "
            "not of the same extractor"
        )
    return pair
