"""The control model draws by a sketch as its pipeline does, LoRAs change nobody else's pictures."""

import io
import shutil
from contextlib import ExitStack

import pytest
import torch
from PIL import Image, ImageDraw

from eval.samples.draw import draw
from mobilediff.checkpoints import load_pipeline
from mobilediff.demo.service.drawing import png_uri
from mobilediff.demo.service.models import Models
from mobilediff.demo.service.sketches import blank_sketch, read_sketch
from mobilediff.demo.service.sketching import CONTROL, EMPTY, MAX_AT_ONCE, NO_LORA, Sketcher, has_control, lora_folders
from tests.mobilediff.demo.pngs import decoded
from tests.tiny import tiny_sketching


@pytest.fixture(scope="module")
def folder(checkpoints, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sketching")
    shutil.copytree(checkpoints / "student-1step", folder / "student-1step")
    return tiny_sketching(folder)


@pytest.fixture(scope="module")
def models(folder):
    models = Models(folder)
    models.all()
    return models


@pytest.fixture(scope="module")
def sketcher(models):
    sketcher = Sketcher(models)
    drawn(sketcher)  # once it has loaded, since two threads cannot load at once
    return sketcher


def sketch(fill: str | None = None) -> str:
    image = Image.new("RGB", (32, 32), "white")
    pen = ImageDraw.Draw(image)
    if fill is not None:
        pen.rectangle([4, 4, 19, 19], fill)
    pen.rectangle([4, 4, 19, 19], outline="black")
    return png_uri(image)


def drawn(sketcher, value=None, prompt="a fire truck", seed=7, scale=1, lora=NO_LORA, weight=1):
    shown, notes = sketcher.draw(value or sketch(), prompt, seed, scale, lora, weight, "/nowhere")
    return {one["caption"]: one["image"] for one in shown["pictures"]}, notes


def pixels(uri: str) -> torch.Tensor:
    image = Image.open(io.BytesIO(decoded(uri)))
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)


def difference(one: str, other: str) -> int:
    """The largest difference of two pictures' bytes; a fused LoRA rounds otherwise."""
    return int((pixels(one).int() - pixels(other).int()).abs().max())


def test_other_tabs_do_not_meet_the_control_model_or_the_loras(models):
    assert models.names == ["student-1step"] and has_control(models)
    assert not any("control" in problem or "loras" in problem for problem in models.problems())


@pytest.mark.parametrize("fill", [None, "#c83228"])
def test_a_picture_is_the_pipelines_own(sketcher, folder, fill):
    pipeline = load_pipeline(folder / CONTROL)
    given = read_sketch(sketch(fill), "/nowhere")
    options = {"image": given.lines, "color_map": given.colors, "controlnet_conditioning_scale": 0.5}
    (expected,) = draw(pipeline, CONTROL, [7], prompt="a fire truck", **options)
    shown, notes = drawn(sketcher, sketch(fill), scale=0.5)
    assert torch.equal(pixels(shown["picture"]), expected.permute(1, 2, 0).flatten())
    assert notes == ""
    assert list(shown) == ["picture", "lines", "colours"][: 3 if fill else 2]
    assert pixels(shown["lines"]).tolist() == list(given.lines.tobytes())


def test_sketch_scale_prompt_and_seed_decide_the_picture(sketcher):
    others = [{"value": sketch("#c83228")}, {"scale": 2}, {"prompt": "a tabby"}, {"seed": 8}]
    pictures = [drawn(sketcher, **other)[0]["picture"] for other in ({}, *others)]
    assert len(set(pictures)) == len(pictures)


def test_an_empty_sketch_is_drawn_from_the_prompt_alone(sketcher):
    shown, notes = drawn(sketcher, blank_sketch())
    assert notes == EMPTY and list(shown) == ["picture"]
    assert shown["picture"] == drawn(sketcher, scale=0)[0]["picture"] != drawn(sketcher)[0]["picture"]


def test_an_unknown_noun_is_noted(sketcher):
    assert "zeppelin" in drawn(sketcher, prompt="a zeppelin")[1]


