"""Checkpoints that lack a file, or whose parts are links: one line that names it, and nothing unseen."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from eval.extractors.clip import bundled_clip
from mobilediff.checkpoints import load_pipeline, load_tokenizer
from mobilediff.models.image_encoder import ImageEncoder
from tests.tiny import PROJECTION_DIM, tiny_checkpoint, tiny_text_encoder, tiny_tokenizer

FILES = (
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "scheduler/scheduler_config.json",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "student-1step", "student-1step")


@pytest.fixture
def student(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "student"))


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(student, file):
    (student / file).unlink()
    part = file.split("/")[0]
    shown = file if file.endswith(".json") else rf"{part}/\*.safetensors"
    with pytest.raises(FileNotFoundError, match=f"student/{shown} is missing"):
        load_pipeline(student)


def test_a_missing_part_is_named(student):
    shutil.rmtree(student / "tokenizer")
    with pytest.raises(FileNotFoundError, match="tokenizer/tokenizer_config.json is missing"):
        load_pipeline(student)


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("model_index.json", [], "student/model_index.json holds a list; accepted is a JSON object"),
        ("model_index.json", None, "student/model_index.json holds a NoneType"),
        ("unet/config.json", [], "student/unet/config.json holds a list"),
        ("scheduler/scheduler_config.json", "x", "student/scheduler/scheduler_config.json holds a str"),
        ("text_encoder/config.json", {}, "student/text_encoder cannot be loaded: "),
        ("vae/config.json", {}, "student/vae"),
        ("tokenizer/tokenizer.json", {}, "student/tokenizer cannot be loaded: "),
    ],
)
def test_a_file_of_other_content_is_named(student, file, content, named):
    (student / file).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=named):
        load_pipeline(student)


@pytest.mark.parametrize(
    ("file", "name", "value", "named"),
    [
        (
            "model_index.json",
            "unet",
            None,
            "student/model_index.json: unet is None; accepted is a library and a class",
        ),
        ("model_index.json", "scheduler", "UFOGenScheduler", "student/model_index.json: scheduler is 'UFOGen"),
        ("scheduler/scheduler_config.json", "beta_schedule", "odd", "student/scheduler cannot be loaded: .*'odd'"),
        ("scheduler/scheduler_config.json", "num_train_timesteps", 500, "student/scheduler cannot be loaded: .*500"),
    ],
)
def test_an_entry_of_another_value_is_named(student, file, name, value, named):
    (student / file).write_text(json.dumps(json.loads((student / file).read_text()) | {name: value}))
    with pytest.raises(ValueError, match=named):
        load_pipeline(student)


def test_a_vocabulary_beyond_the_embedding_is_refused(student):
    tokenizer = load_tokenizer(student / "tokenizer")
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(student / "tokenizer")
    with pytest.raises(ValueError, match=f"the tokenizer knows {len(tokenizer)} tokens, the text encoder embeds"):
        load_pipeline(student)


def test_a_pickle_behind_a_link_is_refused(student, tmp_path):
    shutil.move(student / "unet", tmp_path / "elsewhere")
    (student / "unet").symlink_to(tmp_path / "elsewhere")
    load_pipeline(student)
    (tmp_path / "elsewhere" / "deep").mkdir()
    torch.save({}, tmp_path / "elsewhere" / "deep" / "weights.bin")
    with pytest.raises(ValueError, match="unet/deep/weights.bin may hold pickled code"):
        load_pipeline(student)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_a_clip_without_a_file_of_its_tokenizer_is_refused(tmp_path, file):
    ImageEncoder(block_out_channels=(8,), projection_dim=PROJECTION_DIM).save_pretrained(tmp_path / "image_encoder")
    tokenizer = tiny_tokenizer()
    tiny_text_encoder(tokenizer).save_pretrained(tmp_path / "text_encoder")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    bundled_clip(tmp_path)
    (tmp_path / "tokenizer" / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"tokenizer/{file} is missing"):
        bundled_clip(tmp_path)
