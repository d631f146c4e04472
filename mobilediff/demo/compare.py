"""Compare models in a tab: one prompt, one noise, the fastest model first."""

import html
import json
import random
from pathlib import Path

import gradio as gr
import torch
from gradio.processing_utils import save_bytes_to_cache

from eval.protocol import device_description
from mobilediff.demo.arena import build_fold
from mobilediff.demo.environment import RESULTS
from mobilediff.demo.page.cards import CARDS, CHOOSE_PAIR, SHOW_PAIR
from mobilediff.demo.page.stream import stream
from mobilediff.demo.service import comparison
from mobilediff.demo.service.comparison import add_quality, add_speeds
from mobilediff.demo.service.examples import choose_example
from mobilediff.demo.service.inputs import MAX_IMAGES, MAX_SEED
from mobilediff.demo.service.link import NAMES, read_link
from mobilediff.demo.service.models import Models
from mobilediff.demo.service.reported import reported_qualities, reported_records
from mobilediff.demo.service.settings import FEW_STEPS, MANY_STEPS, MAX_GUIDANCE, OWN, check_settings
from mobilediff.demo.service.sheet import draw_sheet
from mobilediff.demo.service.vocabulary import prompt_choices

RESTORED = "These choices are from the link; press Compare to draw."
# The link also goes into the address bar, since a browser lets a page write to the clipboard only over HTTPS.
COPY_LINK = """(...values) => {
  const link = new URL(window.location.href);
  const names = NAMES;
  names.forEach((name, i) => {
    if (values[i] === null || values[i] === "") link.searchParams.delete(name);
    else link.searchParams.set(name, values[i]);
  });
  window.history.replaceState(null, "", link);
  const copied = navigator.clipboard ? navigator.clipboard.writeText(link.href) : Promise.reject();
  return copied.then(
    () => "The link is copied, and in the address bar.",
    () => "The link is in the address bar.");
}""".replace("NAMES", json.dumps(NAMES))
DOWNLOAD = """() => setTimeout(() => document.querySelector("#sheet-file").click(), 50)"""


def introduction(device: torch.device) -> str:
    """Say what is compared, and what the times are of."""
    machine = device_description(device)
    return (
        "Each model draws the same prompt from the same noise, the fastest first. Times are of the one call you see, "
        f"from text to images, on {machine['device_name']} ({machine['device']}, threads: {machine['threads']}). "
        "GMACs are of one network evaluation."
    )


