"""Compare all checkpoints in a page: one prompt, one noise, the fastest model first.

python app.py                 serve it
python app.py --precompute    draw the examples that the page shows without running a model
"""

import asyncio
import html
import logging
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar

from mobilediff.demo.environment import folder_of, prepare
from mobilediff.threads import available_cpus

prepare()  # before gradio and torch, which read the environment when they are imported

import gradio as gr  # noqa: E402
import torch  # noqa: E402

from eval.protocol import device_description  # noqa: E402
from mobilediff.command import command_parser, run_command  # noqa: E402
from mobilediff.demo import about as about_tab  # noqa: E402
from mobilediff.demo import results as results_tab  # noqa: E402
from mobilediff.demo.compare import (  # noqa: E402
    MAX_IMAGES,
    MAX_SEED,
    Model,
    choose_models,
    compare,
    load_models,
)
from mobilediff.demo.device import (  # noqa: E402
    DIST,
    as_page_reads,
    build_tab,
    page_models,
    page_routes,
    shared_noise,
)
from mobilediff.demo.examples import (  # noqa: E402
    check_examples_folder,
    choose_example,
    load_examples,
    precompute,
    stale_examples,
)

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Cards stand side by side on a wide screen and below each other on a telephone. Image i has the same place in every
# card, since it grew from the same noise. gradio fills the template and then evaluates it as a JavaScript template
# string, so only the project's own words may be among the values, never a visitor's.
CARDS = """
<div class="cards">{{#each value}}<section class="card {{status}}">
  <h3>{{name}}</h3><p class="time">{{time}}</p><div class="strip n{{batch_size}}">
    {{#each images}}<img src="{{this}}" alt="{{../name}}, image {{@index}}" title="{{../name}}">{{/each}}</div>
  <p class="figures">{{#each figures}}<span>{{this}}</span>{{/each}}</p>
</section>{{/each}}</div>"""
CSS = """
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 12px; align-items: start; }
.card { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: 10px; }
.card h3 { margin: 0; } .card p { margin: 4px 0; } .card .time { font-weight: 600; }
.card .figures { color: var(--body-text-color-subdued); font-size: var(--text-sm); }
.card .figures span { display: inline-block; margin-right: 12px; } .card.waiting, .card.running { opacity: .6; }
.card.failed .time { color: var(--error-text-color); }
.strip { display: grid; gap: 4px; grid-template-columns: repeat(2, 1fr); } .strip.n1 { grid-template-columns: 1fr; }
.strip img { width: 100%; aspect-ratio: 1; margin: 0; image-rendering: pixelated; }
.waiting .strip, .running .strip { aspect-ratio: 1; }
.note .html-container, .results .html-container, #device .html-container { padding: 0; } .note { font-weight: 600; }
#device iframe { width: 100%; height: 1100px; border: 1px solid var(--border-color-primary); border-radius: 8px; }
@media (max-width: 480px) {
  .strip { grid-template-columns: repeat(4, 1fr); } .strip.n1 { width: 50%; }
  .waiting .strip, .running .strip { aspect-ratio: 4; }
}
"""
# gradio refuses a call with too few values itself; show_error says so to the program that called. pwa lets a telephone
# install the page as an app.
SERVED = {"ssr_mode": False, "show_error": True, "pwa": True, "footer_links": ["api", "settings"]}


def describe(models: list[Model], problems: list[str], examples: list[dict]) -> str:
    """Write the head of the page in Markdown: its purpose, the machine, and the problems."""
    machine = device_description(models[0].pipeline.device if models else "cpu")
    if not examples:
        problems = [*problems, "There are no precomputed examples; `python app.py --precompute` makes them."]
    if stale := stale_examples(examples, models):
        names = ", ".join(stale)
        problems = [*problems, f"The examples of {names} show older weights; `python app.py --precompute` mends that."]
    return "\n".join([
        "# mobilediff",
        "Tiny pictures of CIFAR-10's world, drawn from the same prompt and the same noise by each model in turn, the "
        f"fastest first. Times are of the one call you see, from text to images, on {machine['device_name']} "
        f"({machine['device']}, threads: {machine['threads']}). GMACs are of one network evaluation.",
        *(["", *(f"- {problem}" for problem in problems)] if problems else []),
    ])  # fmt: skip


async def next_step(steps: Iterator[T], cancelled: threading.Event) -> T | None:
    """Take the next of `steps` in a thread; None after the last.

    A visitor who cancels leaves once the thread has ended, so that the next visitor's call does not meet it.
    """
    thread = asyncio.ensure_future(asyncio.to_thread(next, steps, None))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        cancelled.set()
        await asyncio.wait([thread])
        raise


