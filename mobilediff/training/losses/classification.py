"""Train class and noun heads by cross-entropy over known nouns, and measure their accuracies."""

import torch
import torch.nn.functional as F
from torch import nn

from mobilediff.data import ImageDataset
from mobilediff.images import to_float


def noun_cross_entropy(logits: torch.Tensor, noun_ids: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """Average the cross-entropy over the images whose noun is known.

    Args:
        logits: [N, nouns].
        noun_ids: noun indices, -1 where the noun is not known, int64 [N].
        label_smoothing: as in `cross_entropy`.

    Returns:
        A scalar, 0 where no noun is known.
    """
    total = F.cross_entropy(logits, noun_ids, label_smoothing=label_smoothing, ignore_index=-1, reduction="sum")
    return total / (noun_ids >= 0).sum().clamp(min=1)


@torch.no_grad()
def accuracy(
    encoder: nn.Module, dataset: ImageDataset, device: torch.device, batch_size: int = 500
) -> dict[str, float]:
    """Measure class accuracy, and noun accuracy where nouns are known, on a whole split; fractions from 0 to 1."""
    hits, noun_hits, noun_count = 0, 0, 0
    for start in range(0, len(dataset), batch_size):
        batch = slice(start, start + batch_size)
        output = encoder(to_float(dataset.images[batch].to(device)))
        hits += (output.class_logits.argmax(1).cpu() == dataset.labels[batch]).sum().item()
        known = dataset.noun_ids[batch] >= 0
        noun_hits += (output.noun_logits.argmax(1).cpu() == dataset.noun_ids[batch])[known].sum().item()
        noun_count += known.sum().item()
    return {"test_class_accuracy": hits / len(dataset), "test_noun_accuracy": noun_hits / max(1, noun_count)}
