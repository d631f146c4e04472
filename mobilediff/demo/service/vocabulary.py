"""List the names that models were trained on, each with its prompt and its number of training images."""

from collections import Counter

from eval.samples.prompts import training_noun_counts
from mobilediff.captions import CLASS_NAMES, caption, load_nouns

PROMPT = "{article} {noun}"
IMAGES_OF_CLASS = 5_000  # CIFAR-10's training images of each class


def label(name: str, count: int) -> str:
    """Write a name with its number of training images."""
    return f"{name}: {count:,} training image{'' if count == 1 else 's'}"


def prompt_choices() -> list[tuple[str, str]]:
    """List the ten classes, of all their nouns, and then the other nouns, the commonest first.

    Returns:
        Of each name a label and the prompt.
    """
    counts = Counter(training_noun_counts())
    nouns = sorted((noun for noun in load_nouns() if noun not in CLASS_NAMES), key=lambda noun: -counts[noun])
    labels = {name: label(f"{name} (class)", IMAGES_OF_CLASS) for name in CLASS_NAMES}
    labels |= {noun: label(noun, counts[noun]) for noun in nouns}
    return [(text, caption(name, PROMPT)) for name, text in labels.items()]
