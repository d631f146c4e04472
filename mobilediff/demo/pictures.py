"""Measure pictures that a visitor uploads, in a tab."""

import html
import threading
from collections.abc import Iterator

import gradio as gr
from gradio.data_classes import ListFiles

from mobilediff.demo.page.figures import figures_table
from mobilediff.demo.page.grids import grids
from mobilediff.demo.page.sentences import shown, status
from mobilediff.demo.page.stream import stream
from mobilediff.demo.service import measuring
from mobilediff.demo.service.measuring import COLUMNS, Figures
from mobilediff.demo.service.turns import Cancelled
from mobilediff.demo.service.uploads import (
    ACCEPTED,
    ARCHIVES,
    IMAGE_SUFFIXES,
    MAX_BYTES,
    MAX_PICTURES,
    MAX_UNPACKED,
    MIB,
    Upload,
    check_files,
    read_upload,
)

SHOWN = 40  # pictures on the grid
INTRODUCTION = (
    f"How good are pictures of your own, by the same judge as the models' here? Upload {ACCEPTED}: up to "
    f"{MAX_PICTURES:,} square pictures in 8-bit RGB, {MAX_BYTES // MIB} MiB and unpacked {MAX_UNPACKED // MIB} MiB. "
    "They are brought to 32 x 32 pixels. Folders of a zip that are named like the ten classes are labels; an npz file "
    "holds `images`, [N, H, W, 3], and may hold `class_labels`."
)


def upload_field(**options) -> gr.File:
    """Make a field that hands on whatever a program sent, for `check_files` to refuse with a message.

    Its own methods are set on the component: gradio writes a file beside the source of each subclass.
    """
    files = gr.File(file_count="multiple", file_types=[*ARCHIVES, *IMAGE_SUFFIXES], **options)
    own = {
        "data_model": None,
        "api_info": ListFiles.model_json_schema,  # as gradio describes several files
    }
    for name, value in own.items():
        setattr(files, name, value)
    return files


def _steps(files: object, folder: str, cancelled: threading.Event) -> Iterator[tuple[list[list[str]], str, str]]:
    """Read and measure an upload; yields the table, the notes and the grid."""
    upload = yield from shown(read_upload(check_files(files, folder)), lambda text: ([], status(text), ""))
    images, count = upload.images, len(upload.names)
    grid = grids({f"The first {min(SHOWN, count)} of {count:,} pictures": images[:SHOWN]})
    measured = measuring.measure_pictures(images, upload.labels, upload.names, cancelled)
    try:
        figures = yield from shown(measured, lambda text: ([], status(text), grid))
    except Cancelled:
        return
    yield figures.rows, _notes(upload, figures), grid


def _notes(upload: Upload, figures: Figures) -> str:
    notes = list(figures.notes)
    if upload.resized:
        notes.append(f"{upload.resized:,} pictures of another size were brought to 32 x 32 pixels (Lanczos).")
    text = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    if not upload.refused_count:
        return text
    unnamed = upload.refused_count - len(upload.refused)
    lines = [*upload.refused, *([f"and {unnamed:,} more."] if unnamed else [])]
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"{text}<p><strong>Left out: {upload.refused_count:,}.</strong></p><ul>{items}</ul>"


def build_tab() -> None:
    """Build the tab's content."""

    async def measure_pictures(pictures: list):
        """Measure uploaded pictures by the judge, beside CIFAR-10's test images.

        Args:
            pictures: one zip, one npz, or PNG and JPEG files.

        Returns:
            The figures, notes on what was left out, and a grid of the pictures.
        """
        async for step in stream(lambda cancelled: _steps(pictures, files.GRADIO_CACHE, cancelled)):
            yield step

    gr.Markdown(INTRODUCTION)
    files = upload_field(label="Pictures", height=160)
    button = gr.Button("Measure", variant="primary")
    table = figures_table(COLUMNS)
    notes = gr.HTML(label="Notes")
    grid = gr.HTML(label="Grid of the pictures")
    button.click(
        measure_pictures, files, [table, notes, grid],
        concurrency_limit=1, concurrency_id="evaluations",
        preprocess=False, show_progress="minimal", show_progress_on=table,
    )  # fmt: skip
