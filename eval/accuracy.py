"""How often the judge names what was asked for: class accuracy, and noun top-1 and top-5.

python -m eval.accuracy --model checkpoints/student-8step --n 2000
python -m eval.accuracy --model checkpoints/student-8step --n 2000 --prompts noun
"""

import argparse
import sys

import torch

from eval.extractors import extract_features, judge_extractor
from eval.images import ImageSet
from eval.inputs import add_input_arguments, images_from_arguments, show_result
from eval.protocol import measured_with
from mobilediff.captions import CLASS_NAMES


def top_k_hits(logits: torch.Tensor, labels: torch.Tensor, k: int = 1) -> torch.Tensor:
    """1 where the label [N] of a row of logits [N, C] is among the `k` largest, else 0; float64 [N]."""
    return (logits.topk(k, dim=1).indices == labels[:, None]).any(1).double()


def top_k_accuracy(logits: torch.Tensor, labels: torch.Tensor, k: int = 1) -> float:
    """The mean of `top_k_hits`, 0 to 1."""
    return top_k_hits(logits, labels, k).mean().item()


def accuracies(features: dict[str, torch.Tensor], images: ImageSet) -> dict:
    """What the judge's logits say of images with known labels.

    Args:
        features: `class_logits` [N, 10] and `noun_logits` [N, 396].
        images: their labels; images without a noun are left out of the noun figures.

    Returns:
        `class_accuracy`, `class_accuracy_by_class`, and with known nouns `noun_top1`, `noun_top5` and `noun_n`; empty
        without labels.
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
    known = images.noun_ids >= 0 if images.noun_ids is not None else torch.zeros(0, dtype=torch.bool)
    if known.any():
        logits, labels = features["noun_logits"][known], images.noun_ids[known]
        result |= {"noun_top1": top_k_accuracy(logits, labels), "noun_top5": top_k_accuracy(logits, labels, 5)}
        result["noun_n"] = int(known.sum())
    return result


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m eval.accuracy", description=__doc__.splitlines()[0])
    add_input_arguments(parser)
    args = parser.parse_args(argv)
    judge = judge_extractor()
    images = images_from_arguments(args, labelled=True)
    if images.class_labels is None:
        raise ValueError(f"{args.images} has no labels: accuracy needs a folder or npz file made by eval.generate")
    logits = extract_features(judge, images.images, ("class_logits", "noun_logits"))
    result = {"n": len(images)} | accuracies(logits, images)
    protocol = judge.protocol() | measured_with("cpu")
    show_result(result | {"protocol": protocol, "samples": images.protocol}, args.json)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
