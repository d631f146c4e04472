"""Measure models in a tab, on samples drawn here."""

import html
import json
import uuid
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import gradio as gr

from eval.schema import Record
from mobilediff.demo import damage, pictures
from mobilediff.demo.environment import RESULTS, path_of, whole_number_of
from mobilediff.demo.page.blocks import of_event
from mobilediff.demo.page.grids import grids
from mobilediff.demo.page.stream import stream
from mobilediff.demo.service import evaluation
from mobilediff.demo.service.evaluation import (
    FIGURES,
    LATENCY,
    METRICS,
    MIN_SAMPLES,
    Figure,
    Outcome,
    State,
)
from mobilediff.demo.service.inputs import check_whole
from mobilediff.demo.service.models import Models
from mobilediff.demo.service.reported import reported_records
from mobilediff.demo.service.targets import Targets

CSS = """
.evaluation progress { width: 100%; height: 12px; } .evaluation p { margin: 4px 0; font-weight: 600; }
.evaluation .html-container, .newest .html-container, .downloads .html-container { padding: 0; }
.downloads a { display: inline-block; margin: 0 16px 8px 0; text-decoration: underline; }
"""
DEFAULT_SAMPLES, MAX_SAMPLES = 500, 2000
DEFAULT_METRICS = ["frechet_distance", "class_accuracy", "clip_score"]
MAX_ROWS = 100  # of a visit, so that no session holds ever more
SO_FAR = ["Model", "Figure", "Value", "95 % interval", "Over"]
COLUMNS = [*(name for figures in FIGURES.values() for name in figures.values()), LATENCY]
DATATYPES: list[Any] = ["number", "str", "number", "number", *["number"] * len(COLUMNS)]
INTRODUCTION = (
    "Samples are drawn here, one seed an image, and measured with the bundled classifier and CLIP against the shipped "
    "statistics of CIFAR-10's training images. The figures are those of the commands below each result. Who compares "
    "models meanwhile goes first."
)


def introduction(targets: Targets, most: int) -> str:
    """Write the head of the tab in Markdown, with the exports that are left out."""
    limits = f"Up to {most:,} samples a model; a Fréchet distance needs more than 256."
    problems = ["", *(f"- {one}" for one in targets.problems)] if targets.problems else []
    return "\n".join([f"{INTRODUCTION} {limits}", *problems])


def progress_html(state: State) -> str:
    """Lay out the progress of an evaluation."""
    role = ' role="status"' if state.is_last else ""  # read out once, not each second
    return (
        f"<p{role}>{html.escape(state.text)}</p>"
        f'<progress aria-label="Samples drawn" max="1" value="{state.fraction:.4f}"></progress>'
    )


def so_far(figures: list[Figure]) -> list[list[str]]:
    """Tabulate figures with their intervals, a row each."""
    return [
        [
            one.model,
            one.name,
            f"{one.value:.4g}",
            "" if one.low is None or one.high is None else f"{one.low:.4g} to {one.high:.4g}",
            f"{one.n:,} {'calls' if one.name == LATENCY else 'samples'}",
        ]
        for one in figures
    ]


def visit_table(history: list[dict]) -> list[list]:
    """Tabulate the results of a visit, a row each."""
    return [
        [
            number,
            one["model"],
            one["n"],
            one["seed"],
            *(float(f"{one['figures'][name]['value']:.4g}") if name in one["figures"] else None for name in COLUMNS),
        ]
        for number, one in enumerate(history, start=1)
    ]


def downloads_html(results: Mapping[str, dict]) -> str:
    """Link the JSON of commands, inside the page so that no file of it lies anywhere."""
    links = []
    for name, content in results.items():
        data = b64encode((json.dumps(content, indent=2) + "\n").encode()).decode()
        name = html.escape(name)
        links.append(f'<a download="{name}" href="data:application/json;base64,{data}">{name}</a>')
    return " ".join(links)


def details(outcome: Mapping) -> tuple[str, str]:
    """Return a result's sentences and command lines in Markdown, and its downloads."""
    head = f"**{outcome['model']}, {outcome['n']:,} samples, seed {outcome['seed']}**"
    commands = "\n".join(["```bash", *outcome["commands"], "```"])
    lines = [head, *outcome["sentences"], *(["These commands repeat it:", commands] if outcome["commands"] else [])]
    return "\n\n".join(lines), downloads_html(outcome["results"])


def remember(history: list[dict], outcomes: list[dict]):
    """Put results into the history of the visit, in place of earlier ones of the same run and model."""
    if not outcomes:
        return history, visit_table(history), gr.skip(), gr.skip()
    places = {(one["run"], one["model"]): one for one in history}
    places |= {(one["run"], one["model"]): one for one in outcomes}
    history = list(places.values())[-MAX_ROWS:]
    return history, visit_table(history), *details(outcomes[-1])


