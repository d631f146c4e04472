"""Explorations draw the pictures that they say, in turns, until they are cancelled."""

import base64
import io
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mobilediff.captions import caption
from mobilediff.demo.service import exploration
from mobilediff.demo.service.drawing import draw, draw_seeds
from mobilediff.demo.service.exploration import (
    explore_latents,
    explore_noise,
    explore_nouns,
    explore_prompts,
    explore_seeds,
    explore_steps,
    images_a_turn,
    most_seeds,
    slerp,
    steps_of,
)

PROMPT = "a fire truck"


def pixels(picture: dict) -> np.ndarray:
    image = Image.open(io.BytesIO(base64.b64decode(picture["image"].split(",")[1])))
    assert image.format == "PNG" and image.size == (32, 32)
    return np.asarray(image).astype(int)


def same(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two pictures differ by rounding alone, which another batch size brings."""
    return np.abs(first - second).max() <= 1


def last(steps) -> tuple[list[dict], str, str]:
    *_, (result, notes) = steps
    return result["pictures"], result["text"], notes


def drawn(models, name, seed, prompt=PROMPT, **options) -> np.ndarray:
    (image,) = draw(models.get(name), prompt, seed, 1, threading.Event(), **options).images
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("name", ["student-1step", "teacher"])
def test_a_grid_holds_the_picture_of_each_seed(models, name):
    pictures, text, notes = last(explore_seeds(models, name, PROMPT, 7, 5, threading.Event()))
    assert [picture["caption"] for picture in pictures] == [f"seed {seed}" for seed in range(7, 12)]
    assert all(same(pixels(picture), drawn(models, name, 7 + i)) for i, picture in enumerate(pictures))
    assert not same(pixels(pictures[0]), pixels(pictures[1]))
    assert text.startswith("5 images in ") and text.endswith(" ms") and notes == ""


def test_a_slow_model_takes_several_turns_and_fewer_seeds(models, monkeypatch):
    fast, slow = models.get("student-1step"), models.get("teacher")
    monkeypatch.setattr(exploration, "TURN_MACS", 2.5 * slow.nfe * slow.macs)
    assert (images_a_turn(slow), most_seeds(slow)) == (2, 16)
    assert images_a_turn(fast) > 64 and most_seeds(fast) == 64
    steps = list(explore_seeds(models, "teacher", PROMPT, 0, 5, threading.Event()))
    assert [len(result["pictures"]) for result, _ in steps] == [2, 4, 5]
    assert [result["text"].split(" image")[0] for result, _ in steps] == ["2 of 5", "4 of 5", "5"]
    with pytest.raises(ValueError, match="number of images of teacher is 17; accepted is a whole number from 4 to 16"):
        next(explore_seeds(models, "teacher", PROMPT, 0, 17, threading.Event()))
    assert images_a_turn(replace(slow, macs=10**15)) == 1


def test_nouns_share_one_noise_and_their_captions_are_the_prompts(models):
    nouns = ["tabby", "emu", "tabby", "airbus"]
    pictures, _, notes = last(explore_nouns(models, "student-8step", nouns, 3, threading.Event()))
    assert [picture["caption"] for picture in pictures] == ["tabby", "emu", "airbus"]
    template = models.get("student-8step").pipeline.config.class_template
    for picture in pictures:
        assert same(pixels(picture), drawn(models, "student-8step", 3, caption(picture["caption"], template)))
    assert notes == ""


def test_slerp_keeps_the_length_and_ends_at_both_ends():
    first, last = torch.randn(2, 1, 4, 16, 16, generator=torch.Generator().manual_seed(0)).unbind()
    between = slerp(first, last, torch.linspace(0, 1, 5))
    assert torch.allclose(between[[0, 4]], torch.cat([first, last]), atol=1e-5)
    low, high = sorted((float(first.norm()), float(last.norm())))
    assert all(low * 0.99 <= float(one.norm()) <= high * 1.01 for one in between)
    assert float(torch.lerp(first, last, 0.5).norm()) < low * 0.8  # what a straight line does to noise
    right_angle = slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([1 / 3]))
    assert torch.allclose(right_angle, torch.tensor([[3**0.5 / 2, 0.5]]))


@pytest.mark.parametrize("name", ["student-1step", "student-8step", "student"])
def test_pictures_between_two_seeds_begin_and_end_with_theirs(models, name):
    pictures, _, _ = last(explore_noise(models, name, PROMPT, 3, 8, 3, threading.Event()))
    assert [picture["caption"] for picture in pictures] == ["0%", "50%", "100%"]
    assert same(pixels(pictures[0]), drawn(models, name, 3)) and same(pixels(pictures[2]), drawn(models, name, 8))
    assert not any(same(pixels(pictures[1]), pixels(pictures[end])) for end in (0, 2))


@pytest.mark.parametrize("name", ["student-1step", "teacher"])
def test_pictures_between_two_prompts_begin_and_end_with_theirs(models, name):
    steps = explore_prompts(models, name, "a red deer", "a zeppelin", 3, 3, threading.Event())
    pictures, _, notes = last(steps)
    ends = [drawn(models, name, 3, prompt) for prompt in ("a red deer", "a zeppelin")]
    assert same(pixels(pictures[0]), ends[0]) and same(pixels(pictures[2]), ends[1])
    assert not any(same(pixels(pictures[1]), end) for end in ends)
    assert "zeppelin" in notes and "red deer" not in notes.split("\n")[0].split("zeppelin")[0]


def test_a_row_holds_every_number_of_steps_that_each_model_takes(models):
    assert [steps_of(models.get(name)) for name in ("student-1step", "student-8step", "student")] == [
        [1, 2, 4],
        [8],
        [1, 2, 4, 8, 25],
    ]
    steps = list(explore_steps(models, ["student", "student-8step", "student-1step"], PROMPT, 5, threading.Event()))
    pictures = steps[-1][0]["pictures"]
    assert [len(result["pictures"]) for result, _ in steps] == list(range(1, 10))
    captions = [picture["caption"].rpartition(", ")[0] for picture in pictures]
    assert captions == [
        *("student-1step, 1 step", "student-1step, 2 steps", "student-1step, 4 steps", "student-8step, 8 steps"),
        *(f"student, {count} step{'s' if count > 1 else ''}" for count in (1, 2, 4, 8, 25)),
    ]
    for index, (name, count) in {1: ("student-1step", 2), 3: ("student-8step", 8), 8: ("student", 25)}.items():
        assert same(pixels(pictures[index]), drawn(models, name, 5, num_inference_steps=count))


@pytest.mark.parametrize(("name", "steps"), [("student-1step", 4), ("student-8step", 8), ("teacher", 50)])
def test_a_film_goes_from_the_noise_to_the_picture(models, name, steps):
    pictures, text, _ = last(explore_latents(models, name, PROMPT, 5, threading.Event()))
    assert [picture["caption"] for picture in pictures] == ["noise", *(f"step {i}" for i in range(1, steps + 1))]
    assert same(pixels(pictures[-1]), drawn(models, name, 5, num_inference_steps=steps))
    pipeline = models.get(name).pipeline
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    decoded = pipeline.image_processor.postprocess(pipeline.decode_latents(noise).detach(), output_type="pil")[0]
    assert same(pixels(pictures[0]), np.asarray(decoded).astype(int))
    assert text.startswith(f"{name}, {steps} steps in ")


EXPLORATIONS = {
    explore_seeds: ("teacher", PROMPT, 0, 4),
    explore_nouns: ("teacher", ["tabby", "emu"], 0),
    explore_noise: ("teacher", PROMPT, 0, 1, 3),
    explore_prompts: ("teacher", PROMPT, "a tabby", 0, 3),
    explore_steps: (["teacher"], PROMPT, 0),
    explore_latents: ("teacher", PROMPT, 0),
}


@pytest.mark.parametrize("explore", EXPLORATIONS)
def test_an_exploration_ends_after_the_step_under_way(models, explore, monkeypatch):
    cancelled, unet, calls = threading.Event(), models.get("teacher").pipeline.unet, []
    forward = unet.forward

    def cancel(*args, **kwargs):
        calls.append(1)
        cancelled.set()
        return forward(*args, **kwargs)

    monkeypatch.setattr(unet, "forward", cancel)
    assert list(explore(models, *EXPLORATIONS[explore], cancelled)) == []
    assert len(calls) == 1


@pytest.mark.parametrize("explore", EXPLORATIONS)
def test_a_model_that_ends_in_nan_is_a_message(models, explore, monkeypatch):
    monkeypatch.setattr(models.get("teacher").pipeline.unet, "forward", lambda *args, **_: (args[0] * float("nan"),))
    with pytest.raises(ValueError, match="NaN"):
        list(explore(models, *EXPLORATIONS[explore], threading.Event()))


@pytest.mark.parametrize(
    ("explore", "place", "value", "message"),
    [
        (explore_seeds, 0, "teacher-xl", "no model 'teacher-xl'; accepted are "),
        (explore_seeds, 0, ["teacher"], r"model is \['teacher'\]; accepted is the name of one model"),
        (explore_latents, 0, None, "model is None; accepted is the name of one model"),
        (explore_seeds, 1, "", "prompt is empty"),
        (explore_seeds, 2, float("nan"), "seed is nan"),
        (explore_seeds, 3, 3, "number of images of teacher is 3; accepted is a whole number from 4"),
        (explore_seeds, 3, 65, "number of images of teacher is 65"),
        (explore_nouns, 1, [], "There are 0 nouns; accepted are 1 to 16"),
        (explore_nouns, 1, "tabby", "nouns are 'tabby'; accepted is a list of nouns"),
        (explore_nouns, 1, [["tabby"]], r"nouns are \[\['tabby'\]\]"),
        (explore_nouns, 1, ["tabby", "unicorn"], "not trained on 'unicorn'"),
        (explore_nouns, 2, 2**32, f"seed is {2**32}"),
        (explore_noise, 3, 0, "Both seeds are 0; accepted are two different ones"),
        (explore_noise, 3, None, "seed is None"),
        (explore_noise, 4, 17, "number of pictures is 17; accepted is a whole number from 3 to 16"),
        (explore_prompts, 2, None, "prompt is None"),
        (explore_prompts, 4, 2, "number of pictures is 2"),
        (explore_steps, 0, [], "No model is chosen"),
        (explore_steps, 0, "teacher", "models are 'teacher'"),
        (explore_steps, 2, 1.5, "seed is 1.5"),
        (explore_latents, 1, "truck " * 50, "has 300 characters"),
    ],
)
def test_bad_input_is_refused_by_name_before_any_work(models, explore, place, value, message, monkeypatch):
    arguments = list(EXPLORATIONS[explore])
    arguments[place] = value
    monkeypatch.setattr(exploration, "draw_seeds", lambda *_, **__: pytest.fail("a model drew"))
    with pytest.raises(ValueError, match=message):
        next(explore(models, *arguments, threading.Event()))


def test_every_batch_is_a_turn_of_long_work(models, monkeypatch):
    turns = []
    monkeypatch.setattr(exploration, "draw_seeds", lambda *_, turn, **__: turns.append(turn) or draw_seeds(*_, **__))
    for explore in (explore_seeds, explore_steps, explore_latents):
        list(explore(models, *EXPLORATIONS[explore], threading.Event()))
    assert turns and all(turn == exploration.TURNS.of_batch for turn in turns)
