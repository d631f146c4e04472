"""Loading a checkpoint in a fresh process says nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mobilediff.checkpoints import checkpoint_names, load_pipeline
from mobilediff.export import export_pipeline

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SHIPPED = [ROOT / "checkpoints" / name for name in checkpoint_names(ROOT / "checkpoints")]

LOAD = """
import json, logging, sys
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging
from mobilediff.checkpoints import checkpoint_names, load_pipeline

messages = []
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: messages.append(record.getMessage())
for library in (diffusers_logging, transformers_logging):
    library.add_handler(handler)
said = {}
for folder in sys.argv[1:]:
    load_pipeline(folder)
    DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    said[folder] = messages[:]
    messages.clear()
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> dict[str, list[str]]:
    """What loading said of the shipped checkpoints by name, an export of one with a tiny VAE, and the same damaged."""
    root = tmp_path_factory.mktemp("warnings")
    pipeline = load_pipeline(ROOT / "checkpoints" / "student-1step")
    folders = [*SHIPPED, *(export_pipeline(pipeline, root / name) for name in ("export", "unexpected"))]
    config = root / "unexpected" / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"block_out_channels": [32, 32]}))
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *map(str, folders)],
        cwd=ROOT,
        env=os.environ | {"HF_MODULES_CACHE": str(root / "modules"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return {Path(folder).name: messages for folder, messages in json.loads(done.stdout).items()}


@pytest.mark.parametrize("name", [*(folder.name for folder in SHIPPED), "export"])
def test_loading_warns_of_nothing(said, name):
    assert said[name] == []


def test_a_config_that_is_ignored_in_part_would_be_noticed(said):
    assert len(said["unexpected"]) == 2  # one a way of loading
    assert all("'block_out_channels': [32, 32]" in message for message in said["unexpected"])
