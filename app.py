"""Serve a page that compares and measures all checkpoints: one file a tab of mobilediff.demo.

python app.py                 serve it
python app.py --precompute    draw the examples that the page shows without running a model
"""

import gc
import logging
import signal
from pathlib import Path

from mobilediff.demo.environment import answers_file, path_of, prepare
from mobilediff.threads import available_cpus

prepare()  # before gradio and torch, which read the environment when they are imported
gc.disable()  # what is imported stays: to look for garbage in it takes a sixth of the start

import gradio as gr  # noqa: E402
import torch  # noqa: E402

from mobilediff.command import command_parser, run_command  # noqa: E402
from mobilediff.demo import about, arena, compare, device, draw, edit, evaluate, explore, results  # noqa: E402
from mobilediff.demo.page import canvas, cards, grids, pictures, theme  # noqa: E402
from mobilediff.demo.page.blocks import CheckedBlocks  # noqa: E402
from mobilediff.demo.service.examples import (  # noqa: E402
    check_examples_folder,
    load_examples,
    precompute,
    stale_examples,
)
from mobilediff.demo.service.models import Models  # noqa: E402

gc.freeze()
gc.enable()

logger = logging.getLogger(__name__)

TABS_CSS = arena.CSS + draw.CSS + edit.CSS + evaluate.CSS + results.CSS + device.CSS + about.CSS
CSS = theme.CSS + cards.CSS + pictures.CSS + grids.CSS + canvas.CSS + TABS_CSS
# gradio refuses a call with too few values itself; show_error says so to the program that called. pwa lets a telephone
# install the page as an app; mcp_server offers what the tabs do to programs that speak the Model Context Protocol.
SERVED = {
    "ssr_mode": False,
    "show_error": True,
    "pwa": True,
    "max_file_size": "50mb",
    "mcp_server": True,
    "footer_links": ["api", "settings"],
}
TITLE = (
    "# mobilediff\nSmall text-to-image diffusion models on CIFAR-10, from 25 steps to one: compare, explore, measure."
)
# Calls that wait for a turn, of all visitors together; one of the one-step models takes tens of milliseconds.
MAX_WAITING = 500
# Seconds between looks for files that were made for visitors, and seconds after which these files go.
KEPT = (600, 3600)


def describe(models: Models, problems: list[str], examples: list[dict]) -> str:
    """Write the problems so far as a list in Markdown."""
    problems = [*models.problems(), *problems]
    if not examples:
        problems.append("There are no precomputed examples; `python app.py --precompute` makes them.")
    if stale := stale_examples(examples, models.loaded()):
        names = ", ".join(stale)
        problems.append(f"The examples of {names} show older weights; `python app.py --precompute` mends that.")
    return "\n".join(f"- {problem}" for problem in problems)


def build_app(
    models: Models,
    problems: list[str],
    examples: list[dict],
    dist: Path = device.DIST,
    answers: Path | None = None,
) -> gr.Blocks:
    """Build the page; drawings, explorations and evaluations wait in a queue each, and take turns on the processor.

    Answers on which of two pictures is better are kept in the file `answers`; None keeps none.
    """
    with CheckedBlocks(title="mobilediff", analytics_enabled=False, delete_cache=KEPT) as demo:
        gr.Markdown(TITLE)
        head = gr.Markdown(describe(models, problems, examples))
        with gr.Tab("Compare"):
            compare.build_tab(demo, models, examples, answers)
        with gr.Tab("Explore"):
            explore.build_tab(models)
        with gr.Tab("Draw"):
            draw.build_tab(models, examples)
        with gr.Tab("Edit"):
            edit.build_tab(models)
        with gr.Tab("Evaluate"):
            evaluate.build_tab(models)
        with gr.Tab("Results"):
            results.build_tab(examples)
        with gr.Tab("On your device"):
            device.build_tab(models, dist)
        with gr.Tab("About"):
            about.build_tab(examples)
        # models load while the page is already there
        demo.load(
            lambda: describe(models, problems, examples), None, head,
            queue=False, show_progress="hidden", api_visibility="private",
        )  # fmt: skip
    return demo.queue(max_size=MAX_WAITING, api_open=False)


def launch(demo: gr.Blocks, dist: Path = device.DIST, **options) -> str:
    """Serve the page, with the device's built one in `dist`; `options` are further ones of gradio's `launch`.

    Returns:
        Its address.
    """
    routes = {"routes": device.page_routes(dist)}
    return demo.launch(theme=theme.theme(), css=CSS, app_kwargs=routes, **SERVED, **options)[1]


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
    checkpoints = path_of("MOBILEDIFF_CHECKPOINTS", "checkpoints")
    example_folder = path_of("MOBILEDIFF_EXAMPLES", "examples")
    answers = answers_file()
    if args.precompute:
        check_examples_folder(example_folder)
    models, problems = Models(checkpoints), []
    if args.precompute:
        if not models.all():
            raise ValueError(f"no checkpoint of {checkpoints} could be loaded, so no example can be drawn")
        return precompute(models, example_folder)
    try:
        examples = load_examples(example_folder)
    except ValueError as error:
        logger.warning("%s", error)
        examples, problems = [], ["The precomputed examples are damaged; the log of the app says how."]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, which removes the temporary folder
    launch(build_app(models, problems, examples, answers=answers))


if __name__ == "__main__":
    run_command(main)
