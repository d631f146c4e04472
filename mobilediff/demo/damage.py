"""Damage pictures by sliders in a tab, and see every figure move."""

from collections.abc import Iterator

import gradio as gr

from mobilediff.captions import CLASS_NAMES
from mobilediff.demo.page.figures import figures_table
from mobilediff.demo.page.grids import grids
from mobilediff.demo.page.sentences import shown, status
from mobilediff.demo.page.stream import stream
from mobilediff.demo.service import damaged
from mobilediff.demo.service.damaged import (
    COLUMNS,
    COUNT,
    KINDS,
    MAX_BLUR,
    MAX_DROPPED,
    MAX_NOISE,
    TARGETS,
    WHOLE,
    Damage,
    Originals,
    check_damage,
    redraw,
)
from mobilediff.demo.service.models import Models

SHOWN = 40  # pictures of a grid
INTRODUCTION = (
    f"What does a Fréchet distance of 1, 4 or 30 look like? Move a slider: {COUNT:,} pictures are damaged and "
    "measured again, beside the undamaged ones and real images. The floor is the distance of CIFAR-10's test images "
    "to its training images: of as many as there are pictures, since fewer lie farther off, and of all."
)
NOT_THERE = "CIFAR-10 itself is not here (`MOBILEDIFF_DATA` names it), so that generated samples alone can be damaged."


def build_tab(models: Models) -> None:
    """Build the tab's content; its pictures are drawn when a visitor first asks for figures."""
    originals = Originals(models)
    sources = originals.sources

    def steps(source, blur, noise, quality, dropped) -> Iterator[tuple]:
        damage = check_damage(blur, noise, quality, dropped)
        drawn = yield from shown(redraw(originals, source, damage), lambda text: (gr.skip(), status(text), gr.skip()))
        grid = grids({"Undamaged": drawn.undamaged[:SHOWN], "Damaged": drawn.damaged[:SHOWN]})
        yield drawn.rows, status(f"Damaged, they lie {drawn.from_undamaged:.2f} from the undamaged."), grid

    async def measure_damage(source, blur, noise, quality, dropped):
        """Damage pictures, and measure them beside undamaged and real ones.

        Args:
            source: of the pictures.
            blur: standard deviation of a Gaussian, in pixels.
            noise: standard deviation, as a fraction of the range of values.
            quality: of JPEG; 100 is no compression.
            dropped: number of classes that are left out.

        Returns:
            The figures, a sentence, and grids of undamaged and damaged pictures.
        """
        async for step in stream(lambda cancelled: steps(source, blur, noise, quality, dropped)):
            yield step

    def search(source, kind, target) -> Iterator[tuple]:
        nothing = (gr.skip(),) * 4
        found: Damage = yield from shown(
            damaged.find_damage(originals, source, kind, target), lambda text: (*nothing, status(f"Searching: {text}"))
        )
        yield found.blur, found.noise, found.quality, 0, status("Found.")

    async def find_damage(source, kind, target):
        """Find the damage of one kind that moves pictures by a Fréchet distance.

        Args:
            source: of the pictures.
            kind: of damage: Blur, Noise or JPEG.
            target: the distance of the damaged pictures to the undamaged ones: 1, 4 or 30.

        Returns:
            The blur, the noise, the JPEG quality, the number of dropped classes, and a sentence.
        """
        async for step in stream(lambda cancelled: search(source, kind, target)):
            yield step

    gr.Markdown(INTRODUCTION if len(sources) > 1 else f"{INTRODUCTION} {NOT_THERE}")
    source = gr.Radio(sources, value=sources[0] if sources else None, label="Pictures")
    with gr.Row():
        blur = gr.Slider(0, MAX_BLUR, 0, step=0.05, label="Blur", info="Standard deviation, in pixels", min_width=200)
        noise = gr.Slider(
            0, MAX_NOISE, 0, step=0.0025, label="Noise", info="Standard deviation, of a range of 1", min_width=200
        )
        quality = gr.Slider(
            1, WHOLE, WHOLE, step=1, label="JPEG quality", info=f"{WHOLE} is no compression", min_width=200
        )
        dropped = gr.Slider(
            0, MAX_DROPPED, 0, step=1, label="Dropped classes",
            info=f"From {CLASS_NAMES[0]} to {CLASS_NAMES[MAX_DROPPED - 1]}", min_width=200,
        )  # fmt: skip
    button = gr.Button("Measure", variant="primary")
    with gr.Accordion("Find a distance", open=False):
        with gr.Row():
            kind = gr.Radio(list(KINDS), value=KINDS[0], label="By this damage alone", min_width=200)
            target = gr.Radio(list(TARGETS), value=TARGETS[0], label="Distance to the undamaged", min_width=200)
        finder = gr.Button("Find")
    note = gr.HTML(elem_classes="note", label="State")
    table = figures_table(COLUMNS)
    grid = gr.HTML(label="Grids of pictures")
    inputs, outputs = [source, blur, noise, quality, dropped], [table, note, grid]
    queue = {"concurrency_limit": 1, "concurrency_id": "evaluations", "preprocess": False, "show_progress": "hidden"}
    button.click(measure_damage, inputs, outputs, **queue)
    # of the moves during a measurement, the last one alone is measured
    gr.on(
        [one.change for one in inputs], measure_damage, inputs, outputs,
        trigger_mode="always_last", api_visibility="private", **queue,
    )  # fmt: skip
    finder.click(find_damage, [source, kind, target], [blur, noise, quality, dropped, note], **queue)
