"""Measure retrieval of an image's caption, and of a phrasing's noun, by a CLIP."""

from typing import Any

import torch

from eval.extractors.clip import ClipModel, normalized_images, normalized_texts
from eval.metrics.accuracy import NOUN_FIGURES, known_nouns, top_k_hits
from eval.metrics.bootstrap import mean_interval
from eval.protocol import measured_with
from eval.samples.images import ImageSet
from eval.samples.prompts import DEFAULT_TEMPLATE
from mobilediff.captions import CLASS_NAMES, caption, load_nouns

# Training puts none of these words, nor the double mark, around a noun.
UNSEEN_PHRASINGS = {
    "shouted": lambda noun: caption(noun, "{article} {noun}").upper() + "!!",
    "old": lambda noun: f"a picture of an old {noun}",
    "blurry": lambda noun: f"a blurry snapshot of your {noun}",
    "painted": lambda noun: caption(noun, "{article} {noun}, painted by hand"),
}


def measure_retrieval(
    clip: ClipModel, images: ImageSet, template: str = DEFAULT_TEMPLATE, device: torch.device | str = "cpu"
) -> dict:
    """Measure the fractions of images and of phrasings whose nearest caption is the right one.

    Args:
        clip: the model.
        images: with class labels; images without a noun are left out of the noun figures.
        template: makes the captions.
        device: of the model.

    Returns:
        `n`, `class_top1`, of images with known nouns `noun_top1`, `noun_top5` and their number `noun_n`, `intervals`
        of these; `phrase_top1` and `phrase_top5` by the name of the phrasing, over all nouns; `nouns`, their number;
        `protocol`, `samples`.
    """
    nouns = list(load_nouns())
    noun_captions = normalized_texts(clip, [caption(noun, template) for noun in nouns])
    class_captions = normalized_texts(clip, [caption(name, template) for name in CLASS_NAMES])
    embedded = normalized_images(clip, images.images)
    hits = {"class_top1": top_k_hits(embedded @ class_captions.T, images.known_labels())}
    known, noun_ids = known_nouns(images.noun_ids)
    if len(noun_ids):
        cosines = embedded[known] @ noun_captions.T
        hits |= {name: top_k_hits(cosines, noun_ids, k) for name, k in NOUN_FIGURES.items()}
    result: dict[str, Any] = {"n": len(images), "nouns": len(nouns)}
    result |= {name: one.mean().item() for name, one in hits.items()}
    result |= {"noun_n": len(noun_ids), "phrase_top1": {}, "phrase_top5": {}}
    for name, phrased in UNSEEN_PHRASINGS.items():
        cosines = normalized_texts(clip, [phrased(noun) for noun in nouns]) @ noun_captions.T
        for k in (1, 5):
            result[f"phrase_top{k}"][name] = top_k_hits(cosines, torch.arange(len(nouns)), k).mean().item()
    result["intervals"] = {name: mean_interval(one) for name, one in hits.items() if len(one) > 1}
    protocol = clip.protocol() | {"template": template} | measured_with(device)
    return result | {"protocol": protocol, "samples": images.protocol}
