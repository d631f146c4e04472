"""Plan prompts: classes in turn, or nouns as often as CIFAR-10's test images show them."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, zip_longest
from pathlib import Path

from diffusers import DiffusionPipeline

from eval import WEIGHTS
from eval.protocol import file_sha256
from eval.samples.images import ImageSet
from mobilediff.captions import CLASS_NAMES, caption, load_nouns
from mobilediff.files import read_json, write_json
from mobilediff.ondevice.exported import ExportedPipeline
from mobilediff.sampling.saving import DEFAULTS

SHIPPED_NOUN_COUNTS = WEIGHTS / "reference" / "noun_counts.json"
SHIPPED_TRAINING_NOUN_COUNTS = WEIGHTS / "reference" / "training_noun_counts.json"
GOLDEN_RATIO = (5**0.5 - 1) / 2


def write_noun_counts(images: ImageSet, file: str | Path) -> None:
    """Count the nouns of real images and write the counts above 0.

    Raises:
        ValueError: no image's noun is known.
    """
    nouns = list(load_nouns())
    noun_ids = [] if images.noun_ids is None else images.noun_ids.tolist()
    counts = Counter(noun_id for noun_id in noun_ids if noun_id >= 0)
    if not counts:
        raise ValueError(f"no image has a noun, so {file} is not written")
    write_json(file, {nouns[noun_id]: counts[noun_id] for noun_id in sorted(counts)})


@lru_cache
def noun_counts() -> dict[str, int]:
    """Read the number of test images of each noun, those of none left out."""
    return read_json(SHIPPED_NOUN_COUNTS)


@lru_cache
def training_noun_counts() -> dict[str, int]:
    """Read the number of training images of each noun, those of none left out."""
    return read_json(SHIPPED_TRAINING_NOUN_COUNTS)


def noun_counts_sha256() -> str:
    """Hash the noun counts, which decide every noun prompt."""
    return file_sha256(SHIPPED_NOUN_COUNTS)


def nouns_in_turn(label: int, count: int) -> list[int]:
    """Order a class's nouns so that any first turns hold about each noun's fraction.

    The turn k falls on the noun that holds the fraction frac((k + 1/2) golden ratio), a low-discrepancy sequence.

    Args:
        label: of the class.
        count: of turns.

    Returns:
        Indices into `load_nouns`, `count` of them.
    """
    nouns = nouns_of_class(label)
    ends = list(accumulate(noun_counts()[noun] for noun in nouns))
    ids = {noun: index for index, noun in enumerate(load_nouns())}
    fractions = ((turn + 0.5) * GOLDEN_RATIO % 1 for turn in range(count))
    return [ids[nouns[bisect_right(ends, fraction * ends[-1])]] for fraction in fractions]


def nouns_of_class(label: int) -> list[str]:
    """List the counted nouns of a class, the commonest first."""
    counts, classes = noun_counts(), load_nouns()
    return sorted((noun for noun in counts if classes[noun] == label), key=counts.__getitem__, reverse=True)


def commonest_nouns(count: int) -> list[str]:
    """List each class's commonest noun, then each second one, without the classes' own names.

    Raises:
        ValueError: fewer than none, or more than there are.
    """
    by_class = [
        [noun for noun in nouns_of_class(label) if noun not in CLASS_NAMES] for label in range(len(CLASS_NAMES))
    ]
    nouns = [noun for rank in zip_longest(*by_class) for noun in rank if noun is not None]
    if not 0 <= count <= len(nouns):
        raise ValueError(f"{count} nouns; accepted are 0 to {len(nouns)}")
    return nouns[:count]


PROMPT_KINDS = ("class", "noun")
MAX_IMAGES = 1_000_000
DEFAULT_TEMPLATE = str(DEFAULTS["class_template"])


@dataclass(frozen=True)
class SamplePlan:
    """Hold prompt and labels of each sample, balanced over the classes in every ten.

    Attributes:
        n: samples.
        prompts, class_labels, noun_ids: of each sample, or None where there are none.
    """

    n: int
    prompts: list[str] | None = None
    class_labels: list[int] | None = None
    noun_ids: list[int] | None = None

    def prompts_of(self, indices: Sequence[int]) -> list[str]:
        """Return the prompts of these samples.

        Raises:
            ValueError: the samples have none.
        """
        if self.prompts is None:
            raise ValueError("these samples were planned without prompts; accepted are the prompts class and noun")
        return [self.prompts[index] for index in indices]


def plan_of_classes(labels: Sequence[int], template: str) -> SamplePlan:
    """Plan a sample for each class index, by the prompt of its class."""
    return SamplePlan(len(labels), [caption(CLASS_NAMES[label], template) for label in labels], list(labels))


def check_sample_count(n: int) -> None:
    """Refuse a number of samples out of range.

    Raises:
        ValueError: `n` is below 1 or over a million.
    """
    if not 1 <= n <= MAX_IMAGES:
        raise ValueError(f"n is {n}; accepted is 1 to {MAX_IMAGES}")


def check_prompts_are_read(pipeline: DiffusionPipeline | ExportedPipeline, plan: SamplePlan, model: str) -> None:
    """Refuse prompts that the model would cut off: a noun at their end would not be drawn.

    Raises:
        ValueError: a prompt has more tokens than the pipeline's tokenizer keeps; names it.
    """
    tokenizer = getattr(pipeline, "tokenizer", None)
    if tokenizer is None:
        return
    for prompt in dict.fromkeys(plan.prompts or []):
        count, most = len(tokenizer(prompt, verbose=False).input_ids), tokenizer.model_max_length
        if count > most:
            raise ValueError(
                f"the prompt {prompt!r} has {count} tokens, but {model} reads {most}: shorten the template"
            )


def plan_samples(n: int, prompts: str | None, template: str | None) -> SamplePlan:
    """Plan the first `n` prompts: class `i % 10`, or that class's nouns by `nouns_in_turn`, or none.

    Raises:
        ValueError: prompts without a template, or as in `check_sample_count`.
    """
    check_sample_count(n)
    if prompts is None:
        return SamplePlan(n)
    if template is None:
        raise ValueError(f"template is None, but the prompts {prompts!r} need one")
    labels = [index % len(CLASS_NAMES) for index in range(n)]
    if prompts == "class":
        return SamplePlan(n, [caption(CLASS_NAMES[label], template) for label in labels], labels)
    nouns = list(load_nouns())
    rounds = [index // len(CLASS_NAMES) for index in range(n)]
    by_class = {label: nouns_in_turn(label, rounds[-1] + 1) for label in set(labels)}
    noun_ids = [by_class[label][turn] for label, turn in zip(labels, rounds, strict=True)]
    return SamplePlan(n, [caption(nouns[noun_id], template) for noun_id in noun_ids], labels, noun_ids)
