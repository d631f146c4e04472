"""Run a stage for three steps on tiny data, networks and weights, and read what it left."""

import json
from pathlib import Path

from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.training.engine.options import RunLimits, build_options
from mobilediff.training.engine.stage import Stage
from tests.tiny import tiny_text_encoder, tiny_tokenizer, tiny_vae

FULL = RunLimits()
TINY_IMAGES = {"block_out_channels": [8, 8], "projection_dim": 6}
TINY_VAE = {
    "block_out_channels": [8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "norm_num_groups": 4,
}


def tiny_options(output, data, **changes) -> dict:
    """Options of three steps, with changes."""
    return {
        "output": str(output),
        "data": str(data),
        "steps": 3,
        "batch_size": 4,
        "warmup_steps": 1,
        "log_every": 1,
        **changes,
    }


def run(stage_class: type[Stage], options_class: type, values: dict, limits: RunLimits = FULL) -> bool:
    """Run a stage as its command line does: whether the last step was reached."""
    options = build_options(options_class, values)
    return stage_class(options.for_trial(limits) if limits.trial else options, limits).run()


def read_records(folder: Path) -> list[dict]:
    """The lines of a run's stats.jsonl."""
    return [json.loads(line) for line in (folder / "stats.jsonl").read_text(encoding="utf-8").splitlines()]


def tiny_encoder(folder: Path) -> str:
    """Save an `ImageEncoder`; returns its folder."""
    ImageEncoder(**TINY_IMAGES).save_pretrained(folder)
    return str(folder)


def tiny_frozen_parts(folder: Path) -> dict[str, str]:
    """Save a VAE and a text encoder; returns the options `vae` and `text`."""
    tokenizer = tiny_tokenizer()
    tiny_vae().save_pretrained(folder / "vae")
    tiny_text_encoder(tokenizer).save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    return {"vae": str(folder / "vae"), "text": str(folder)}
