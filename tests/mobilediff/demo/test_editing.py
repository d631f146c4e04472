"""Proposals keep what is not masked, are the pipelines' own pictures, and take turns until they are cancelled."""

import base64
import io
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from PIL import Image

from mobilediff.demo.service import editing, exploration
from mobilediff.demo.service.drawing import PNG_URI, draw, png_uri
from mobilediff.demo.service.editing import Inpainters, chosen_proposal, new_picture, preferred, repaint, vary
from mobilediff.demo.service.models import Models
from mobilediff.downstream.img2img import MobileDiffusionImg2ImgPipeline
from mobilediff.downstream.inpaint import MobileDiffusionInpaintPipeline
from mobilediff.export import export_pipeline
from mobilediff.models.variants import variant
from tests.tiny import tiny_control, tiny_pipeline

PROMPT = "a fire truck"
OWN = "student-1step-inpaint"
PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
HOLE = np.zeros((32, 32), bool)
HOLE[4:24, 8:20] = True


@pytest.fixture(scope="session")
def folder(checkpoints, tmp_path_factory) -> Path:
    """Checkpoints of text, and beside them one that sees masks, one that sees sketches and a broken one."""
    folder = tmp_path_factory.mktemp("edited")
    for name in ("student-1step", "student-8step"):
        shutil.copytree(checkpoints / name, folder / name)
    parts = tiny_pipeline("student-1step")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        unet = variant(parts.unet, in_channels=9).eval()
    export_pipeline(MobileDiffusionInpaintPipeline.from_pipe(parts, unet=unet), folder / OWN)
    export_pipeline(tiny_control(), folder / "student-1step-control")
    shutil.copytree(folder / OWN, folder / "damaged-inpaint")
    weights = next((folder / "damaged-inpaint" / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    return folder


@pytest.fixture(scope="session")
def inpainters(folder) -> Inpainters:
    models = Models(folder)
    assert [model.name for model in models.all()] == ["student-1step", "student-8step"]
    return Inpainters(models)


@pytest.fixture(scope="session")
def uploads(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("uploads")
    Image.fromarray(PIXELS).save(folder / "picture.png")
    Image.fromarray(255 * HOLE.astype(np.uint8)).save(folder / "mask.png")
    return folder


@pytest.fixture
def call(inpainters, uploads):
    """Repaint or vary, with other values than the good ones where they are given."""

    def edit(function, cancelled=None, **given):
        values = {
            "picture": {"path": str(uploads / "picture.png")},
            "mask": {"path": str(uploads / "mask.png")},
            "prompt": PROMPT,
            "strength": 0.75,
            "name": "student-1step",
            "seed": 3,
            "count": 4,
        }
        values = values | given
        models: object = inpainters
        if function is vary:
            models = inpainters.models
            del values["mask"]
        return function(models, uploads, *values.values(), cancelled or threading.Event())

    return edit


def pixels(picture: dict) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture["image"].removeprefix(PNG_URI)))))


def last(steps) -> tuple[list[dict], str, str]:
    *_, (result, notes) = steps
    return result["pictures"], result["text"], notes


def test_pictures_are_brought_to_the_size_that_a_model_draws():
    pipeline, widths = tiny_pipeline("student-1step"), [8, 8, 8]
    picture = Image.fromarray(PIXELS)
    model = SimpleNamespace(pipeline=MobileDiffusionImg2ImgPipeline.from_pipe(pipeline))
    assert editing.at_size_of(model, picture, Image.Resampling.LANCZOS) is picture
    blocks = {"num_encoder_blocks": [0, 0, 1], "num_decoder_blocks": [1, 0, 0]}
    vae = AutoencoderTiny(encoder_block_out_channels=widths, decoder_block_out_channels=widths, **blocks)
    model = SimpleNamespace(pipeline=MobileDiffusionImg2ImgPipeline.from_pipe(pipeline, vae=vae))
    larger = editing.at_size_of(model, picture, Image.Resampling.NEAREST)
    assert (np.asarray(larger) == PIXELS.repeat(2, 0).repeat(2, 1)).all()
    assert model.pipeline(PROMPT, image=larger, strength=0.5).images[0].size == (64, 64)