def build_tab(
    page: gr.Blocks, models: Models, examples: list[dict], answers: Path | None = None, results_file: Path = RESULTS
) -> None:
    """Build the tab's content.

    gradio's checks of single inputs are off (`preprocess=False`), since a program's values may end in them without a
    message; the functions of `service` check all of them.

    Args:
        page: whose address may hold choices.
        models: to compare.
        examples: shown without running a model.
        answers: file that keeps those on which of two pictures is better; None keeps none.
        results_file: the report's, with the models' quality.
    """
    qualities = reported_qualities(reported_records(results_file))
    for one in examples:
        for record in one["records"]:
            record |= {"prompt": one["prompt"], "seed": one["seed"]}
        add_speeds(one["records"])
        add_quality(one["records"], qualities)

    async def compare(
        prompt: str, seed: int, count: int, chosen: list[str],
        few_steps: str | int = OWN, many_steps: str | int = OWN, guidance: float | None = None,
    ):  # fmt: skip
        """Draw one prompt from one noise with several models in turn, the cheapest first.

        Args:
            prompt: what the pictures show, an animal or a vehicle; up to 200 characters.
            seed: of the first picture, a whole number; picture i has the seed + i.
            count: pictures of each model, 1 to 8.
            chosen: names of the models.
            few_steps: of one-step students: "own", 1, 2 or 4.
            many_steps: of teacher and student: "own", 25 or 50.
            guidance: of teacher and student, 0 to 10; none leaves each model its own.

        Returns:
            One record a model, with its pictures as data URIs, their time and the model's figures; and notes.
        """

        def steps(cancelled):
            settings = check_settings(few_steps, many_steps, guidance)
            return comparison.compare(models, chosen, prompt, seed, count, cancelled, settings=settings)

        async for records, notes in stream(steps):
            add_quality(records, qualities)
            yield records, html.escape(notes)

    def example(index: int):
        """Show a comparison that was drawn before, without running a model.

        Args:
            index: of the example, from 0.

        Returns:
            Its prompt, seed, number of images, records as of compare, and no warnings.
        """
        shown = choose_example(examples, index)
        return shown["prompt"], shown["seed"], shown["count"], shown["records"], ""

    def restore(request: gr.Request):
        try:
            choices = read_link(request.query_params, models.names)
        except ValueError as error:
            return [gr.skip()] * len(inputs) + [html.escape(f"The link cannot be restored. {error}")]
        if choices is None:
            return [gr.skip()] * len(inputs) + [""]
        settings = choices.settings
        given = [choices.prompt, choices.seed, choices.count, choices.models]
        restored = [gr.skip() if value is None else value for value in given]
        return [*restored, settings.few_steps, settings.many_steps, settings.guidance, RESTORED]

    def sheet(records: list[dict]):
        """Draw the records of a comparison on one sheet with captions.

        Args:
            records: as of compare.

        Returns:
            A PNG file.
        """
        return save_bytes_to_cache(draw_sheet(records), "mobilediff.png", file.GRADIO_CACHE)

    gr.Markdown(introduction(models.drawing_device))
    with gr.Row():
        prompt = gr.Textbox("a fire truck", label="Prompt", max_lines=1, info="An animal or a vehicle", min_width=240)
        nouns = gr.Dropdown(
            prompt_choices(), value=None, label="Names that the models know", info="Type to search", min_width=240
        )
    with gr.Row():
        seed = gr.Number(0, label="Seed", min_width=120)
        count = gr.Slider(1, MAX_IMAGES, 4, step=1, label="Images", min_width=160)
        dice = gr.Button("Random seed", min_width=160, scale=0)
    chosen = gr.CheckboxGroup(models.names, value=models.names, label="Models")
    with gr.Accordion("Advanced: steps and guidance", open=False), gr.Row():
        few_steps = gr.Radio(FEW_STEPS, value=OWN, label="Steps of one-step students", min_width=200)
        many_steps = gr.Radio(MANY_STEPS, value=OWN, label="Steps of teacher and student", min_width=200)
        guidance = gr.Number(
            None, label="Guidance of teacher and student", minimum=0, maximum=MAX_GUIDANCE, step=0.5, min_width=200,
            info="0 to 10; 1 is none, empty is each model's own",
        )  # fmt: skip
    inputs = [prompt, seed, count, chosen, few_steps, many_steps, guidance]
    with gr.Row():
        button = gr.Button("Compare", variant="primary", min_width=160, scale=2)
        stop = gr.Button("Stop", min_width=100)
        link = gr.Button("Copy link", min_width=120)
        download = gr.Button("Download all", min_width=140)
    file = gr.DownloadButton("Sheet", visible="hidden", elem_id="sheet-file")
    if examples:
        gallery = gr.Dataset(
            components=["textbox"],
            samples=[[example["prompt"]] for example in examples],
            type="index",
            label="Examples, precomputed: shown without running a model",
        )
    note = gr.HTML(elem_classes="note")
    results = gr.HTML(
        examples[0]["records"] if examples else [], html_template=CARDS, js_on_load=CHOOSE_PAIR, pairs=True,
        elem_id="comparison", elem_classes="results",
    )  # fmt: skip
    slider = gr.ImageSlider(interactive=False, visible=False, buttons=["fullscreen"], max_height=768)
    with gr.Accordion("Which picture is better?", open=False):
        build_fold(models, chosen, answers)
    if examples:
        outputs = [prompt, seed, count, results, note]
        gallery.click(example, gallery, outputs, concurrency_limit=None, preprocess=False)
    nouns.input(None, nouns, prompt, js="(prompt) => prompt", api_visibility="private")
    dice.click(lambda: random.randint(0, MAX_SEED), None, seed, queue=False, api_visibility="private")
    drawing = gr.on(
        [button.click, prompt.submit], compare, inputs, [results, note],
        concurrency_limit=1, concurrency_id="models",
        preprocess=False, show_progress="minimal", show_progress_on=prompt,
    )  # fmt: skip
    stop.click(None, cancels=drawing, api_visibility="private")
    for event in (results.select, results.change):
        event(None, None, slider, js=SHOW_PAIR, api_visibility="private")
    link.click(None, inputs, note, js=COPY_LINK, api_visibility="private")
    drawn = download.click(sheet, results, file, preprocess=False, concurrency_limit=1)
    drawn.success(None, js=DOWNLOAD, api_visibility="private")
    page.load(restore, None, [*inputs, note], queue=False, api_visibility="private")
