"""Check what a visitor or a program sends, before any work; gradio's own checks end without a message."""

from collections.abc import Sequence
from typing import TypeVar

from transformers import PreTrainedTokenizerBase

from mobilediff.sampling.prompts import is_unicode

MAX_IMAGES, MAX_CHARACTERS, MAX_SEED = 8, 200, 2**32 - 1
T = TypeVar("T")
MAX_QUOTED = 60  # characters of a refused value in a message


def quoted(value: object) -> str:
    """Write a refused value in ASCII, cut to `MAX_QUOTED` characters."""
    text = ascii(value if not isinstance(value, str) else value[:MAX_QUOTED])
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}..."


def is_whole(value: object, low: int, high: int) -> bool:
    """Tell whether a value is a whole number from `low` to `high`; NaN, text and truth values are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high and value % 1 == 0


def check_whole(meaning: str, value: object, low: int, high: int) -> int:
    """Return a whole number as an int.

    Raises:
        ValueError: it is none from `low` to `high`; `meaning` names it.
    """
    if not is_whole(value, low, high):
        raise ValueError(f"The {meaning} is {quoted(value)}; accepted is a whole number from {low} to {high}.")
    return int(value)  # pyright: ignore[reportArgumentType] - a whole number


def check_number(meaning: str, value: object, low: float, high: float) -> float:
    """Return a number as a float.

    Raises:
        ValueError: it is none from `low` to `high`; `meaning` names it.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"The {meaning} is {quoted(value)}; accepted is a number from {low:g} to {high:g}.")
    return float(value)


def check_names(names: object, known: Sequence[str], kind: str = "model") -> list[str]:
    """Return the known names of a kind that are among `names`, in the order of `known`.

    Raises:
        ValueError: `names` is no list of names, is empty, or holds others.
    """
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"The {kind}s are {quoted(names)}; accepted is a list of names.")
    if unknown := [name for name in names if name not in known]:
        more = f" and {len(unknown) - 1:,} more" if len(unknown) > 1 else ""
        raise ValueError(f"There is no {kind} {quoted(unknown[0])}{more}; accepted are {', '.join(known) or 'none'}.")
    if not names:
        raise ValueError(f"No {kind} is chosen, or none could be loaded.")
    return [name for name in known if name in names]


def check_choice(meaning: str, value: object, accepted: Sequence[T]) -> T:
    """Return the accepted value that equals `value`.

    Raises:
        ValueError: none does; `meaning` names it.
    """
    for choice in accepted:
        if type(value) is not bool and value == choice:
            return choice
    raise ValueError(f"The {meaning} is {quoted(value)}; accepted are {', '.join(map(str, accepted))}.")


def check_text(prompt: object) -> str:
    """Return a prompt that is text of acceptable length.

    Raises:
        ValueError: it is no text, empty, too long, or no Unicode.
    """
    if not isinstance(prompt, str):
        raise ValueError(f"The prompt is {quoted(prompt)}; accepted is text, for example: a fire truck.")
    if not prompt.strip():
        raise ValueError("The prompt is empty. Say what the picture should show, for example: a fire truck.")
    if len(prompt) > MAX_CHARACTERS:
        raise ValueError(f"The prompt has {len(prompt)} characters; accepted are up to {MAX_CHARACTERS}.")
    if not is_unicode(prompt):
        raise ValueError(f"The prompt {quoted(prompt)} holds half a surrogate pair; accepted is Unicode text.")
    return prompt


def check_prompt(prompt: object, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a prompt that a model can read.

    Raises:
        ValueError: it has too many tokens, or as in `check_text`.
    """
    prompt = check_text(prompt)
    tokens, most = len(tokenizer(prompt).input_ids), tokenizer.model_max_length
    if tokens > most:
        raise ValueError(f"The prompt has {tokens} tokens; accepted are up to {most}. Say it shorter.")
    return prompt


def check_seed(seed: object) -> int:
    """Return a seed as an int; `ValueError` as in `check_whole`."""
    return check_whole("seed", seed, 0, MAX_SEED)


def check_count(count: object, most: int = MAX_IMAGES) -> int:
    """Return a number of images as an int; `ValueError` as in `check_whole`."""
    return check_whole("number of images", count, 1, most)
