"""Explore models in a tab: many seeds, many nouns, pictures between two, steps, latents on their way."""

import html
from collections.abc import AsyncIterator, Callable, Iterator

import gradio as gr

from eval.samples.prompts import commonest_nouns
from mobilediff.captions import load_nouns
from mobilediff.demo.page.pictures import PICTURES
from mobilediff.demo.page.stream import stream
from mobilediff.demo.service import exploration
from mobilediff.demo.service.exploration import (
    MAX_FRAMES,
    MAX_NOUNS,
    MAX_SEEDS,
    MAX_SEEDS_OF_SLOW,
    MIN_FRAMES,
    MIN_SEEDS,
    Progress,
)
from mobilediff.demo.service.models import Models

FIRST_NOUNS = 10
EMPTY = {"text": "", "pictures": []}


async def shown(explore: Callable[..., Iterator[Progress]], *arguments: object) -> AsyncIterator[Progress]:
    """Stream pictures and notes of an exploration; the notes quote a visitor's prompt, so they are escaped."""
    async for pictures, notes in stream(lambda cancelled: explore(*arguments, cancelled)):
        yield pictures, html.escape(notes)


def build_tab(models: Models) -> None:
    """Build the tab's content, a tab inside it for each exploration."""
    with gr.Tab("Seeds"):
        _seeds(models)
    with gr.Tab("Nouns"):
        _nouns(models)
    with gr.Tab("Between seeds"):
        _between_seeds(models)
    with gr.Tab("Between prompts"):
        _between_prompts(models)
    with gr.Tab("Steps"):
        _steps(models)
    with gr.Tab("On the way"):
        _latents(models)


def _run(run: Callable, inputs: list) -> None:
    """Add the buttons, the note and the pictures, and draw on a click or at the end of a prompt."""
    with gr.Row():
        button = gr.Button("Draw", variant="primary", min_width=160)
        stop = gr.Button("Stop", min_width=100, scale=0)
    note = gr.HTML(elem_classes="note")
    drawn = gr.HTML(EMPTY, html_template=PICTURES, elem_classes="explored", min_height=40)
    submits = [component.submit for component in inputs if isinstance(component, gr.Textbox)]
    drawing = gr.on(
        [button.click, *submits], run, inputs, [drawn, note],
        concurrency_limit=1, concurrency_id="explorations",
        preprocess=False, show_progress="minimal", show_progress_on=drawn,
    )  # fmt: skip
    stop.click(None, cancels=drawing, api_visibility="private")


def _prompt(value: str = "a fire truck", label: str = "Prompt") -> gr.Textbox:
    return gr.Textbox(value, label=label, max_lines=1, min_width=240)


def _model(models: Models, default: str) -> gr.Dropdown:
    value = default if default in models.names else next(iter(models.names), None)
    return gr.Dropdown(models.names, value=value, label="Model", min_width=200)


def _seed(value: int = 0, label: str = "Seed") -> gr.Number:
    return gr.Number(value, label=label, min_width=120)


def _frames() -> gr.Slider:
    return gr.Slider(MIN_FRAMES, MAX_FRAMES, 8, step=1, label="Pictures", min_width=160)


def _seeds(models: Models) -> None:
    async def explore_seeds(prompt, model, seed, count):
        """Draw one prompt from many seeds, which shows a model's diversity.

        Args:
            prompt: what the pictures show, an animal or a vehicle; up to 200 characters.
            model: name of one model.
            seed: the first, a whole number; the others follow.
            count: number of pictures, 4 to 64, of a slow model to 16.

        Returns:
            Pictures as data URIs with captions, and notes.
        """
        async for step in shown(exploration.explore_seeds, models, model, prompt, seed, count):
            yield step

    gr.Markdown("One prompt, one model, many seeds: how different its pictures are.")
    with gr.Row():
        prompt, model = _prompt(), _model(models, "student-1step")
        seed = _seed()
        count = gr.Slider(
            MIN_SEEDS, MAX_SEEDS, 16, step=4, label="Pictures", min_width=160,
            info=f"Of slow models up to {MAX_SEEDS_OF_SLOW}",
        )  # fmt: skip
    _run(explore_seeds, [prompt, model, seed, count])


