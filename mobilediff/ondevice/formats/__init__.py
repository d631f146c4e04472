"""One converter and runtime a file, loaded when asked for: their libraries are the extra `ondevice`.

A format's module has

    SUFFIX, PRECISIONS                                         of its files
    TEXT_BLOCK                                                 in int8, what the text encoder's widths are multiples of
    LIBRARIES, RUNTIME                                         distributions of its protocol, and the one that runs it
    convert(graph, file, precision, calibration) -> [LayerError]     write a graph
    Session(file, threads).run(inputs) -> outputs              run it
    Session(file, threads).shapes -> inputs', outputs'         shapes that it takes and gives, in their order
    operators(file) -> {operator: nodes}                       count its nodes
"""

import importlib
from types import ModuleType
from typing import get_args

from transformers import CLIPTextConfig

from mobilediff.ondevice.manifest import Format

FORMATS = get_args(Format)
OWN = "mobilediff"


def load_format(name: str) -> ModuleType:
    """Import a format's module.

    Raises:
        ValueError: an unknown format, or a library of it is not installed; names the extra.
    """
    if name not in FORMATS:
        raise ValueError(f"format is {name!r}; accepted are {', '.join(FORMATS)}")
    try:
        return importlib.import_module(f"{__name__}.{name}_format")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == OWN:
            raise
        raise ValueError(
            f"format {name} needs {error.name}, which is not installed: pip install '.[ondevice]'"
        ) from error


def check_precision(name: str, precision: str) -> None:
    """Refuse a precision that a format lacks.

    Raises:
        ValueError: names the format's own.
    """
    accepted = load_format(name).PRECISIONS
    if precision not in accepted:
        raise ValueError(f"precision is {precision!r}; format {name} has {', '.join(accepted)}")


def check_text_widths(name: str, precision: str, config: CLIPTextConfig) -> None:
    """Refuse a text encoder whose widths are no multiples of a format's block in int8.

    Args:
        name: of a format.
        precision: of that format.
        config: of the text encoder.

    Raises:
        ValueError: names the width and what it has to be a multiple of.
    """
    block = load_format(name).TEXT_BLOCK if precision == "int8" else 1
    for key in ("hidden_size", "intermediate_size"):
        if (width := getattr(config, key)) % block:
            raise ValueError(
                f"{key} of the text encoder is {width}; format {name} in {precision} takes multiples of {block}"
            )
