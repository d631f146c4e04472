"""Stage `clip`."""

from pathlib import Path

import pytest
import torch
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from mobilediff.captions import CaptionBank
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.pipeline import encode_text
from mobilediff.training.clip import Clip, ClipOptions, naming_loss, train_tokenizer
from mobilediff.training.engine.options import build_options
from tests.mobilediff.training.losses.overfit import overfit
from tests.mobilediff.training.runs import TINY_IMAGES, read_records, run, tiny_options

TINY_TEXT = {
    "hidden_size": 8,
    "intermediate_size": 16,
    "projection_dim": 6,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def test_names_that_see_one_batch_of_images_find_them():
    torch.manual_seed(0)
    images, names, ids = torch.randn(4, 6), torch.randn(5, 6, requires_grad=True), torch.tensor([0, 1, 2, -1])
    scale = torch.tensor(10.0).log()
    first, last = overfit([names], lambda: naming_loss(images, names, ids, scale))
    assert last < first / 4


@pytest.mark.slow
def test_the_export_holds_both_towers(tmp_path, data_folder):
    values = tiny_options(
        tmp_path / "clip",
        data_folder,
        ema_decay=0.0,
        sample_every=3,
        image_encoder=TINY_IMAGES,
        text_encoder=TINY_TEXT,
    )
    assert run(Clip, ClipOptions, values)
    assert {"zero_shot_noun", "zero_shot_class"} <= set(read_records(tmp_path / "clip")[-1])
    export = tmp_path / "clip" / "export"
    assert ImageEncoder.from_pretrained(export / "image_encoder").config.projection_dim == 6
    assert CLIPTextModelWithProjection.from_pretrained(export / "text_encoder").config.projection_dim == 6


def test_naming_is_by_cosine_among_all_names():
    names, scale = torch.eye(3), torch.tensor(2.0).log()
    loss = naming_loss(5 * names[:2], 7 * names, torch.tensor([0, 1]), scale)
    log_partition = torch.logsumexp(torch.tensor([2.0, 0.0, 0.0]), 0)
    assert loss.item() == pytest.approx((log_partition - 2).item(), rel=1e-5)
    unknown = naming_loss(names[:2], names, torch.tensor([0, -1]), scale)
    assert unknown.item() == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.slow
def test_a_text_tower_learns_phrasings_and_keeps_what_it_says_of_captions(tmp_path, data_folder):
    values = tiny_options(tmp_path / "first", data_folder, image_encoder=TINY_IMAGES, text_encoder=TINY_TEXT)
    assert run(Clip, ClipOptions, values)
    first = tmp_path / "first" / "export"
    values |= {"steps": 24, "learning_rate": 0.01, "initial_weights": str(first), "dtype": "fp32", "ema_decay": 0.0}
    losses = {}
    for keep in (0.0, 100.0):
        values |= {"lambda_keep": keep, "output": str(tmp_path / f"keep-{keep}")}
        assert run(Clip, ClipOptions, values)
        export = tmp_path / f"keep-{keep}" / "export"
        assert (export / "tokenizer" / "tokenizer.json").read_bytes() == (
            first / "tokenizer" / "tokenizer.json"
        ).read_bytes()
        losses[keep] = moved(first, export)
    assert 0 < losses[100.0] < losses[0.0] / 2, losses
    with pytest.raises(ValueError, match="lambda_keep is 1.0; without initial_weights"):
        build_options(ClipOptions, values | {"lambda_keep": 1.0, "initial_weights": None})


@torch.no_grad()
def moved(before: Path, after: Path) -> float:
    """How far apart two text towers are on plain captions."""
    hidden = [
        encode_text(
            CLIPTokenizer.from_pretrained(folder / "tokenizer"),
            CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder"),
            CaptionBank().texts,
        )[0]
        for folder in (before, after)
    ]
    return (hidden[0] - hidden[1]).square().mean().item()


def test_a_trained_tokenizer_keeps_every_byte():
    tokenizer = train_tokenizer(["a photo of a fire truck"], 600, 16)
    assert tokenizer.tokenize("A fire TRUCK")[-1] == "truck</w>"
    ids = tokenizer("§ zebra ~")["input_ids"]
    assert tokenizer.eos_token_id not in ids[1:-1]
