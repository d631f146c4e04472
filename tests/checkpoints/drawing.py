"""One image of a checkpoint, drawn in this process or in a fresh one that lacks the package."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

STEPS = {50: 2}  # instead of a default number of steps that takes long
CAT, DEER = 3, 4

ELSEWHERE = """
import importlib.util, os, shutil, sys
from diffusers import DiffusionPipeline
from safetensors.torch import save_file
import torch

assert importlib.util.find_spec("mobilediff") is None
copyfile = shutil.copyfile

def copy_in_one_second(source, target, **options):
    copyfile(source, target, **options)
    os.utime(target, (1_000_000_000, 1_000_000_000))
    return target

shutil.copyfile = copy_in_one_second  # as all loads in one second would, the case in which bytecode is mistaken
*folders, output = sys.argv[1:]
pipelines = [DiffusionPipeline.from_pretrained(folder, trust_remote_code=True) for folder in folders]
images = {}
for i, pipeline in enumerate(pipelines):
    assert pipeline.unet.dtype == torch.float32
    steps = 2 if pipeline.config.default_num_inference_steps == 50 else None
    generator = torch.Generator().manual_seed(0)
    images[str(i)] = pipeline(class_labels=3, generator=generator, num_inference_steps=steps, output_type="pt").images
save_file(images, output)
"""


def draw(pipeline: DiffusionPipeline, class_label: int = CAT) -> torch.Tensor:
    """Draw one image in few steps, float [1, 3, H, W] in [0, 1]."""
    pipeline.set_progress_bar_config(disable=True)
    steps = STEPS.get(pipeline.config.default_num_inference_steps)
    generator = torch.Generator().manual_seed(0)
    return pipeline(class_labels=class_label, generator=generator, num_inference_steps=steps, output_type="pt").images


def draw_elsewhere(folders: list[Path], tmp_path: Path) -> list[torch.Tensor]:
    """Load all folders in one fresh process, then draw with each.

    The process runs in an empty folder, offline, with an empty modules cache and without this project on its path. It
    writes bytecode, and all code that it loads is of one second.
    """
    elsewhere, output = tmp_path / "elsewhere", tmp_path / "images.safetensors"
    elsewhere.mkdir()
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")}
    environment |= {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *map(str, folders), str(output)],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    images = load_file(output)
    return [images[str(i)] for i in range(len(folders))]