async def stream(start: Callable[[threading.Event], Iterator[tuple[list[dict], str]]]) -> AsyncIterator[tuple]:
    """Yield the records and the escaped warnings of a comparison; bad input becomes a message."""
    cancelled = threading.Event()
    try:
        steps = start(cancelled)
        while step := await next_step(steps, cancelled):
            records, warnings = step
            yield records, html.escape(warnings)
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from error


def build_app(models: list[Model], problems: list[str], examples: list[dict], dist: Path = DIST) -> gr.Blocks:
    """Build the page.

    Every model call waits in one queue of width one, so that timings do not disturb each other. gradio's checks of
    single inputs are off (`preprocess=False`), since a program's values may end in them without a message;
    `choose_models`, `check_inputs` and `choose_example` check all of them.
    """
    names = [model.name for model in models]
    students = page_models(models, dist) if page_routes(dist) else []

    async def run(prompt, seed, count, chosen):
        def steps(cancelled):
            return compare(choose_models(models, chosen), prompt, seed, count, cancelled)

        async for shown in stream(steps):
            yield shown

    async def run_beside_page(prompt, seed, count):
        def steps(cancelled):
            return compare(students, as_page_reads(prompt, students), seed, count, cancelled, shared_noise)

        async for shown in stream(steps):
            yield shown

    def show(index):
        try:
            example = choose_example(examples, index)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return example["prompt"], example["seed"], example["count"], example["records"], ""

    with gr.Blocks(title="mobilediff", analytics_enabled=False) as demo:
        gr.Markdown(describe(models, problems, examples))
        with gr.Tab("Compare"):
            prompt = gr.Textbox("a fire truck", label="Prompt", max_lines=1, info="An animal or a vehicle")
            with gr.Row():
                seed = gr.Number(0, label="Seed", min_width=120)
                count = gr.Slider(1, MAX_IMAGES, 4, step=1, label="Images", min_width=160)
                dice = gr.Button("Random seed", min_width=160, scale=0)
            chosen = gr.CheckboxGroup(names, value=names, label="Models")
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
                gallery.click(show, gallery, outputs, queue=False, preprocess=False, api_name="example")
            dice.click(lambda: random.randint(0, MAX_SEED), None, seed, queue=False, api_visibility="private")
            gr.on(
                [button.click, prompt.submit], run, [prompt, seed, count, chosen], [results, note],
                api_name="compare", concurrency_limit=1, concurrency_id="models",
                preprocess=False, show_progress="minimal", show_progress_on=prompt,
            )  # fmt: skip
        with gr.Tab("On your device"):
            build_tab(run_beside_page, CARDS, dist)
        with gr.Tab("Results"):
            results_tab.build_tab(examples)
        with gr.Tab("About"):
            about_tab.build_tab(examples)
    return demo.queue(max_size=20, api_open=False)


def main(argv: list[str] | None = None) -> None:
    """Serve the page, or draw its examples with --precompute.

    The variables GRADIO_SERVER_NAME and GRADIO_SERVER_PORT set the address and the port.

    Raises:
        ValueError: a folder of the environment is none, or there is no model to draw examples with.
        OSError: the examples cannot be written.
    """
    parser = command_parser("python app.py", __doc__)
    parser.add_argument("--precompute", action="store_true", help="make the examples and stop")
    args = parser.parse_args(argv)
    torch.set_num_threads(min(torch.get_num_threads(), available_cpus()))
    checkpoints = folder_of("MOBILEDIFF_CHECKPOINTS", "checkpoints")
    example_folder = folder_of("MOBILEDIFF_EXAMPLES", "examples")
    if args.precompute:
        check_examples_folder(example_folder)
    models, problems = load_models(checkpoints)
    print("\n".join([*problems, f"{len(models)} models: {', '.join(model.name for model in models)}"]), flush=True)
    if args.precompute:
        if not models:
            raise ValueError(f"no checkpoint of {checkpoints} could be loaded, so no example can be drawn")
        return precompute(models, example_folder)
    try:
        examples = load_examples(example_folder)
    except ValueError as error:
        logger.warning("%s", error)
        examples, problems = [], [*problems, "The precomputed examples are damaged; the log of the app says how."]
    # System fonts, so that the page fetches nothing from elsewhere.
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    demo = build_app(models, problems, examples)
    demo.launch(theme=theme, css=CSS + results_tab.CSS + about_tab.CSS, app_kwargs={"routes": page_routes()}, **SERVED)


if __name__ == "__main__":
    run_command(main)