def test_a_lora_changes_its_own_pictures_alone(sketcher, models, folder):
    def of_others() -> tuple[str, list]:
        plain = drawn(sketcher)[0]["picture"]
        return plain, draw(models.get("student-1step").pipeline, "student-1step", [7], prompt="a tabby").tolist()

    before = of_others()
    choices = [("pencil", 1), ("pencil", 0.5), ("palette", 1), ("pencil", 0), ("pencil", 1)]
    styled = [drawn(sketcher, lora=name, weight=weight)[0]["picture"] for name, weight in choices]
    assert len({before[0], *styled[:3]}) == 4
    assert difference(styled[3], before[0]) <= 1 and difference(styled[4], styled[0]) <= 1
    assert of_others() == before
    lines = read_sketch(sketch(), "/nowhere").lines
    for name, picture in (("pencil", styled[0]), ("palette", styled[2])):
        pipeline = load_pipeline(folder / CONTROL)
        pipeline.load_lora_weights(folder / "loras" / name, adapter_name=name)
        (expected,) = draw(pipeline, CONTROL, [7], prompt="a fire truck", image=lines)
        assert (pixels(picture).int() - expected.permute(1, 2, 0).flatten().int()).abs().max() <= 1


def test_a_lora_that_does_not_fit_is_left_out_by_name(sketcher, caplog):
    assert sketcher.loras == (NO_LORA, "foreign", "palette", "pencil")
    with pytest.raises(ValueError, match="^loras/foreign is left out: it cannot be loaded"):
        drawn(sketcher, lora="foreign")
    assert drawn(sketcher, lora="pencil")[0]["picture"] != drawn(sketcher)[0]["picture"]


def test_folders_without_a_lora_and_names_that_are_none_are_no_choice(tmp_path, folder):
    shutil.copytree(folder / "loras" / "pencil", tmp_path / "loras" / "two words")
    (tmp_path / "loras" / "empty").mkdir()
    assert lora_folders(tmp_path) == {}


def test_a_control_model_that_is_missing_or_broken_is_said_so(folder, tmp_path, caplog):
    assert not has_control(Models(tmp_path / "nowhere"))
    shutil.copytree(folder / CONTROL, tmp_path / CONTROL)
    weights = next((tmp_path / CONTROL / "controlnet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    models = Models(tmp_path)
    assert has_control(models)
    with pytest.raises(ValueError, match=f"{CONTROL} is left out: it cannot be loaded, and the log of the app says"):
        drawn(Sketcher(models))
    assert str(weights) in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"value": 7}, "The sketch is 7; accepted"),
        ({"prompt": " "}, "The prompt is empty"),
        ({"prompt": "truck " * 50}, "has 300 characters"),
        ({"seed": -1}, "The seed is -1"),
        ({"scale": float("nan")}, "The control scale is nan; accepted is a number from 0 to 2"),
        ({"scale": -0.1}, "The control scale is -0.1; accepted"),
        ({"scale": 2.1}, "The control scale is 2.1; accepted"),
        ({"scale": True}, "The control scale is True; accepted"),
        ({"scale": "1"}, "The control scale is '1'; accepted"),
        ({"lora": "crayon"}, "The LoRA is 'crayon'; accepted are none, foreign, palette, pencil"),
        ({"lora": ["pencil"]}, r"The LoRA is \['pencil'\]; accepted"),
        ({"lora": None}, "The LoRA is None; accepted"),
        (
            {"lora": "pencil", "weight": float("inf")},
            "The weight of the LoRA is inf; accepted is a number from 0 to 2",
        ),
        ({"weight": None}, "The weight of the LoRA is None; accepted"),
    ],
)
def test_bad_input_is_refused_by_name_before_any_work(sketcher, monkeypatch, arguments, message):
    monkeypatch.setattr("mobilediff.demo.service.sketching.draw", None)
    with pytest.raises(ValueError, match=message):
        drawn(sketcher, **arguments)


def test_a_stroke_more_than_are_drawn_at_once_is_refused(sketcher):
    with ExitStack() as places:
        for _ in range(MAX_AT_ONCE):
            places.enter_context(sketcher.at_once())
        with pytest.raises(ValueError, match="^8 pictures of sketches are on their way"):
            places.enter_context(sketcher.at_once())
    with sketcher.at_once():
        pass
