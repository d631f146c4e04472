"""Which nouns are asked for: each as often as CIFAR-10's test images show it, so that their figures compare."""

from bisect import bisect_right
from collections import Counter
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

from eval.images import ImageSet
from eval.protocol import file_sha256, read_json, write_json
from mobilediff.captions import load_nouns

SHIPPED_NOUN_COUNTS = Path(__file__).parent / "weights" / "reference" / "noun_counts.json"
GOLDEN_RATIO = (5**0.5 - 1) / 2


def write_noun_counts(images: ImageSet, file: str | Path = SHIPPED_NOUN_COUNTS) -> None:
    """Count the nouns of real images, those that none shows left out.

    Raises:
        ValueError: no image's noun is known.
    """
    nouns = list(load_nouns())
    counts = Counter(images.noun_ids[images.noun_ids >= 0].tolist())
    if not counts:
        raise ValueError(f"{images.protocol['images']}: no image has a noun, so there are none to count for {file}")
    write_json(file, {nouns[noun_id]: counts[noun_id] for noun_id in sorted(counts)})


@lru_cache
def noun_counts() -> dict[str, int]:
    """How many test images show a noun; of those that any does."""
    return read_json(SHIPPED_NOUN_COUNTS)


def noun_counts_sha256() -> str:
    """The hash of the counts, which every set of noun prompts depends on."""
    return file_sha256(SHIPPED_NOUN_COUNTS)


def nouns_in_turn(label: int, count: int) -> list[int]:
    """The nouns of a class in an order where those of the first N, whatever N, have about their shares of the images.

    The turn k falls on the noun that holds the share frac((k + 1/2) golden ratio), a low-discrepancy sequence.

    Args:
        label: of the class.
        count: of turns.

    Returns:
        Indices into `load_nouns`, `count` of them.
    """
    classes = load_nouns()
    nouns = [noun for noun in noun_counts() if classes[noun] == label]
    ends = list(accumulate(noun_counts()[noun] for noun in nouns))
    ids = {noun: index for index, noun in enumerate(classes)}
    shares = ((turn + 0.5) * GOLDEN_RATIO % 1 for turn in range(count))
    return [ids[nouns[bisect_right(ends, share * ends[-1])]] for share in shares]
