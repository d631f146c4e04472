"""Compute top-k accuracies of class and noun logits, and their intervals."""

import torch

from eval.metrics.bootstrap import mean_interval
from eval.metrics.checks import check_features

NOUN_FIGURES = {"noun_top1": 1, "noun_top5": 5}  # name to k


def top_k_hits(logits: torch.Tensor, labels: torch.Tensor, k: int = 1) -> torch.Tensor:
    """Mark the rows whose label is among the `k` largest logits.

    Args:
        logits: [N, C].
        labels: int64 [N].
        k: 1 to C.

    Returns:
        1 for a hit, else 0; float64 [N].

    Raises:
        ValueError: no rows, a logit that is not finite, other labels than N from 0 to C - 1, or `k` not in 1 to C.
    """
    check_features(logits, "logit")
    n, classes = logits.shape
    if labels.shape != (n,):
        raise ValueError(f"labels are {tuple(labels.shape)}; accepted is one a logit row, [{n}]")
    if not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"labels reach from {labels.min()} to {labels.max()}; accepted is 0 to {classes - 1}")
    if not 1 <= k <= classes:
        raise ValueError(f"k is {k}; accepted is 1 to {classes}, the number of classes")
    return (logits.topk(k, dim=1).indices == labels[:, None]).any(1).double()


def top_k_accuracy(logits: torch.Tensor, labels: torch.Tensor, k: int = 1) -> float:
    """Average `top_k_hits` of logits [N, C] and labels [N]: 0 to 1; errors as there."""
    return top_k_hits(logits, labels, k).mean().item()


def known_nouns(noun_ids: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Select the known nouns.

    Args:
        noun_ids: int64 [N], -1 where not known; or None.

    Returns:
        True where a noun is known, bool [N], and these nouns, int64 [K]; both of length 0 without `noun_ids`.
    """
    if noun_ids is None:
        noun_ids = torch.zeros(0, dtype=torch.int64)
    known = noun_ids >= 0
    return known, noun_ids[known]


def accuracies(
    features: dict[str, torch.Tensor],
    class_labels: torch.Tensor | None,
    noun_ids: torch.Tensor | None,
    class_names: tuple[str, ...],
) -> dict:
    """Compare a classifier's logits with known labels.

    Args:
        features: `class_logits` [N, C] and `noun_logits` [N, M].
        class_labels: int64 [N], or None where not known.
        noun_ids: int64 [N], -1 where not known and left out; or None.
        class_names: C, by label.

    Returns:
        `class_accuracy`, `class_accuracy_by_class`, and with known nouns `noun_top1`, `noun_top5`, `noun_n`
        (images) and `nouns` (the judge's); empty without labels.

    Raises:
        ValueError: as in `top_k_hits`.
    """
    result = {}
    if class_labels is not None:
        logits, labels = features["class_logits"], class_labels
        result["class_accuracy"] = top_k_accuracy(logits, labels)
        result["class_accuracy_by_class"] = {
            name: top_k_accuracy(logits[labels == index], labels[labels == index])
            for index, name in enumerate(class_names)
            if (labels == index).any()
        }
    known, labels = known_nouns(noun_ids)
    if len(labels):
        logits = features["noun_logits"][known]
        result |= {name: top_k_accuracy(logits, labels, k) for name, k in NOUN_FIGURES.items()}
        result |= {"noun_n": len(labels), "nouns": logits.shape[1]}
    return result


def accuracy_intervals(
    features: dict[str, torch.Tensor], class_labels: torch.Tensor | None, noun_ids: torch.Tensor | None
) -> dict:
    """Compute intervals of the figures of `accuracies` over two images or more.

    Args:
        features: `class_logits` [N, C] and `noun_logits` [N, M].
        class_labels, noun_ids: as in `accuracies`.

    Returns:
        By the figure's name, as `mean_interval`.
    """
    intervals = {}
    if class_labels is not None and len(class_labels) >= 2:
        intervals["class_accuracy"] = mean_interval(top_k_hits(features["class_logits"], class_labels))
    known, labels = known_nouns(noun_ids)
    if len(labels) >= 2:
        for name, k in NOUN_FIGURES.items():
            hits = top_k_hits(features["noun_logits"][known], labels, k)
            intervals[name] = mean_interval(hits)
    return intervals