def test_models_of_text_alone_are_compared_and_the_others_named(inpainters):
    models = inpainters.models
    assert models.names == ["student-1step", "student-8step"]
    assert inpainters.names == ["student-1step", "student-8step", OWN, "damaged-inpaint"]
    assert not [problem for problem in models.problems() if "inpaint" in problem or "control" in problem]


@pytest.mark.parametrize("strength", [0.5, 1])
@pytest.mark.parametrize("name", ["student-1step", "student-8step", OWN])
def test_proposals_keep_every_byte_that_is_not_masked_and_differ_in_the_rest(call, name, strength):
    pictures, text, notes = last(call(repaint, name=name, strength=strength))
    assert [picture["caption"] for picture in pictures] == [f"seed {seed}" for seed in range(3, 7)]
    images = [pixels(picture) for picture in pictures]
    assert all(np.array_equal(image[~HOLE], PIXELS[~HOLE]) for image in images)
    repainted = [image[HOLE] for image in [*images, PIXELS]]
    assert not any(np.array_equal(repainted[i], repainted[j]) for i in range(5) for j in range(i))
    assert text.startswith("4 images in ") and text.endswith(" ms") and notes == ""


@pytest.mark.parametrize(
    ("function", "cls", "name"),
    [
        (repaint, MobileDiffusionInpaintPipeline, "student-8step"),
        (vary, MobileDiffusionImg2ImgPipeline, "student-1step"),
    ],
)
def test_a_proposal_is_the_pipelines_own_picture(call, inpainters, function, cls, name):
    pictures, *_ = last(call(function, name=name, count=1))
    given = {"image": Image.fromarray(PIXELS), "strength": 0.75, "generator": torch.Generator().manual_seed(3)}
    if function is repaint:
        given["mask_image"] = Image.fromarray(255 * HOLE.astype(np.uint8))
    drawn = cls.from_pipe(inpainters.models.get(name).pipeline)(PROMPT, **given).images[0]
    assert np.array_equal(pixels(pictures[0]), np.asarray(drawn))


def test_the_same_model_still_draws_from_text_as_before(call, inpainters):
    model, never = inpainters.models.get("student-1step"), threading.Event()
    before = draw(model, PROMPT, 0, 1, never).images[0].tobytes()
    last(call(repaint))
    last(call(vary))
    assert draw(model, PROMPT, 0, 1, never).images[0].tobytes() == before


def test_a_network_that_sees_masks_is_loaded_once(call, inpainters, monkeypatch):
    last(call(repaint, name=OWN))
    monkeypatch.setattr(editing, "load_inpainter", lambda *_: pytest.fail("loaded again"))
    last(call(repaint, name=OWN))
    assert inpainters.get(OWN).nfe == 1 and inpainters.get(OWN).macs > inpainters.get("student-1step").macs


def test_a_damaged_network_is_a_message_and_the_log_says_why(call, caplog):
    with pytest.raises(ValueError, match="^damaged-inpaint cannot be loaded, and the log of the app says why.$"):
        next(call(repaint, name="damaged-inpaint"))
    assert "damaged-inpaint/unet" in caplog.text


@pytest.mark.parametrize("function", [repaint, vary])
def test_proposals_of_a_slow_model_take_several_turns(call, inpainters, function, monkeypatch):
    slow = inpainters.models.get("student-8step")
    monkeypatch.setattr(exploration, "TURN_MACS", 2.5 * slow.nfe * slow.macs)
    steps = list(call(function, name="student-8step", count=5))
    assert [len(result["pictures"]) for result, _ in steps] == [2, 4, 5]


@pytest.mark.parametrize("function", [repaint, vary])
def test_an_edit_ends_after_the_step_under_way(call, inpainters, function, monkeypatch):
    cancelled, unet, calls = threading.Event(), inpainters.models.get("student-8step").pipeline.unet, []
    forward = unet.forward

    def cancel(*args, **kwargs):
        calls.append(1)
        cancelled.set()
        return forward(*args, **kwargs)

    monkeypatch.setattr(unet, "forward", cancel)
    assert list(call(function, cancelled, name="student-8step")) == []
    assert len(calls) == 1


