"""The app's tab of the visitor's own device: the page that it serves, and pictures from the page's noise."""

import base64
import io
import json

import httpx
import numpy as np
import pytest
import torch
from fastapi import FastAPI
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image
from starlette.testclient import TestClient

import app
from mobilediff.checkpoints import load_pipeline
from mobilediff.demo.device import NOT_BUILT, page_routes
from mobilediff.demo.service.models import Models
from mobilediff.ondevice.noise import normal_noise

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """A built page that has one of the app's models, and one that the app lacks."""
    folder = tmp_path_factory.mktemp("web") / "dist"
    folder.mkdir()
    (folder / "index.html").write_text("<title>the page</title>")
    (folder / "catalog.json").write_text(json.dumps({"models": [{"name": "student-1step"}, {"name": "other"}]}))
    return folder


@pytest.fixture(scope="module")
def client(checkpoints, dist):
    models = Models(checkpoints)
    models.all()  # loading beside the tests' own would meet diffusers' global patches
    demo = app.build_app(models, [], [], dist)
    url = app.launch(demo, dist, prevent_thread_lock=True, quiet=True)
    yield Client(url, verbose=False)
    demo.close()


def test_the_page_is_served_with_the_headers_that_its_threads_need(client):
    for path in ("device/", "device/catalog.json"):
        answer = httpx.get(f"{client.src}{path}", trust_env=False)
        assert answer.status_code == 200
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["cross-origin-embedder-policy"] == "require-corp"
    assert httpx.get(f"{client.src}device/nothing.js", trust_env=False).status_code == 404
    assert "cross-origin-opener-policy" not in httpx.get(client.src, trust_env=False).headers


@pytest.mark.parametrize("kept", ["", "/sub"], ids=["stripped", "kept"])
def test_the_page_is_served_below_a_sub_path(dist, kept):
    served = FastAPI(routes=page_routes(dist))
    served.root_path = "/sub"  # as gradio sets it
    browser = TestClient(served, follow_redirects=False)
    assert browser.get(f"{kept}/device").headers["location"] == "device/"
    assert browser.get(f"{kept}/device/").text == "<title>the page</title>"
    assert browser.get(f"{kept}/device/catalog.json").json()["models"]
    assert browser.get(f"{kept}/device/../catalog.json").status_code == 404


@pytest.mark.parametrize(("typed", "read"), [("fire truck", "a photo of a fire truck"), ("a Fire truck", None)])
def test_pictures_are_of_the_pages_noise_and_text(client, checkpoints, typed, read):
    records, _ = client.predict(typed, 7, 2, api_name="/draw_from_shared_noise")
    (record,) = records
    assert record["name"] == "student-1step" and record["status"] == "done"
    latents = torch.from_numpy(np.concatenate([normal_noise(seed, (1, 4, 16, 16)) for seed in (7, 8)]))
    pipeline = load_pipeline(checkpoints / "student-1step")
    expected = pipeline(prompt=[read or typed] * 2, latents=latents, output_type="np").images
    for uri, image in zip(record["images"], expected, strict=True):
        drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB"))
        assert np.abs(drawn - (image * 255).round()).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((None, 7, 1), "The prompt is None"),
        ((["a cat"], 7, 1), "The prompt is .*a cat"),
        (({"a": 1}, 7, 1), "The prompt is .*a"),
        (("a cat", -1, 1), "is -1"),
    ],
)
def test_bad_input_is_refused_by_name(client, arguments, named):
    with pytest.raises(AppError, match=named):
        client.predict(*arguments, api_name="/draw_from_shared_noise")


def test_after_the_last_seed_comes_the_first(client):
    last, first = (
        client.predict("a cat", seed, count, api_name="/draw_from_shared_noise")[0][0]["images"]
        for seed, count in ((2**32 - 1, 2), (0, 1))
    )
    assert last[1] == first[0] and last[0] != first[0]


def test_a_page_that_is_not_built_says_how_to_build_it(tmp_path):
    assert page_routes(tmp_path) == []
    components = app.build_app(Models(tmp_path), [], [], tmp_path).config["components"]
    assert any(component["props"].get("value") == NOT_BUILT for component in components)