def as_json(outcomes: list[Outcome], run: str) -> list[dict]:
    """Write outcomes as JSON values."""
    return [{"run": run} | asdict(outcome) for outcome in outcomes]


def choose_result(history: list[dict], number: object) -> dict:
    """Return a result of the visit by its number.

    Raises:
        ValueError: there is none of this number.
    """
    if not history:
        raise ValueError("No model has been measured in this visit.")
    return history[check_whole("number of the result", number, 1, len(history)) - 1]


def build_tab(models: Models) -> None:
    """Build the tab's content.

    The variable MOBILEDIFF_EXPORTS names the folder of exports, MOBILEDIFF_MAX_SAMPLES the largest number of samples.

    Raises:
        ValueError: a variable holds something else.
    """
    targets = Targets(models, path_of("MOBILEDIFF_EXPORTS", "exports"))
    most = whole_number_of("MOBILEDIFF_MAX_SAMPLES", MAX_SAMPLES, MIN_SAMPLES)
    with gr.Tabs():
        with gr.Tab("A model"):
            build_model_tab(targets, reported_records(RESULTS), most)
        with gr.Tab("My pictures"):
            pictures.build_tab()
        with gr.Tab("Damage"):
            damage.build_tab(models)


def build_model_tab(targets: Targets, records: Mapping[str, Record], most: int) -> None:
    """Build the content of the sub-tab on a model's samples.

    Args:
        targets: models to choose from.
        records: shipped figures.
        most: the largest number of samples.
    """

    async def evaluate(names: list[str], metrics: list[str], n: int, seed: int):
        """Draw samples of models and measure them.

        Args:
            names: of models, a list.
            metrics: of frechet_distance, class_accuracy, noun_accuracy, clip_score, manifold, seed_distance, latency.
            n: samples of each model, a multiple of 10.
            seed: sample i is drawn with seed + i.

        Returns:
            JSON of the results, progress, figures so far, and the newest samples.
        """
        run, newest = uuid.uuid4().hex, ""
        async for state in stream(
            lambda cancelled: evaluation.evaluate(targets, records, most, names, metrics, n, seed, cancelled)
        ):
            if state.newest is not None:
                newest = grids({"The newest samples, a column for each class": state.newest})
            outcomes = as_json(state.outcomes, run) if state.changed else gr.skip()
            yield (
                outcomes,
                progress_html(state),
                so_far(state.figures),
                newest,
                outcomes,
            )

    def show(history, event: gr.EventData):
        row = of_event(event, "row_value")
        return details(choose_result(history, row[0] if isinstance(row, list) and row else row))

    gr.Markdown(introduction(targets, most))
    names = gr.CheckboxGroup(targets.names, value=targets.names[:1], label="Models to measure")
    metrics = gr.CheckboxGroup(
        [(label, key) for key, label in METRICS.items()],
        value=DEFAULT_METRICS,
        label="Metrics",
        info="Noun accuracy draws as many samples again, of nouns' prompts",
    )
    with gr.Row():
        n = gr.Slider(
            MIN_SAMPLES, most, min(DEFAULT_SAMPLES, most), step=10, label="Samples of each model", min_width=200
        )
        seed = gr.Number(0, label="First seed", min_width=120)
    with gr.Row():
        start = gr.Button("Measure", variant="primary", min_width=120)
        stop = gr.Button("Stop", min_width=120)
    progress = gr.HTML(elem_classes="evaluation")
    with gr.Row():
        with gr.Column(min_width=320):
            figures = gr.Dataframe(
                headers=SO_FAR,
                label="Figures so far",
                interactive=False,
                wrap=True,
                column_widths=[130, 140, 75, 135, 100],
            )
        with gr.Column(min_width=320):
            newest = gr.HTML(elem_classes="newest")
    latest, history = gr.State([]), gr.State([])  # the server keeps them, so that no program makes them up
    table = gr.Dataframe(
        headers=["No.", "Model", "Samples", "Seed", *COLUMNS],
        datatype=DATATYPES,
        label="Results of this visit; choose a row for its commands",
        interactive=False,
    )
    described = gr.Markdown()
    downloads = gr.HTML(elem_classes="downloads")
    with gr.Accordion("JSON of the commands", open=False):
        results = gr.JSON(label="Results")
    running = start.click(
        evaluate, [names, metrics, n, seed], [results, progress, figures, newest, latest],
        concurrency_limit=1, concurrency_id="evaluations",
        preprocess=False, show_progress="minimal", show_progress_on=progress,
    )  # fmt: skip
    stop.click(None, cancels=[running], api_visibility="private")
    running.failure(  # a cancelled call has failed once it has ended, and the page takes a new one
        lambda: '<p role="status">Stopped.</p>', None, progress,
        queue=False, show_progress="hidden", api_visibility="private",
    )  # fmt: skip
    remembered = [history, table, described, downloads]
    latest.change(remember, [history, latest], remembered, queue=False, api_visibility="private")
    table.select(show, history, [described, downloads], queue=False, api_visibility="private")
