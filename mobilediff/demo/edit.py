"""Edit a picture in a tab: upload or draw one, mask a part of it, and choose among proposals."""

import html
from collections.abc import Callable

import gradio as gr
from gradio.data_classes import FileData
from PIL import Image

from mobilediff.demo.page.blocks import of_event
from mobilediff.demo.page.pictures import CHOICES, CHOOSE
from mobilediff.demo.page.stream import stream
from mobilediff.demo.service import editing
from mobilediff.demo.service.editing import Inpainters, chosen_proposal, preferred
from mobilediff.demo.service.inputs import MAX_IMAGES
from mobilediff.demo.service.models import Models
from mobilediff.demo.service.pictures import MAX_SIDE, SIZE, read_picture

SIDE = 12 * SIZE[0]  # pixels of the editor's canvas, 12 for one of the picture
BRUSH = gr.Brush(default_size=SIDE // 8, colors=[("#ff00ff", 0.7)], color_mode="fixed")
ERASER = gr.Eraser(default_size=SIDE // 8)
INTRODUCTION = (
    "Draw a part of a picture anew, or variations of the whole. Upload a PNG or JPEG file of up to "
    f"{MAX_SIDE:,} pixels a side, of which the middle square is brought to {SIZE[0]} x {SIZE[1]} pixels, or let the "
    "one-step student draw one."
)
REPAINT = (
    "Paint over what is to be drawn anew. All else keeps every byte. At a strength of 1 the model does not see what "
    "lies under the mask; below, it starts from that."
)
VARY = "The lower the strength, the more of the picture is kept; at 1 the model does not see it."
HINT = "{{#if value.pictures}}<p>Press a proposal to edit it next.</p>{{/if}}"
Choices = tuple[gr.Slider, gr.Dropdown, gr.Button, gr.Button]
CSS = """
#edited img { width: 100%; height: 100%; object-fit: contain; image-rendering: pixelated; }
#proposals .pictures { grid-template-columns: repeat(auto-fill, minmax(128px, 1fr)); }
"""


def take_anything(component: gr.Image | gr.ImageEditor, **more: object) -> None:
    """Let a component of a picture hand on whatever a program sent, for `service` to refuse with a message.

    To programs it is described as one file; `more` are further attributes that the component gets.
    """
    own = {"data_model": None, "api_info": FileData.model_json_schema}
    for name, value in (own | more).items():
        setattr(component, name, value)


def build_tab(models: Models) -> None:
    """Build the tab's content."""
    inpainters = Inpainters(models)

    async def new_picture(prompt: str, seed: int):
        """Draw a picture to edit, in one step where the one-step student is there.

        Args:
            prompt: what it shows, an animal or a vehicle; up to 200 characters.
            seed: of the noise, a whole number.

        Returns:
            A PNG file.
        """
        async for image in stream(lambda cancelled: editing.new_picture(models, prompt, seed, cancelled)):
            yield image

    async def repaint(picture, mask, prompt: str, strength: float, model: str, seed: int, count: int):
        """Draw the masked part of a picture anew, several times; the rest keeps every byte.

        Args:
            picture: a PNG or JPEG file, RGB; its middle square is brought to 32 x 32 pixels.
            mask: a file of the same size, white where the picture is drawn anew.
            prompt: what the whole picture then shows; up to 200 characters.
            strength: above 0, up to 1, where what is under the mask is not seen.
            model: name of one model.
            seed: of the first proposal, a whole number; the others follow.
            count: number of proposals, 1 to 8.

        Returns:
            Pictures as data URIs with captions, and notes.
        """
        given = picture, mask, prompt, strength, model, seed, count
        folder = edited.GRADIO_CACHE
        async for pictures, notes in stream(lambda cancelled: editing.repaint(inpainters, folder, *given, cancelled)):
            yield pictures, html.escape(notes)

    async def vary(picture, prompt: str, strength: float, model: str, seed: int, count: int):
        """Draw variations of a whole picture.

        Args:
            picture: a PNG or JPEG file, RGB; its middle square is brought to 32 x 32 pixels.
            prompt: what the variations show; up to 200 characters.
            strength: how much is drawn anew, above 0, up to 1, where the picture is not seen.
            model: name of one model.
            seed: of the first variation, a whole number; the others follow.
            count: number of variations, 1 to 8.

        Returns:
            Pictures as data URIs with captions, and notes.
        """
        given = picture, prompt, strength, model, seed, count
        folder = edited.GRADIO_CACHE
        async for pictures, notes in stream(lambda cancelled: editing.vary(models, folder, *given, cancelled)):
            yield pictures, html.escape(notes)

    def show(picture):
        if picture is None:
            return None
        image, _ = read_picture(picture, edited.GRADIO_CACHE)
        return image.resize((SIDE, SIDE), Image.Resampling.NEAREST)

    def edit_next(event: gr.EventData):
        return chosen_proposal(of_event(event, "image"))

    gr.Markdown(INTRODUCTION)
    with gr.Row():
        edited = gr.Image(
            sources=["upload"], label="Picture", format="png", height=240, buttons=[], min_width=240,
            elem_id="edited",
        )  # fmt: skip
        take_anything(edited)
        with gr.Column(min_width=240):
            wanted = gr.Textbox("a red deer", label="Prompt of a new picture", max_lines=1)
            number = gr.Number(0, label="Seed of the new picture")
            new = gr.Button("Draw a new picture")
    with gr.Row():
        prompt = gr.Textbox("a horse", label="Prompt of the proposals", max_lines=1, min_width=240)
        seed = gr.Number(0, label="First seed", min_width=120)
        count = gr.Slider(1, MAX_IMAGES, 4, step=1, label="Proposals", min_width=240)
    with gr.Tab("Repaint a part"):
        gr.Markdown(REPAINT)
        mask = gr.ImageEditor(
            label="Mask", format="png", canvas_size=(SIDE, SIDE), fixed_canvas=True, sources=(), transforms=(),
            layers=False, brush=BRUSH, eraser=ERASER, buttons=[], elem_id="mask",
        )  # fmt: skip
        # which takes in strokes while they are drawn, of any size and number: this page asks at the end alone
        take_anything(mask, accept_blobs=None)
        repainting = _choices(inpainters.names, inpainters.preferred, 1.0, "Repaint")
    with gr.Tab("Vary the whole picture"):
        gr.Markdown(VARY)
        varying = _choices(models.names, preferred(models.names), 0.5, "Vary")
    note = gr.HTML(elem_classes="note")
    drawn = gr.HTML(
        {"text": "", "pictures": []}, html_template=CHOICES + HINT, js_on_load=CHOOSE, elem_id="proposals",
        elem_classes="explored", min_height=40,
    )  # fmt: skip
    drawing = new.click(
        new_picture, [wanted, number], edited,
        concurrency_limit=1, concurrency_id="edits", preprocess=False, show_progress_on=edited,
    )  # fmt: skip
    choosing = drawn.select(edit_next, None, edited, preprocess=False, queue=False, api_visibility="private")
    # not `edited.change`, which comes more than once: then a file is written anew while the editor loads it
    for event in (edited.upload, edited.clear, drawing.success, choosing.success):
        event(show, edited, mask, preprocess=False, show_progress="hidden", api_visibility="private")

    def run(function: Callable, pictures: list, choices: Choices) -> None:
        strength, model, button, stop = choices
        drawing = button.click(
            function, [*pictures, prompt, strength, model, seed, count], [drawn, note],
            concurrency_limit=1, concurrency_id="edits",
            preprocess=False, show_progress="minimal", show_progress_on=drawn,
        )  # fmt: skip
        stop.click(None, cancels=[drawing], api_visibility="private")

    run(repaint, [edited, mask], repainting)
    run(vary, [edited], varying)


def _choices(names: list[str], chosen: str | None, strength: float, action: str) -> Choices:
    """Add the strength, the model and the buttons of one kind of edit."""
    with gr.Row():
        slider = gr.Slider(0.05, 1, strength, step=0.05, label="Strength", min_width=200)
        model = gr.Dropdown(names, value=chosen, label="Model", min_width=200)
    with gr.Row():
        button = gr.Button(action, variant="primary", min_width=160)
        stop = gr.Button("Stop", min_width=100, scale=0)
    return slider, model, button, stop
