"""Captions for CIFAR-10: ten class names, 396 nouns, and the templates that turn them into sentences."""

import json
from functools import cache
from pathlib import Path

import torch

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TEMPLATES = ("a photo of {article} {noun}", "a picture of {article} {noun}", "{article} {noun}", "{noun}")


@cache
def load_nouns() -> dict[str, int]:
    """The nouns that CIFAR-10's images were searched with, in a fixed order, each with its class index 0..9."""
    return json.loads((Path(__file__).parent / "nouns.json").read_text(encoding="utf-8"))


def caption(noun: str, template: str) -> str:
    """Fill a template with a noun, as `{noun}` or `{}`, and the article that fits it, as `{article}`."""
    return template.format(noun, noun=noun, article="an" if noun[0] in "aeiou" else "a")


class CaptionBank:
    """Every caption that training can draw, so that each is encoded once.

    `texts` holds the nouns' captions, then the classes' captions, then the null prompt; `draw` picks rows of it.
    """

    def __init__(self, null_prompt: str = ""):
        self.num_nouns, self.num_templates = len(load_nouns()), len(TEMPLATES)
        names = [*load_nouns(), *CLASS_NAMES]
        self.texts = [caption(name, template) for name in names for template in TEMPLATES] + [null_prompt]
        self.null_index = len(self.texts) - 1

    def draw(
        self,
        labels: torch.Tensor,
        noun_ids: torch.Tensor,
        generator: torch.Generator,
        class_probability: float = 0.0,
        null_probability: float = 0.0,
    ) -> torch.Tensor:
        """One caption an image: its noun's or its class's, in a random template, or the null prompt.

        Args:
            labels: class indices 0..9, [N].
            noun_ids: noun indices, -1 where the noun is not known, [N].
            generator: on the device of `labels`.
            class_probability: chance that a known noun is replaced by the name of the class.
            null_probability: chance of the null prompt (caption dropout, arXiv 2207.12598).

        Returns:
            Rows of `texts`, int64 [N].
        """
        draws = torch.rand(3, len(labels), generator=generator, device=labels.device)
        by_class = (draws[0] < class_probability) | (noun_ids < 0)
        names = torch.where(by_class, self.num_nouns + labels, noun_ids)
        rows = names * self.num_templates + (draws[1] * self.num_templates).long()
        return torch.where(draws[2] < null_probability, self.null_index, rows)
