"""Compute what `web/` has to compute alike: noise, token ids, and the picture of the page's self-test.

python -m tests.web.fixtures    write the files again, after a change of tokenizer or checkpoints
"""

import base64
import json
import random
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from transformers import CLIPTokenizer

from eval.protocol import folder_sha256
from mobilediff.captions import TEMPLATES, caption, load_nouns, phrasing
from mobilediff.checkpoints import load_pipeline
from mobilediff.downstream.control import MobileDiffusionControlPipeline
from mobilediff.ondevice.noise import MAX_SEED, normal_noise, normal_quantile
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.sampling.prompts import readable

ROOT = Path(__file__).parents[2]
WEB = ROOT / "web"
MODELS = ("student-1step", "student-1step-pruned", "student-8step", "student-1step-control")
LATENT_SHAPE = (1, 4, 16, 16)
NOUN, SEED = "fire truck", 7
ODD_PROMPTS = (
    "",
    " ",
    "A FIRE TRUCK",
    "  a   photo\tof\na cat  ",
    "a dog's bone, isn't it? they'll, we've, i'm, you're, he'd",
    "a cat<|endoftext|>a dog",
    "<|startoftext|> ship",
    "caf\u00e9 cafe\u0301 na\u00efve \u00e5ngstr\u00f6m",
    "\u732b",
    "\u0438\u0441\u0442\u0440\u0435\u0431\u0438\u0442\u0435\u043b\u044c",
    "\U0001f692",
    "a \U0001f6b2 and a \u2708",
    "zero\u200bwidth\u2060join\u200der \u202eleft",
    "soft\u00adhyphen",
    "no\u00a0break\u2003em\u3000wide",
    "1234567 cats",
    "x86_64 v2.0 #1 50%",
    "\u00bd \u00b2 \u2160 \u0663",
    "stra\u00dfe \u0130stanbul \u01c5",
    "!!!???...",
    "(a) [b] {c} <d>",
    "e-mail: cat@home.org",
    "\u201ccurly\u201d \u2018quotes\u2019 \u2014 dash",
    "a photo of a very very small toad frog on a road in the sun",
    "supercalifragilisticexpialidocious",
    "\ufb01re truck",
    "\uac00\uac01 \u1112\u1161\u11ab",
    "\u0e41\u0e21\u0e27",
    "'s 't 're",
    "don''t",
)


def prompts() -> list[str]:
    """List 500 different prompts: odd ones, nouns in every template, and phrasings."""
    generator = random.Random(0)
    nouns = list(load_nouns())
    found = dict.fromkeys(ODD_PROMPTS)
    for noun in generator.sample(nouns, 60):
        found |= dict.fromkeys(caption(noun, template) for template in TEMPLATES)
    while len(found) < 500:
        found[phrasing(generator.choice(nouns), generator)] = None
    return list(found)


def token_ids() -> dict[str, list[int]]:
    """Tokenize `prompts` as the pipeline does, without padding or cutting."""
    tokenizer = CLIPTokenizer.from_pretrained(ROOT / "checkpoints" / MODELS[0] / "tokenizer")
    return {prompt: tokenizer(readable(prompt, tokenizer)).input_ids for prompt in prompts()}


def noise() -> dict[str, object]:
    """Draw noise of the least, the greatest and another seed, as base64 of float32, and quantiles near the ends."""
    uniform = [0.5 * 2.0**-32, 1e-9, 1e-6, 0.02, 0.075, 0.5, 0.925, 0.98, 1 - 1e-6, 1 - 0.5 * 2.0**-32]
    seeds = {str(seed): base64.b64encode(normal_noise(seed, (1022,)).tobytes()).decode() for seed in (0, 7, MAX_SEED)}
    return {"seeds": seeds, "quantiles": list(zip(uniform, normal_quantile(np.array(uniform)).tolist(), strict=True))}


@cache
def load_checkpoint(model: str) -> MobileDiffusionPipeline:
    """Load a shipped checkpoint in float32."""
    pipeline = load_pipeline(ROOT / "checkpoints" / model)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline: MobileDiffusionPipeline, prompt: str, seed: int, **control) -> np.ndarray:
    """Draw a picture by PyTorch from the page's noise, uint8 [32, 32, 3]."""
    latents = torch.from_numpy(normal_noise(seed, LATENT_SHAPE))
    images = pipeline(prompt=prompt, latents=latents, output_type="np", **control).images
    return (images[0] * 255).round().astype(np.uint8)


def picture(model: str, prompt: str, seed: int) -> np.ndarray:
    """Draw a picture of a shipped checkpoint."""
    return draw(load_checkpoint(model), prompt, seed)


def sketch() -> dict[str, Image.Image]:
    """Draw a truck in lines, and a sky above a street in colours, as a control pipeline takes them."""
    lines, colors = Image.new("L", (32, 32)), Image.new("RGB", (8, 8), (100, 115, 135))
    pen = ImageDraw.Draw(lines)
    for left, top, right, bottom in ((4, 9, 19, 22), (20, 13, 27, 22), (6, 21, 11, 26), (20, 21, 25, 26)):
        pen.rectangle((left, top, right, bottom), outline=255)
    colors.paste((140, 190, 235), (0, 0, 8, 3))
    colors.paste((200, 50, 40), (1, 3, 7, 6))
    return {"image": lines, "color_map": colors}


def self_test(pipeline: MobileDiffusionPipeline, model_sha256: str) -> dict[str, object]:
    """Draw the picture that the page compares its own with, by a sketch where the pipeline takes one."""
    control = sketch() if isinstance(pipeline, MobileDiffusionControlPipeline) else {}
    prompt = caption(NOUN, pipeline.config.class_template)
    pixels = base64.b64encode(draw(pipeline, prompt, SEED, **control).tobytes()).decode()
    test = {"model_sha256": model_sha256, "noun": NOUN, "seed": SEED, "pixels": pixels}
    if control:
        names = zip(("edges", "colors"), control.values(), strict=True)
        test["sketch"] = {name: base64.b64encode(image.tobytes()).decode() for name, image in names}
    return test


def self_test_of(model: str) -> dict[str, object]:
    """Draw the picture of a shipped checkpoint's self-test."""
    return self_test(load_checkpoint(model), folder_sha256(ROOT / "checkpoints" / model))


def _write(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    (WEB / "tests" / "fixtures").mkdir(parents=True, exist_ok=True)
    (WEB / "self-test").mkdir(exist_ok=True)
    _write(WEB / "tests" / "fixtures" / "noise.json", noise())
    tokens = [f" {json.dumps(prompt)}: {json.dumps(ids)}" for prompt, ids in token_ids().items()]
    text = "{\n" + ",\n".join(tokens) + "\n}\n"
    (WEB / "tests" / "fixtures" / "tokens.json").write_text(text, encoding="utf-8")
    for name in MODELS:
        _write(WEB / "self-test" / f"{name}.json", self_test_of(name))
