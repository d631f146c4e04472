"""One converter and runtime a file, loaded when asked for: their libraries are the extra `ondevice`.

A format's module has

    SUFFIX, PRECISIONS                                         of its files
    LIBRARIES, RUNTIME                                         distributions of its protocol, and the one that runs it
    convert(graph, file, precision, calibration) -> [LayerError]     write a graph
    Session(file, threads).run(inputs) -> outputs              run it
    Session(file, threads).shapes -> inputs', outputs'         shapes that it takes and gives, in their order
    operators(file) -> {operator: nodes}                       count its nodes
"""

import importlib
from types import ModuleType
from typing import get_args

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
