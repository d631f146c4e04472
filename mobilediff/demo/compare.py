"""Compare models in a tab: one prompt, one noise, the fastest model first."""

import html
import random

import gradio as gr

from mobilediff.demo.page.cards import CARDS
from mobilediff.demo.page.stream import stream
from mobilediff.demo.work import comparison
from mobilediff.demo.work.examples import choose_example
from mobilediff.demo.work.inputs import MAX_IMAGES, MAX_SEED
from mobilediff.demo.work.models import Models


def build_tab(models: Models, examples: list[dict]) -> None:
    """Build the tab's content.

    gradio's checks of single inputs are off (`preprocess=False`), since a program's values may end in them without a
    message; `compare` and `choose_example` check all of them.
    """

    async def compare(prompt: str, seed: int, count: int, chosen: list[str]):
        """Draw a prompt from the same noise with each chosen model in turn.

        Args:
            prompt: a noun or a sentence that names an animal or a vehicle.
            seed: of the first image, from 0 to 4294967295; the next images have the next seeds.
            count: images of each model, 1 to 8.
            chosen: names of the models.

        Returns:
            One record a model: name, figures, status, latency in ms of the whole call, images as data URIs (PNG).
            Warnings about the prompt.
        """

        def steps(cancelled):
            return comparison.compare(models, chosen, prompt, seed, count, cancelled)

        async for records, notes in stream(steps):
            yield records, html.escape(notes)

    def example(index: int):
        """Show a comparison that was drawn before, without running a model.

        Args:
            index: of the example, from 0.

        Returns:
            Its prompt, seed, number of images, records as of compare, and no warnings.
        """
        try:
            chosen = choose_example(examples, index)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return chosen["prompt"], chosen["seed"], chosen["count"], chosen["records"], ""

    prompt = gr.Textbox("a fire truck", label="Prompt", max_lines=1, info="An animal or a vehicle")
    with gr.Row():
        seed = gr.Number(0, label="Seed", min_width=120)
        count = gr.Slider(1, MAX_IMAGES, 4, step=1, label="Images", min_width=160)
        dice = gr.Button("Random seed", min_width=160, scale=0)
    chosen = gr.CheckboxGroup(models.names, value=models.names, label="Models")
    button = gr.Button("Compare", variant="primary")
    if examples:
        gallery = gr.Dataset(
            components=["textbox"],
            samples=[[example["prompt"]] for example in examples],
            type="index",
            label="Examples, precomputed: shown without running a model",
        )
    note = gr.HTML(elem_classes="note")
    results = gr.HTML(examples[0]["records"] if examples else [], html_template=CARDS, elem_classes="results")
    if examples:
        outputs = [prompt, seed, count, results, note]
        gallery.click(example, gallery, outputs, queue=False, preprocess=False)
    dice.click(lambda: random.randint(0, MAX_SEED), None, seed, queue=False, api_visibility="private")
    gr.on(
        [button.click, prompt.submit], compare, [prompt, seed, count, chosen], [results, note],
        concurrency_limit=1, concurrency_id="models",
        preprocess=False, show_progress="minimal", show_progress_on=prompt,
    )  # fmt: skip
