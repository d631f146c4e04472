"""How often the judge names what was asked for: class accuracy, and noun top-1 and top-5.

python -m eval.accuracy --model checkpoints/student-8step --n 2000
python -m eval.accuracy --model checkpoints/student-8step --n 2000 --prompts noun
"""

import argparse
import sys

import torch
from accelerate import PartialState

from eval.bootstrap import mean_interval
from eval.extractors import Extractor, extract_features, judge_extractor
from eval.images import ImageSet
from eval.inputs import add_input_arguments, measure_repeatedly
from eval.protocol import measured_with
from eval.show import show_result
from mobilediff.captions import CLASS_NAMES

NOUN_FIGURES = {"noun_top1": 1, "noun_top5": 5}  # name to k


def top_k_hits(logits: torch.Tensor, labels: torch.Tensor, k: int = 1) -> torch.Tensor:
    """1 where the label [N] of a row of logits [N, C] is among the `k` largest, else 0; float64 [N]."""
    return (logits.topk(k, dim=1).indices == labels[:, None]).any(1).double()


def top_k_accuracy(logits: torch.Tensor, labels: torch.Tensor, k: int = 1) -> float:
    """The mean of `top_k_hits`, 0 to 1."""
    return top_k_hits(logits, labels, k).mean().item()


def known_nouns(images: ImageSet) -> torch.Tensor:
    """True where an image's noun is known, [N]; of length 0 where no noun is."""
    return images.noun_ids >= 0 if images.noun_ids is not None else torch.zeros(0, dtype=torch.bool)


def accuracies(features: dict[str, torch.Tensor], images: ImageSet) -> dict:
    """What the judge's logits say of images with known labels.

    Args:
        features: `class_logits` [N, 10] and `noun_logits` [N, 396].
        images: their labels; images without a noun are left out of the noun figures.

    Returns:
        `class_accuracy`, `class_accuracy_by_class`, and with known nouns `noun_top1`, `noun_top5`, `noun_n`
        (images) and `nouns` (the judge's); empty without labels.
    """
    result = {}
    if images.class_labels is not None:
        logits, labels = features["class_logits"], images.class_labels
        result["class_accuracy"] = top_k_accuracy(logits, labels)
        result["class_accuracy_by_class"] = {
            name: top_k_accuracy(logits[labels == index], labels[labels == index])
            for index, name in enumerate(CLASS_NAMES)
            if (labels == index).any()
        }
    known = known_nouns(images)
    if known.any():
        logits, labels = features["noun_logits"][known], images.noun_ids[known]
        result |= {name: top_k_accuracy(logits, labels, k) for name, k in NOUN_FIGURES.items()}
        result |= {"noun_n": int(known.sum()), "nouns": logits.shape[1]}
    return result


def accuracy_intervals(features: dict[str, torch.Tensor], images: ImageSet) -> dict:
    """Intervals of the figures of `accuracies` that are a mean over two images or more; arguments as there."""
    intervals = {}
    if images.class_labels is not None and len(images) >= 2:
        intervals["class_accuracy"] = mean_interval(top_k_hits(features["class_logits"], images.class_labels))
    known = known_nouns(images)
    if known.sum() >= 2:
        for name, k in NOUN_FIGURES.items():
            hits = top_k_hits(features["noun_logits"][known], images.noun_ids[known], k)
            intervals[name] = mean_interval(hits)
    return intervals


def measure_accuracy(images: ImageSet, judge: Extractor, device: torch.device | str = "cpu") -> dict:
    """The judge's accuracies of labelled images.

    Returns:
        `n`, the figures of `accuracies`, `intervals` of the class accuracy and of both noun figures, `protocol`,
        `samples`.

    Raises:
        ValueError: the images have no labels, or are of the wrong size.
    """
    if images.class_labels is None:
        raise ValueError("the images have no labels: accuracy needs a folder or npz file made by eval.generate")
    features = extract_features(judge, images.images, ("class_logits", "noun_logits"), device=device)
    result = {"n": len(images)} | accuracies(features, images) | {"intervals": accuracy_intervals(features, images)}
    return result | {"protocol": judge.protocol() | measured_with(device), "samples": images.protocol}


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m eval.accuracy", description=__doc__.splitlines()[0])
    add_input_arguments(parser)
    args = parser.parse_args(argv)
    judge, device = judge_extractor(), PartialState().device
    result = measure_repeatedly(args, lambda images: measure_accuracy(images, judge, device), labelled=True)
    show_result("eval.accuracy", result, args.json)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