def _nouns(models: Models) -> None:
    async def explore_nouns(nouns, model, seed):
        """Draw many nouns from one and the same noise.

        Args:
            nouns: 1 to 16 of those that the models were trained on.
            model: name of one model.
            seed: of the noise, a whole number.

        Returns:
            Pictures as data URIs with captions, and notes.
        """
        async for step in shown(exploration.explore_nouns, models, model, nouns, seed):
            yield step

    gr.Markdown("One seed, one model, many nouns: what the noise decides, and what the prompt.")
    nouns = gr.Dropdown(
        sorted(load_nouns()), value=commonest_nouns(FIRST_NOUNS), multiselect=True, max_choices=MAX_NOUNS,
        label="Nouns", info=f"Up to {MAX_NOUNS}; type to search",
    )  # fmt: skip
    with gr.Row():
        model, seed = _model(models, "student-1step"), _seed()
    _run(explore_nouns, [nouns, model, seed])


def _between_seeds(models: Models) -> None:
    async def explore_noise(prompt, model, first_seed, last_seed, count):
        """Draw one prompt from noises between those of two seeds (spherical interpolation).

        Args:
            prompt: what the pictures show, an animal or a vehicle; up to 200 characters.
            model: name of one model.
            first_seed: a whole number.
            last_seed: another one.
            count: number of pictures, 3 to 16.

        Returns:
            Pictures as data URIs with captions, and notes.
        """
        async for step in shown(exploration.explore_noise, models, model, prompt, first_seed, last_seed, count):
            yield step

    gr.Markdown("One prompt, and noises along the arc from one seed's to another's.")
    with gr.Row():
        prompt, model = _prompt(), _model(models, "student-1step")
        first, last, count = _seed(0, "First seed"), _seed(1, "Last seed"), _frames()
    _run(explore_noise, [prompt, model, first, last, count])


def _between_prompts(models: Models) -> None:
    async def explore_prompts(first_prompt, last_prompt, model, seed, count):
        """Draw mixtures of two prompts' embeddings from one and the same noise.

        Args:
            first_prompt: up to 200 characters.
            last_prompt: likewise.
            model: name of one model.
            seed: of the noise, a whole number.
            count: number of pictures, 3 to 16.

        Returns:
            Pictures as data URIs with captions, and notes.
        """
        async for step in shown(exploration.explore_prompts, models, model, first_prompt, last_prompt, seed, count):
            yield step

    gr.Markdown("One noise, and embeddings on the straight line from one prompt's to another's.")
    with gr.Row():
        first, last = _prompt("a red deer", "First prompt"), _prompt("a fire truck", "Last prompt")
    with gr.Row():
        model, seed, count = _model(models, "student-1step"), _seed(), _frames()
    _run(explore_prompts, [first, last, model, seed, count])


def _steps(models: Models) -> None:
    async def explore_steps(prompt, chosen, seed):
        """Draw one prompt from one noise in each number of steps that each model takes.

        Args:
            prompt: what the pictures show, an animal or a vehicle; up to 200 characters.
            chosen: names of models.
            seed: of the noise, a whole number.

        Returns:
            Pictures as data URIs with captions, and notes.
        """
        async for step in shown(exploration.explore_steps, models, chosen, prompt, seed):
            yield step

    gr.Markdown(
        "The same noise in 1, 2, 4, 8 and 25 steps. A distilled student draws in the steps that it was distilled for; "
        "teacher and student, which were not, need many."
    )
    with gr.Row():
        prompt, seed = _prompt(), _seed()
    chosen = gr.CheckboxGroup(models.names, value=models.names, label="Models")
    _run(explore_steps, [prompt, chosen, seed])


def _latents(models: Models) -> None:
    async def explore_latents(prompt, model, seed):
        """Draw one picture, and decode its latents before the first and after each step.

        Args:
            prompt: what the picture shows, an animal or a vehicle; up to 200 characters.
            model: name of one model.
            seed: of the noise, a whole number.

        Returns:
            Pictures as data URIs with captions, and notes.
        """
        async for step in shown(exploration.explore_latents, models, model, prompt, seed):
            yield step

    gr.Markdown("The latents of one picture, decoded after each step: from noise to picture.")
    with gr.Row():
        prompt, model, seed = _prompt(), _model(models, "student"), _seed()
    _run(explore_latents, [prompt, model, seed])
