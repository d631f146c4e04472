"""Cross-entropy over known nouns, and the accuracies of class and noun heads."""

import torch
import torch.nn.functional as F
from torch import nn

from mobilediff.data import ImageDataset
from mobilediff.images import to_float


def noun_cross_entropy(logits: torch.Tensor, noun_ids: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """Mean cross-entropy over the images whose noun is known (not -1), and 0 where none is."""
    total = F.cross_entropy(logits, noun_ids, label_smoothing=label_smoothing, ignore_index=-1, reduction="sum")
    return total / (noun_ids >= 0).sum().clamp(min=1)


@torch.no_grad()
def accuracy(
    encoder: nn.Module, dataset: ImageDataset, device: torch.device, batch_size: int = 500
) -> dict[str, float]:
    """Class accuracy, and noun accuracy where nouns are known, on a whole split, as fractions of 1."""
    hits, noun_hits, noun_count = 0, 0, 0
    for start in range(0, len(dataset), batch_size):
        rows = slice(start, start + batch_size)
        output = encoder(to_float(dataset.images[rows].to(device)))
        hits += (output.class_logits.argmax(1).cpu() == dataset.labels[rows]).sum().item()
        known = dataset.noun_ids[rows] >= 0
        noun_hits += (output.noun_logits.argmax(1).cpu() == dataset.noun_ids[rows])[known].sum().item()
        noun_count += known.sum().item()
    return {"test_class_accuracy": hits / len(dataset), "test_noun_accuracy": noun_hits / max(1, noun_count)}
