"""Draw by a sketch in a tab: a picture of the one-step control model while the pen moves."""

import html
import random

import gradio as gr

from mobilediff.captions import CLASS_NAMES, caption
from mobilediff.demo.page.canvas import CANVAS, SKETCH
from mobilediff.demo.page.pictures import PICTURES
from mobilediff.demo.service.models import Models
from mobilediff.demo.service.sketches import COLORS, blank_sketch, example_sketches
from mobilediff.demo.service.sketching import CONTROL, MAX_SCALE, MAX_WEIGHT, NO_LORA, Sketcher, has_control
from mobilediff.demo.service.vocabulary import PROMPT

MISSING = (
    f"The model that draws by a sketch is not here: `{CONTROL}` is missing among the checkpoints. "
    "`python -m mobilediff.training.control` trains it, and its export belongs there; then start the app again."
)
INTRODUCTION = (
    "Draw, and the one-step model follows: black lines are the edges of the picture, colours below them its coarse "
    "colours. Once something is coloured, the paper counts as white. A drawing of 32 x 32 pixels is all that it sees."
)
EMPTY = {"text": "", "pictures": []}
CSS = """
.sketched .pictures { grid-template-columns: repeat(4, 1fr); max-width: 384px; margin: 0 auto; }
.sketched .pictures img { border: 1px solid var(--border-color-primary); }
.sketched .pictures figure:first-child { grid-column: 1 / -1; }
.sketched .time { max-width: 384px; margin: 4px auto; }
@media (max-width: 480px) { .sketched .pictures, .sketched .time { max-width: 300px; } }
"""


def build_tab(models: Models, examples: list[dict]) -> None:
    """Build the tab's content; `examples` are sketched as a start."""
    if not has_control(models):
        gr.Markdown(MISSING)
        return
    sketcher, sketches = Sketcher(models), example_sketches(examples)
    has_loras = len(sketcher.loras) > 1

    def draw(
        sketch: str, prompt: str, seed: int,
        scale: float = 1.0, lora: str = NO_LORA, weight: float = 1.0,
    ):  # fmt: skip
        """Draw a prompt by a sketch with the one-step control model.

        Args:
            sketch: a square PNG as a data URI or an uploaded file, black lines and colours on white.
            prompt: what the picture shows, an animal or a vehicle; up to 200 characters.
            seed: of the picture, a whole number.
            scale: of the control, 0 to 2; 0 draws as without a sketch.
            lora: name of a style, or "none".
            weight: of the style, 0 to 2.

        Returns:
            The picture, and the lines and colours that the network was given, as data URIs; and notes.
        """
        drawn, notes = sketcher.draw(sketch, prompt, seed, scale, lora, weight, canvas.GRADIO_CACHE)
        return drawn, html.escape(notes)

    def follow(*values):
        with sketcher.at_once():
            return draw(*values)

    def surprise():
        sketch, words = random.choice(sketches)
        return sketch, words

    gr.Markdown(INTRODUCTION)
    with gr.Row():
        with gr.Column(min_width=300):
            canvas = gr.HTML(
                blank_sketch(), html_template=CANVAS, js_on_load=SKETCH,
                colors=[{"name": name, "value": f"rgb{color}"} for name, color in COLORS.items()],
            )  # fmt: skip
        with gr.Column(min_width=300):
            drawn = gr.HTML(EMPTY, html_template=PICTURES, elem_classes="sketched", min_height=40)
            note = gr.HTML(elem_classes="note")
    with gr.Row():
        prompt = gr.Textbox(caption(CLASS_NAMES[7], PROMPT), label="Prompt", max_lines=1, min_width=240)
        seed = gr.Number(0, label="Seed", min_width=120)
        scale = gr.Slider(
            0, MAX_SCALE, 1, step=0.1, label="Control scale", min_width=240, info="0 draws as without a sketch"
        )
    with gr.Row():
        choices = sketcher.loras
        lora = gr.Dropdown(choices, value=NO_LORA, label="LoRA", info="A style", min_width=200, visible=has_loras)
        weight = gr.Slider(0, MAX_WEIGHT, 1, step=0.1, label="Weight of the LoRA", min_width=200, visible=has_loras)
    with gr.Row():
        button = gr.Button("Draw", variant="primary", min_width=160)
        start = gr.Button("Surprise me", min_width=160, visible=bool(sketches))
    inputs, outputs = [canvas, prompt, seed, scale, lora, weight], [drawn, note]
    gr.on(
        [button.click, prompt.submit], draw, inputs, outputs,
        concurrency_limit=1, concurrency_id="sketches", preprocess=False, show_progress="hidden",
    )  # fmt: skip
    # the queue would look for news at its own pace, which takes longer than the picture
    gr.on(
        [canvas.change, seed.change, scale.change, lora.change, weight.change], follow, inputs, outputs,
        queue=False, trigger_mode="always_last", preprocess=False, show_progress="hidden", api_visibility="private",
    )  # fmt: skip
    if sketches:
        start.click(surprise, None, [canvas, prompt], queue=False, api_visibility="private")
