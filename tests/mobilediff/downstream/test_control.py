"""Pictures that follow a sketch and a map of colours."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from mobilediff.checkpoints import load_pipeline
from mobilediff.downstream.control import MobileDiffusionControlPipeline
from mobilediff.export import export_pipeline, refresh_code
from mobilediff.models.mobile_controlnet import MobileControlNet
from tests.tiny import tiny_control, tiny_pipeline

SKETCH = Image.fromarray(np.eye(32, dtype=np.uint8) * 255)
COLORS = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5)


def draw(pipeline, prompt="a ship", **arguments) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return pipeline(prompt, generator=generator, output_type="pt", **arguments).images


def test_a_scale_of_zero_draws_as_without_control():
    control = tiny_control()
    plain = draw(tiny_pipeline("student-1step"))
    assert torch.equal(draw(control, image=SKETCH, controlnet_conditioning_scale=0), plain)
    assert not torch.equal(draw(control, image=SKETCH), plain)


def test_each_condition_matters_and_either_may_be_missing():
    control = tiny_control()
    drawn = [
        draw(control, image=SKETCH),
        draw(control, color_map=COLORS),
        draw(control, image=SKETCH, color_map=COLORS),
        draw(control, image=SKETCH, controlnet_conditioning_scale=0.5),
    ]
    assert len({image.numpy().tobytes() for image in drawn}) == len(drawn)


def test_images_arrays_and_tensors_are_one_condition():
    control = tiny_control()
    sketch = np.eye(32, dtype=np.float32)
    kinds = [SKETCH, SKETCH.convert("RGB"), SKETCH.convert("1"), [SKETCH], sketch[None, ..., None]]
    kinds += [torch.from_numpy(sketch)[None], torch.from_numpy(sketch)[None, None].expand(1, 3, 32, 32)]
    expected = draw(control, image=SKETCH)
    assert all(torch.equal(draw(control, image=kind), expected) for kind in kinds)
    colors = np.asarray(COLORS, dtype=np.float32) / 255
    kinds = [colors, colors[None], torch.from_numpy(colors).permute(2, 0, 1)]
    expected = draw(control, color_map=COLORS)
    assert all(torch.equal(draw(control, color_map=kind), expected) for kind in kinds)


def test_each_prompt_has_its_condition():
    control, blank = tiny_control(), Image.new("L", (32, 32))
    prompts = ["a ship", "a horse"]
    noise = torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    together = draw(control, prompts, image=[SKETCH, blank], num_images_per_prompt=2, latents=noise)
    for index, (prompt, sketch) in enumerate(zip(prompts, (SKETCH, blank), strict=True)):
        rows = slice(2 * index, 2 * index + 2)
        alone = draw(control, prompt, image=sketch, num_images_per_prompt=2, latents=noise[rows])
        torch.testing.assert_close(together[rows], alone, atol=1e-4, rtol=0)


def test_more_images_than_fit_one_slice_keep_their_conditions(monkeypatch):
    control, blank = tiny_control(), Image.new("L", (32, 32))
    arguments = {"image": [SKETCH, blank, SKETCH], "latents": torch.randn(3, 4, 16, 16)}
    whole = draw(control, ["a ship"] * 3, **arguments)
    monkeypatch.setattr("mobilediff.sampling.networks.MAX_SLICE", 2)
    torch.testing.assert_close(draw(control, ["a ship"] * 3, **arguments), whole, atol=1e-4, rtol=0)


def test_control_applies_between_start_and_end():
    control = tiny_control("student")
    scales = []
    control.controlnet.register_forward_hook(lambda _, args, __: scales.append(args[4]))
    draw(control, image=SKETCH, num_inference_steps=4, control_guidance_start=0.25, control_guidance_end=0.75)
    assert scales == [1.0, 1.0]
    first = draw(control, image=SKETCH, num_inference_steps=4)
    assert len(scales) == 6 and torch.isfinite(first).all()


def test_a_guided_call_controls_both_branches():
    control = tiny_control("student")
    rows = []
    control.controlnet.register_forward_hook(lambda _, args, __: rows.append(len(args[2])))
    draw(control, image=SKETCH, num_inference_steps=1, guidance_scale=3.0)
    draw(control, image=SKETCH, num_inference_steps=1, guidance_scale=1.0)
    assert rows == [2, 1]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "image and color_map are None"),
        ({"image": []}, "image is an empty list"),
        ({"image": "sketch.png"}, "image is 'sketch.png'; accepted: PIL images"),
        ({"image": np.zeros((32, 32, 1), np.uint8)}, "image is ndarray of uint8"),
        ({"image": SKETCH.resize((16, 16))}, "image has 1 channels of 16 x 16; accepted: .* 32 x 32"),
        ({"image": SKETCH.resize((32, 16))}, "image has 1 channels of 16 x 32"),
        ({"image": SKETCH.convert("RGBA")}, "image is of mode RGBA; accepted: 1, L, RGB"),
        ({"image": COLORS.resize((32, 32))}, "image is coloured"),
        ({"image": torch.full((1, 32, 32), float("nan"))}, "image has values that are NaN or outside 0 to 1"),
        ({"image": torch.full((1, 32, 32), -1.0)}, "image has values that are NaN or outside"),
        ({"image": [SKETCH] * 2}, "image or color_map holds 2, accepted: one, or one for each of 1 prompts"),
        ({"image": [SKETCH] * 2, "color_map": [COLORS] * 3}, "image holds 2 and color_map 3"),
        ({"color_map": COLORS.convert("L")}, "color_map is of mode L; accepted: RGB"),
        ({"color_map": COLORS.resize((5, 5))}, "color_map has 3 channels of 5 x 5; accepted: .* 4 x 4 or 8 x 8"),
        ({"color_map": [COLORS, COLORS.resize((8, 8))]}, "color_map holds images of the shapes"),
        ({"image": SKETCH, "controlnet_conditioning_scale": float("nan")}, "controlnet_conditioning_scale is nan"),
        ({"image": SKETCH, "controlnet_conditioning_scale": -1}, "controlnet_conditioning_scale is -1"),
        ({"image": SKETCH, "control_guidance_start": -0.1}, "control_guidance_start is -0.1"),
        ({"image": SKETCH, "control_guidance_end": float("nan")}, "control_guidance_end is nan"),
        ({"image": SKETCH, "control_guidance_end": 0.5}, "none of 1 steps lies whole; .* 0 and 1"),
    ],
)
def test_bad_input_is_refused_before_any_work(arguments, named):
    control = tiny_control()
    control.encode_prompt = None  # called by none of them
    with pytest.raises(ValueError, match=named):
        draw(control, **arguments)


def test_a_control_network_of_another_unet_is_refused():
    with pytest.raises(ValueError, match=r"block_out_channels of the controlnet is \[8, 16\], that of the unet"):
        MobileDiffusionControlPipeline.from_pipe(
            tiny_pipeline("student-1step"),
            controlnet=MobileControlNet(block_out_channels=(8, 16), norm_num_groups=8),
        )


def test_a_checkpoint_draws_the_same_with_and_without_the_package(tmp_path):
    control = tiny_control()
    folder = export_pipeline(control, tmp_path / "control", dtype=torch.float32)
    expected = draw(control, image=SKETCH, color_map=COLORS)
    loaded = load_pipeline(folder)
    assert type(loaded) is MobileDiffusionControlPipeline
    torch.testing.assert_close(draw(loaded, image=SKETCH, color_map=COLORS), expected, atol=1e-5, rtol=0)
    files = {file: file.read_bytes() for file in folder.rglob("*") if file.suffix in (".py", ".json")}
    refresh_code([folder])
    assert {file: file.read_bytes() for file in files} == files
    code = f"""
import sys, torch
from diffusers import DiffusionPipeline
from PIL import Image
pipeline = DiffusionPipeline.from_pretrained({str(folder)!r}, trust_remote_code=True)
assert "mobilediff" not in sys.modules and type(pipeline).__name__ == "MobileDiffusionControlPipeline"
sketch, colors = (Image.open({str(tmp_path)!r} + name) for name in ("/sketch.png", "/colors.png"))
drawn = pipeline("a ship", sketch, colors, generator=torch.Generator().manual_seed(0), output_type="pt").images
torch.save(drawn, {str(tmp_path / "drawn.pt")!r})
"""
    SKETCH.save(tmp_path / "sketch.png")
    COLORS.save(tmp_path / "colors.png")
    subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, check=True, capture_output=True)
    torch.testing.assert_close(torch.load(tmp_path / "drawn.pt"), expected, atol=1e-5, rtol=0)
    assert json.loads((folder / "model_index.json").read_text())["controlnet"] == [
        "mobile_controlnet",
        "MobileControlNet",
    ]
