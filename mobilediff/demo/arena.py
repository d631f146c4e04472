"""Choose the better of two pictures in a fold of the tab Compare, without knowing which models drew them."""

import json
from pathlib import Path

import gradio as gr

from mobilediff.demo.page.pictures import PICTURES
from mobilediff.demo.page.stream import stream
from mobilediff.demo.service.arena import CHOICES, Arena
from mobilediff.demo.service.models import Models

BUTTONS = dict(zip(CHOICES, ("Left is better", "Right is better", "Both the same", "Skip"), strict=True))
INTRODUCTION = (
    "Two of the models chosen above draw one prompt from one noise, each with its own steps. Say which picture is "
    "better; then their names are shown, and the next two are drawn. "
)
KEPT = (
    "Models, prompt, seed, answer and time are kept on this machine, nothing about you; "
    "`python -m eval.arena` makes scores of them."
)
NOT_KEPT = "Answers are kept nowhere here."
EMPTY = {"text": "", "pictures": []}
# Screen readers say the question, and the names once they are there.
SPOKEN = PICTURES.replace('<p class="time">', '<p class="time" role="status">').replace(
    'alt="{{caption}}"', 'alt="{{caption}} picture"'
)
CSS = """
.arena .pictures { grid-template-columns: repeat(2, minmax(0, 256px)); }
.arena.answered .pictures { grid-template-columns: repeat(2, minmax(0, 96px)); }
"""


def build_fold(models: Models, chosen: gr.CheckboxGroup, file: Path | None) -> None:
    """Build the fold's content.

    Args:
        models: that draw.
        chosen: the names to draw with.
        file: of the answers; None keeps none.
    """
    arena = Arena(models, file)

    async def draw_pair(chosen: list[str]):
        """Draw one prompt from one noise with two models, which are named once the pair is answered.

        Args:
            chosen: names of two models or more, two of which draw.

        Returns:
            Two pictures as data URIs, the left one first, with the question, and the name of the pair.
        """
        async for step in stream(lambda cancelled: arena.draw_pair(chosen, cancelled)):
            yield step

    def answer_pair(pair: str, answer: str):
        """Say which picture of a pair is better, and learn which models drew them.

        Args:
            pair: name of the pair, as of draw_pair.
            answer: "left", "right", "same", or "skip", which is not kept.

        Returns:
            The two pictures as data URIs with the models' names, and what was answered.
        """
        return arena.answer(pair, answer)

    gr.Markdown(INTRODUCTION + (KEPT if arena.file else NOT_KEPT))
    start = gr.Button("Draw two pictures", min_width=160)
    drawn = gr.HTML(EMPTY, html_template=SPOKEN, elem_classes="explored arena", min_height=40)
    pair, answer = (gr.Textbox(visible="hidden", label=label) for label in ("Pair", "Answer"))
    with gr.Row():
        buttons = {choice: gr.Button(label, min_width=140) for choice, label in BUTTONS.items()}
    answered = gr.HTML(EMPTY, html_template=SPOKEN, elem_classes="explored arena answered", min_height=40)
    queue = {"concurrency_limit": 1, "preprocess": False, "show_progress": "minimal"}
    drawing = {"concurrency_id": "models", "show_progress_on": drawn, **queue}
    start.click(draw_pair, chosen, [drawn, pair], **drawing)
    for choice, button in buttons.items():
        event = button.click(
            answer_pair, [pair, answer], answered,
            js=f"(pair) => [pair, {json.dumps(choice)}]", show_progress_on=answered, concurrency_id="answers",
            api_visibility="public" if choice == CHOICES[0] else "private", **queue,
        )  # fmt: skip
        event.success(draw_pair, chosen, [drawn, pair], api_visibility="private", **drawing)
