"""Show the page of web/ that draws on the visitor's device, and draw here from the same noise."""

import html
import json
import os.path
from functools import cache
from pathlib import Path
from urllib.parse import urlencode

import gradio as gr
import torch
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from mobilediff.captions import caption, load_nouns
from mobilediff.demo.environment import ROOT
from mobilediff.demo.page.cards import CARDS
from mobilediff.demo.page.stream import stream
from mobilediff.demo.service.comparison import compare
from mobilediff.demo.service.inputs import MAX_IMAGES
from mobilediff.demo.service.models import Model, Models
from mobilediff.ondevice.noise import MAX_SEED, normal_noise

WEB = ROOT / "web"
DIST = WEB / "dist"
ADDRESS = "device"
NOT_BUILT = (
    "The page that draws on your own device is not built here: `npm ci && npm run build` in the folder `web` makes "
    "it; then start the app again."
)
INTRODUCTION = (
    "The same pictures twice, from the same noise: drawn by this server, and by your own device, in your browser. "
    "[Open the page of your device alone](device/) to install it or to use more threads."
)
FIRST = {"prompt": "fire truck", "seed": 7, "count": 4}
CSS = """
#device .html-container { padding: 0; }
#device iframe { width: 100%; height: 1100px; border: 1px solid var(--border-color-primary); border-radius: 8px; }
"""
# The page of the device reads the same choices from its address, behind the # that no browser sends; models and
# backend stay those that are chosen there.
OPEN_PAGE = """(prompt, seed, count) => {
  const frame = document.querySelector("#device iframe");
  const choices = new URLSearchParams(frame.contentWindow.location.hash.slice(1));
  for (const [name, value] of Object.entries({ prompt, seed, count })) choices.set(name, value);
  frame.src = `device/#${choices}`;
}"""


@cache
def isolation_headers() -> dict[str, str]:
    """Read the headers that let the page use several threads where it is opened alone."""
    return json.loads((WEB / "headers.json").read_text(encoding="utf-8"))


class Page(StaticFiles):
    """Serve the built page, with the headers that it needs for threads."""

    def file_response(self, *args, **kwargs):
        """Answer with a file, as starlette does, and the headers."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(isolation_headers())
        return response


def page_routes(dist: Path = DIST) -> list[Route]:
    """Return the routes of the built page, none if it is not built.

    A proxy may strip the sub-path that the app stands at, or keep it; starlette's `Mount` of files needs it kept.
    """
    if not (dist / "index.html").is_file():
        return []
    page = Page(directory=dist, html=True)

    async def file(request: Request) -> Response:
        return await page.get_response(os.path.normpath(request.path_params["path"]), request.scope)

    # A redirection that is relative holds below any sub-path.
    return [Route(f"/{ADDRESS}", RedirectResponse(f"{ADDRESS}/")), Route(f"/{ADDRESS}/{{path:path}}", file)]


def page_models(models: Models, dist: Path = DIST) -> list[str]:
    """Name the models that the built page has as well."""
    catalog = json.loads((dist / "catalog.json").read_text(encoding="utf-8"))
    names = {model["name"] for model in catalog["models"]}
    return [name for name in models.names if name in names]


def shared_noise(model: Model, seeds: list[int]) -> torch.Tensor:
    """Draw the noise that the page draws for the same seeds, float32 [N, C, H, W]; after the last seed comes 0."""
    config = model.pipeline.unet.config
    shape = (1, config.in_channels, config.sample_size, config.sample_size)
    return torch.cat([torch.from_numpy(normal_noise(seed % (MAX_SEED + 1), shape)) for seed in seeds])


def as_page_reads(prompt: object, template: str) -> object:
    """Replace a known noun by its caption, as the page does; other prompts, and what is no text, stay."""
    if not isinstance(prompt, str) or (noun := prompt.strip().lower()) not in load_nouns():
        return prompt
    return caption(noun, template)


def build_tab(models: Models, dist: Path = DIST) -> None:
    """Build the tab's content, with the built page in `dist`."""
    if not page_routes(dist):
        gr.Markdown(NOT_BUILT)
        return
    students = page_models(models, dist)

    async def draw_from_shared_noise(prompt: str, seed: int, count: int):
        """Draw a prompt with each model that the page of the device has, from the noise that the page draws.

        Args:
            prompt: a noun or a sentence that names an animal or a vehicle.
            seed: of the first image, from 0 to 4294967295; the next images have the next seeds.
            count: images of each model, 1 to 8.

        Returns:
            One record a model: name, status, latency in ms of the whole call, and images as data URIs (PNG).
            Warnings about the prompt.
        """

        def steps(cancelled):
            template = models.get(students[0]).pipeline.config.class_template if students else ""
            return compare(models, students, as_page_reads(prompt, template), seed, count, cancelled, shared_noise)

        async for records, notes in stream(steps):
            yield records, html.escape(notes)

    gr.Markdown(INTRODUCTION)
    with gr.Row():
        prompt = gr.Textbox(FIRST["prompt"], label="Prompt", max_lines=1, min_width=200)
        seed = gr.Number(FIRST["seed"], label="Seed", min_width=120)
        count = gr.Slider(1, MAX_IMAGES, FIRST["count"], step=1, label="Images", min_width=160)
    button = gr.Button("Draw on both", variant="primary")
    note = gr.HTML(elem_classes="note")
    with gr.Row():
        with gr.Column(min_width=320):
            gr.Markdown("### On this server")
            results = gr.HTML([], html_template=CARDS, elem_classes="results")
        with gr.Column(min_width=320):
            gr.Markdown("### On your device")
            gr.HTML(
                f'<iframe src="{ADDRESS}/#{urlencode(FIRST)}" title="mobilediff on your device" loading="lazy" '
                'allow="clipboard-write"></iframe>',
                elem_id="device",
            )
    inputs = [prompt, seed, count]
    button.click(None, inputs, None, js=OPEN_PAGE, api_visibility="private")
    prompt.submit(None, inputs, None, js=OPEN_PAGE, api_visibility="private")
    gr.on(
        [button.click, prompt.submit], draw_from_shared_noise, inputs, [results, note],
        concurrency_limit=1, concurrency_id="models",
        preprocess=False, show_progress="minimal", show_progress_on=prompt,
    )  # fmt: skip
