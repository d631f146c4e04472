"""Read the choices of a comparison from the page's address, so that a link restores them."""

from collections.abc import Mapping
from dataclasses import dataclass

from mobilediff.demo.service.inputs import check_count, check_names, check_seed, check_text
from mobilediff.demo.service.settings import OWN, Settings, check_settings

NAMES = ("prompt", "seed", "count", "models", "few_steps", "many_steps", "guidance")


@dataclass(frozen=True)
class Choices:
    """Hold the choices of a comparison; None where a link names none."""

    prompt: str | None
    seed: int | None
    count: int | None
    models: list[str] | None
    settings: Settings


def number(text: str | None) -> object:
    """Read a number, or leave a text that is none as it is."""
    try:
        return float(text) if text else None
    except ValueError:
        return text


def read_link(query: Mapping[str, str], names: list[str]) -> Choices | None:
    """Read the choices that an address names; None if it names none.

    Args:
        query: the address's parameters; those of others are left alone.
        names: of the models.

    Raises:
        ValueError: a choice is not accepted; names it.
    """
    given = {name: query.get(name) for name in NAMES}
    if not any(given.values()):
        return None
    return Choices(
        check_text(given["prompt"]) if given["prompt"] else None,
        check_seed(number(given["seed"])) if given["seed"] else None,
        check_count(number(given["count"])) if given["count"] else None,
        check_names(given["models"].split(","), names) if given["models"] else None,
        check_settings(
            number(given["few_steps"] or OWN), number(given["many_steps"] or OWN), number(given["guidance"] or None)
        ),
    )
