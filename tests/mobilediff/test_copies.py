"""A pipeline made of another one's parts, and copies of it by value."""

import copy
import io
import multiprocessing
import pickle
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import dynamic_modules_utils

from mobilediff.pipeline import MobileDiffusionPipeline
from tests.checkpoints.drawing import draw
from tests.tiny import KINDS, tiny_checkpoint, tiny_pipeline


def by_torch(pipeline):
    stream = io.BytesIO()
    torch.save(pipeline, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=False)


COPIES = {
    "components": lambda pipeline: MobileDiffusionPipeline(**pipeline.components),
    "components and parameters": lambda p: MobileDiffusionPipeline(**p.components, **p.parameters),
    "from_pipe": MobileDiffusionPipeline.from_pipe,
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda pipeline: pickle.loads(pickle.dumps(pipeline)),
    "torch": by_torch,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", COPIES)
def test_the_copy_draws_the_same_by_default(kind, way):
    pipeline = tiny_pipeline(kind)
    if kind in ("teacher", "student"):  # other options than the class's
        options = {"default_num_inference_steps": 3, "default_guidance_scale": 1.5, "default_guidance_low": 0.25}
        pipeline.register_to_config(null_prompt="a ship", class_template="{noun}", **options)
    expected = draw(pipeline)
    other = COPIES[way](pipeline)
    other.set_progress_bar_config(disable=True)
    assert torch.equal(draw(other), expected)
    assert {name: other.config[name] for name in pipeline.parameters} == pipeline.parameters
    assert other.nfe() == pipeline.nfe() and other.prompt_warnings("qqqq") == pipeline.prompt_warnings("qqqq")


@pytest.mark.parametrize("way", [way for way in COPIES if way != "torch"])
def test_the_copy_keeps_embeddings_of_its_own(way):
    pipeline = tiny_pipeline("student-1step")
    draw(pipeline)
    other = COPIES[way](pipeline)
    assert pipeline._encode_one.cache_info().currsize == 1 and other._encode_one.cache_info().currsize == 0
    draw(other)
    other.forget_prompts()
    assert pipeline._encode_one.cache_info().currsize == 1


def test_options_that_are_given_come_first():
    pipeline = tiny_pipeline("student")
    given = {"default_num_inference_steps": 2, "null_prompt": "a cat"}
    for other in (
        MobileDiffusionPipeline(**pipeline.components, **given),
        MobileDiffusionPipeline.from_pipe(pipeline, **given),
    ):
        assert {name: other.config[name] for name in given} == given
        assert other.config.nouns == pipeline.config.nouns
    assert pipeline.config.default_num_inference_steps == 50 and pipeline.config.null_prompt == ""
    parts = tiny_pipeline("student-1step")
    exchanged = MobileDiffusionPipeline.from_pipe(pipeline, vae=parts.vae)
    assert exchanged.vae is parts.vae and exchanged.unet is pipeline.unet


def test_from_pipe_keeps_the_precision_unless_another_is_asked_for():
    pipeline = tiny_pipeline("student-1step").to(torch.float16)
    assert MobileDiffusionPipeline.from_pipe(pipeline).dtype == torch.float16
    assert MobileDiffusionPipeline.from_pipe(pipeline, dtype=torch.float32).dtype == torch.float32


def _draw_into(connection, pickled: bytes) -> None:
    torch.set_num_threads(1)
    connection.send(draw(pickle.loads(pickled)).numpy())


@pytest.mark.parametrize("own_code", [False, True])
def test_a_spawned_worker_takes_a_pipeline(own_code, tmp_path, monkeypatch):
    pipeline = tiny_pipeline("student-1step")
    if own_code:
        monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
        folder = tiny_checkpoint(tmp_path / "student-1step", "student-1step")
        pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
        monkeypatch.syspath_prepend(tmp_path / "modules")  # ahead of other tests' caches
        assert Path(type(pipeline).__module__.replace(".", "/")).name.startswith("pipeline_")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_draw_into, args=(theirs, pickle.dumps(pipeline)))
    process.start()
    theirs.close()
    try:
        image = torch.from_numpy(ours.recv())
    finally:
        process.join(120)
    torch.testing.assert_close(image, draw(pipeline), rtol=0, atol=1e-4)