def test_an_unknown_noun_is_drawn_with_a_note(call):
    assert "zeppelin" in last(call(repaint, prompt="a zeppelin"))[2]


@pytest.mark.parametrize("function", [repaint, vary])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"strength": float("nan")}, "The strength is nan; accepted is a number above 0, up to 1"),
        ({"strength": 0}, "The strength is 0;"),
        ({"strength": 1.01}, "The strength is 1.01;"),
        ({"strength": True}, "The strength is True;"),
        ({"strength": "1"}, "The strength is '1';"),
        ({"count": 9}, "number of images is 9; accepted is a whole number from 1 to 8"),
        ({"count": 0}, "number of images is 0"),
        ({"seed": -1}, "The seed is -1"),
        ({"prompt": " "}, "The prompt is empty"),
        ({"prompt": "truck " * 50}, "The prompt has 300 characters"),
        ({"prompt": "truck " * 30}, "The prompt has [0-9]+ tokens"),
        ({"name": "student-1step-control"}, "There is no model 'student-1step-control'; accepted are student-1step"),
        ({"name": ["student-8step"]}, r"The model is \['student-8step'\]"),
        ({"picture": None}, "There is no picture; upload one, or draw one"),
        ({"strength": 0.1}, "strength is 0.1, which leaves none of 4 steps; accepted: 0.25 to 1"),
    ],
)
def test_bad_input_is_refused_by_name_before_any_work(call, inpainters, function, given, message, monkeypatch):
    pipeline = inpainters.models.get("student-1step").pipeline
    for part in (pipeline.vae, pipeline.text_encoder, pipeline.unet):
        monkeypatch.setattr(part, "forward", lambda *_, **__: pytest.fail("a model drew"))
    with pytest.raises(ValueError, match=message):
        next(call(function, **given))


def test_a_mask_is_refused_before_any_work_and_a_network_that_sees_masks_does_not_vary(call, uploads, monkeypatch):
    monkeypatch.setattr(editing, "draw_in_turns", lambda *_, **__: pytest.fail("a model drew"))
    with pytest.raises(ValueError, match="There is no mask"):
        next(call(repaint, mask=None))
    Image.new("L", (32, 32)).save(uploads / "empty.png")
    with pytest.raises(ValueError, match="Nothing is masked"):
        next(call(repaint, mask={"path": str(uploads / "empty.png")}))
    with pytest.raises(ValueError, match=f"There is no model '{OWN}'"):
        next(call(vary, name=OWN))


def test_a_new_picture_is_the_one_step_students(inpainters):
    models, never = inpainters.models, threading.Event()
    (image,) = new_picture(models, PROMPT, 5, never)
    assert image.tobytes() == draw(models.get("student-1step"), PROMPT, 5, 1, never).images[0].tobytes()
    assert (
        preferred(["student-8step", "student-1step"]) == "student-1step"
        and preferred(["student-8step"]) == "student-8step"
    )
    never.set()
    assert list(new_picture(models, PROMPT, 5, never)) == []
    with pytest.raises(ValueError, match="The seed is None"):
        next(new_picture(models, PROMPT, None, never))


def test_the_model_that_was_trained_to_repaint_is_the_first_choice(inpainters, tmp_path):
    assert inpainters.preferred == OWN
    assert Inpainters(Models(tmp_path)).preferred is None


def test_a_new_picture_without_models_says_so(tmp_path):
    with pytest.raises(ValueError, match="No model is chosen, or none could be loaded"):
        next(new_picture(Models(tmp_path), PROMPT, 0, threading.Event()))


def test_a_proposal_is_chosen_by_its_data(call):
    pictures, *_ = last(call(repaint, count=1))
    assert np.array_equal(np.asarray(chosen_proposal(pictures[0]["image"])), pixels(pictures[0]))
    for value, message in (
        (None, "The proposal is None; accepted is a picture that was drawn here"),
        ("x" * 200_000, "The proposal is 'xxx"),
        (PNG_URI + "AAAA", "is no PNG"),
        (png_uri(Image.new("RGB", (300, 4))), "is 300 x 4"),
    ):
        with pytest.raises(ValueError, match=message):
            chosen_proposal(value)
