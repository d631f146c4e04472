"""Top-k accuracies of class and noun logits, and their intervals."""

import torch

from eval.metrics.bootstrap import fraction_interval

NOUN_FIGURES = {"noun_top1": 1, "noun_top5": 5}  # name to k


def top_k_hits(logits: torch.Tensor, labels: torch.Tensor, k: int = 1) -> torch.Tensor:
    """1 where the label [N] of a row of logits [N, C] is among the `k` largest, else 0; float64 [N]."""
    return (logits.topk(k, dim=1).indices == labels[:, None]).any(1).double()


def top_k_accuracy(logits: torch.Tensor, labels: torch.Tensor, k: int = 1) -> float:
    """Average `top_k_hits`, 0 to 1."""
    return top_k_hits(logits, labels, k).mean().item()


def known_nouns(noun_ids: torch.Tensor | None) -> torch.Tensor:
    """True where a noun is known, that is not -1, bool [N]; of length 0 where none is."""
    return noun_ids >= 0 if noun_ids is not None else torch.zeros(0, dtype=torch.bool)


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
    known = known_nouns(noun_ids)
    if known.any():
        logits, labels = features["noun_logits"][known], noun_ids[known]
        result |= {name: top_k_accuracy(logits, labels, k) for name, k in NOUN_FIGURES.items()}
        result |= {"noun_n": int(known.sum()), "nouns": logits.shape[1]}
    return result


def accuracy_intervals(
    features: dict[str, torch.Tensor], class_labels: torch.Tensor | None, noun_ids: torch.Tensor | None
) -> dict:
    """Compute intervals of the figures of `accuracies` over two images or more; arguments as there."""
    intervals = {}
    if class_labels is not None and len(class_labels) >= 2:
        intervals["class_accuracy"] = fraction_interval(top_k_hits(features["class_logits"], class_labels))
    known = known_nouns(noun_ids)
    if known.sum() >= 2:
        for name, k in NOUN_FIGURES.items():
            hits = top_k_hits(features["noun_logits"][known], noun_ids[known], k)
            intervals[name] = fraction_interval(hits)
    return intervals
