"""Make captions for CIFAR-10 from ten class names, 396 nouns, templates and phrasings."""

import json
import random
from functools import cache
from pathlib import Path

import torch

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TEMPLATES = ("a photo of {article} {noun}", "a picture of {article} {noun}", "{article} {noun}", "{noun}")
OPENERS = ("a photo of", "a photograph of", "an image of", "a close-up of", "this is", "here is", "i want", "show me")
DETERMINERS = ("a", "the", "one", "my", "some", "this", "that", "our")
ENDINGS = (".", ",", "?", "!", " ;", " :", " please", " outside", " in the sun", " on a road", " in the grass")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@cache
def load_nouns() -> dict[str, int]:
    """Load the nouns that CIFAR-10's images were searched with, each with its class index.

    Returns:
        Noun -> class index 0..9, in a fixed order.
    """
    return json.loads((Path(__file__).parent / "nouns.json").read_text(encoding="utf-8"))


def caption(noun: str, template: str) -> str:
    """Fill a template with a noun, as `{noun}` or `{}`, and its article, as `{article}`."""
    return template.format(noun, noun=noun, article="an" if noun[0] in "aeiou" else "a")


def phrasing(noun: str, generator: random.Random) -> str:
    """Phrase a noun as someone else might, with meaningless words among those around it.

    The meaningless words represent all words that no caption holds: a text encoder learns to find the noun among them.

    Args:
        noun: kept whole, sometimes in the plural.
        generator: of the choice of words.
    """

    def meaningless() -> str:
        return "".join(generator.choices(LETTERS, k=generator.randint(2, 5)))

    words = [noun + "s" if generator.random() < 0.15 else noun]
    if generator.random() < 0.5:
        words.insert(0, meaningless())
    if generator.random() < 0.6:
        words.insert(0, generator.choice(DETERMINERS))
    if generator.random() < 0.4:
        words.insert(0, generator.choice(OPENERS))
    ending = generator.choice(ENDINGS) if generator.random() < 0.5 else ""
    if generator.random() < 0.15:
        ending += f" {meaningless()}"
    return " ".join(words) + ending


class CaptionBank:
    """Hold every caption that training can draw, so that each is encoded once.

    `texts` holds the nouns' captions, then the classes' captions, then the null prompt; `draw` picks rows of it. A
    name has a caption a template, then its phrasings.

    Args:
        null_prompt: the last of the texts.
        num_phrasings: phrasings of each name, drawn once and for all.
    """

    def __init__(self, null_prompt: str = "", num_phrasings: int = 0):
        names = [*load_nouns(), *CLASS_NAMES]
        self.num_nouns, self.num_names = len(load_nouns()), len(names)
        self.num_templates, self.num_phrasings = len(TEMPLATES), num_phrasings
        self.texts = []
        for name in names:
            generator = random.Random(name)  # a name's phrasings do not depend on the others'
            self.texts += [caption(name, template) for template in TEMPLATES]
            self.texts += [phrasing(name, generator) for _ in range(num_phrasings)]
        self.texts.append(null_prompt)
        self.null_index = len(self.texts) - 1

    def phrase(
        self, names: torch.Tensor, generator: torch.Generator, phrasing_probability: float = 0.0
    ) -> torch.Tensor:
        """Draw a caption of each name, in a random template or a random phrasing.

        Args:
            names: 0 to `num_nouns` - 1 for the nouns, then the classes, [N].
            generator: on the device of `names`.
            phrasing_probability: chance of a phrasing.

        Returns:
            Rows of `texts`, int64 [N].

        Raises:
            ValueError: `phrasing_probability` is not 0, and the bank has no phrasings.
        """
        if phrasing_probability and not self.num_phrasings:
            raise ValueError(f"phrasing_probability is {phrasing_probability}, but num_phrasings is 0")
        draws = torch.rand(2, len(names), generator=generator, device=names.device)
        template = (draws[0] * self.num_templates).long()
        phrased = self.num_templates + (draws[0] * self.num_phrasings).long()
        way = torch.where(draws[1] < phrasing_probability, phrased, template)
        return names * (self.num_templates + self.num_phrasings) + way

    def draw(
        self,
        labels: torch.Tensor,
        noun_ids: torch.Tensor,
        generator: torch.Generator,
        class_probability: float = 0.0,
        null_probability: float = 0.0,
        phrasing_probability: float = 0.0,
    ) -> torch.Tensor:
        """Draw a caption for each image, of its noun or class, or the null prompt.

        Args:
            labels: class indices 0..9, [N].
            noun_ids: noun indices, -1 where the noun is not known, [N].
            generator: on the device of `labels`.
            class_probability: chance that a known noun is replaced by the name of the class.
            null_probability: chance of the null prompt (caption dropout, arXiv 2207.12598).
            phrasing_probability: as in `phrase`.

        Returns:
            Rows of `texts`, int64 [N].

        Raises:
            ValueError: as in `phrase`.
        """
        draws = torch.rand(2, len(labels), generator=generator, device=labels.device)
        by_class = (draws[0] < class_probability) | (noun_ids < 0)
        names = torch.where(by_class, self.num_nouns + labels, noun_ids)
        caption_ids = self.phrase(names, generator, phrasing_probability)
        return torch.where(draws[1] < null_probability, self.null_index, caption_ids)
