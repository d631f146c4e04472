"""Draw one prompt from one noise with two models that are not named, and keep which picture a visitor prefers."""

import logging
import random
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from eval.samples.answers import PREFERENCES, Answer, check_answers, keep_answer, now
from eval.samples.prompts import training_noun_counts
from mobilediff.captions import caption
from mobilediff.demo.service.drawing import draw
from mobilediff.demo.service.exploration import as_json
from mobilediff.demo.service.inputs import MAX_SEED, check_choice, quoted
from mobilediff.demo.service.models import Model, Models
from mobilediff.demo.service.vocabulary import PROMPT

logger = logging.getLogger(__name__)

SKIP = "skip"
CHOICES = (*PREFERENCES, SKIP)
MAX_PAIRS = 500  # that wait for an answer; the oldest go
SAID = {"left": "Left is better.", "right": "Right is better.", "same": "Both the same.", SKIP: "Skipped."}


@dataclass(frozen=True)
class Pair:
    """Hold two models that drew a prompt from a seed, and their pictures, the left ones first."""

    models: list[Model]
    prompt: str
    seed: int
    pictures: list[Image.Image]


class Arena:
    """Draw pairs of pictures, and hold which model drew which until a pair is answered.

    Args:
        models: that draw.
        file: of the answers, made at the first one; None, and a file that cannot be written, keeps none.

    Attributes:
        file: None where answers are not kept.
    """

    def __init__(self, models: Models, file: Path | None):
        self.models, self.file = models, file
        self._pairs: dict[str, Pair] = {}
        self._lock = threading.Lock()
        try:
            if file is not None:
                check_answers(file)
        except (OSError, ValueError) as error:
            logger.warning("answers are not kept: %s", error)
            self.file = None

    def draw_pair(self, chosen: object, cancelled: threading.Event) -> Iterator[tuple[dict[str, Any], str]]:
        """Draw a prompt that is as frequent as its noun's training images with two of the chosen models.

        Args:
            chosen: names of two models or more.
            cancelled: set by another thread to end the drawing.

        Yields:
            The pictures as JSON without a word on their models, and the name of the pair; once, so that the time of
            neither picture tells who drew it.

        Raises:
            ValueError: fewer than two models, names of others, or a model fails; names it.
        """
        names = self.models.choose(chosen)
        if len(names) < 2:
            raise ValueError(f"One model is chosen, {names[0]}; accepted are two or more.")
        draws = random.SystemRandom()
        counts = training_noun_counts()
        (noun,) = draws.choices(list(counts), list(counts.values()))
        prompt, seed = caption(noun, PROMPT), draws.randint(0, MAX_SEED)
        two = draws.sample(names, 2)
        pictures = {}
        for name in sorted(two, key=names.index):  # the cheapest first
            drawing = draw(self.models.get(name), prompt, seed, 1, cancelled)
            if cancelled.is_set():
                return
            if drawing.problem is not None:
                raise ValueError(f"{name}: {drawing.problem}")
            (pictures[name],) = drawing.images
        pair = Pair([self.models.get(name) for name in two], prompt, seed, [pictures[name] for name in two])
        token = secrets.token_urlsafe()
        with self._lock:
            self._pairs[token] = pair
            while len(self._pairs) > MAX_PAIRS:
                del self._pairs[next(iter(self._pairs))]
        yield as_json(pair.pictures, ["Left", "Right"], f"Which is the better picture of {prompt}?"), token

    def answer(self, token: object, choice: object) -> dict[str, Any]:
        """Keep the answer on a pair, once, and name its models; "skip" is not kept.

        Args:
            token: as from `draw_pair`.
            choice: of `CHOICES`.

        Returns:
            The pictures with their models' names, and what was done, as JSON.

        Raises:
            ValueError: no such choice, or no pair that waits for an answer.
        """
        choice = check_choice("answer", choice, CHOICES)
        with self._lock:
            pair = self._pairs.pop(token, None) if isinstance(token, str) else None
        if pair is None:
            raise ValueError(f"No pair {quoted(token)} waits for an answer; accepted is the one drawn last, once.")
        left, right = pair.models
        text = f"{SAID[choice]} Left was {left.name}, right was {right.name}: {pair.prompt}, seed {pair.seed}."
        if choice != SKIP and self.file is not None:
            answer = Answer(left.name, left.sha256, right.name, right.sha256, pair.prompt, pair.seed, choice, now())
            try:
                keep_answer(self.file, answer)
            except (OSError, ValueError) as error:
                logger.error("an answer is lost: %s", error)
                text += " It could not be kept; the log of the app says why."
        return as_json(pair.pictures, [left.name, right.name], text)
