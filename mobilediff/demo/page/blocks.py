"""Build the page so that a call names no file but an uploaded one, and bad input and failures become messages."""

import logging
from pathlib import Path

import gradio as gr
from gradio.data_classes import FileData
from gradio.utils import get_upload_folder
from pydantic import ValidationError

from mobilediff.demo.service.inputs import quoted
from mobilediff.demo.service.uploads import is_uploaded

logger = logging.getLogger(__name__)

MAX_DEPTH = 50  # of lists and records in each other; more would exhaust the stack of those who walk through them


def check_values(values: list, wanted: int) -> None:
    """Refuse a call's values that gradio would answer with the machine's own paths, or fetch from elsewhere.

    gradio looks for files in the values of every component, whatever it takes.

    Args:
        values: as a visitor's program sent them.
        wanted: number of values.

    Raises:
        ValueError: there are too few, they are nested too deeply, or a file among them was not uploaded.
    """
    if len(values) < wanted:
        raise ValueError(f"The call didn't receive enough input values (needed: {wanted}, got: {len(values)}).")
    left: list[tuple[object, int]] = [(values, 0)]
    while left:
        value, depth = left.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"The values are nested more than {MAX_DEPTH} deep; accepted are flatter ones.")
        if isinstance(value, dict) and "path" in value and "meta" in value:
            _check_file(value)
        elif isinstance(value, dict | list):
            parts = value.values() if isinstance(value, dict) else value
            left.extend((part, depth + 1) for part in parts)


def _check_file(file: dict) -> None:
    if not isinstance(file["meta"], dict):
        raise ValueError(f"The file is {quoted(file)}; accepted is an uploaded file.")
    try:
        path = FileData(**file).path
    except (ValidationError, TypeError) as error:
        raise ValueError(f"The file is {quoted(file)}; accepted is an uploaded file.") from error
    if "://" in path:
        raise ValueError(f"The address {quoted(path)} is not fetched; accepted are uploaded files.")
    if not is_uploaded(Path(path), Path(get_upload_folder())):
        raise ValueError(f"The file {quoted(Path(path).name)} was not uploaded; accepted are uploaded files.")


def of_event(event: gr.EventData, name: str) -> object:
    """Return a value of an event, None where a program sent no such value."""
    try:
        return getattr(event, name, None)
    except TypeError:  # it sent no record at all
        return None


class CheckedBlocks(gr.Blocks):
    """Check the values of every call, the page's own and a program's, and answer errors by messages."""

    async def preprocess_data(self, block_fn, inputs, *args, **kwargs):
        """Check the values and hand them to gradio.

        Raises:
            ValueError: as in `check_values`.
        """
        check_values(inputs, len(block_fn.inputs))
        return await super().preprocess_data(block_fn, inputs, *args, **kwargs)

    async def process_api(self, *args, **kwargs):
        """Answer a call.

        Raises:
            gr.Error: a value is not accepted, and the message names it; or the call failed, and the log says why.
        """
        try:
            return await super().process_api(*args, **kwargs)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        except Exception as error:
            logger.exception("a call failed")
            raise gr.Error("The call failed; the log of the app says why.", print_exception=False) from error
