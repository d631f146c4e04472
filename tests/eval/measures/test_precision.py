"""Samples in reduced precision against those in fp32: by a second computation, and as the command writes them."""

import json

import pytest
import torch

from eval.measures import precision
from eval.precision import main
from eval.schema import check_result
from mobilediff.checkpoints import load_pipeline


def drawn(folder, dtype, output_type):
    pipeline = load_pipeline(folder).to(dtype)
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    labels = ["airplane", "automobile"]
    return pipeline(class_labels=labels, generator=generators, output_type=output_type).images


def test_the_command_compares_latents_and_pictures_of_the_pipeline_in_each_dtype(checkpoints, tmp_path, capsys):
    folder, file = checkpoints / "student-1step", tmp_path / "precision.json"
    main(["--model", str(folder), "--n", "2", "--seed", "3", "--json", str(file)])
    result = json.loads(file.read_text())
    check_result("eval.precision", result)
    assert list(result["dtypes"]) == ["fp16", "bf16"]
    expected = drawn(folder, torch.float32, "latent")
    images = (255 * drawn(folder, torch.float32, "pt")).round().double()
    for name, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        error = (drawn(folder, dtype, "latent").float() - expected).norm() / expected.norm()
        differences = (255 * drawn(folder, dtype, "pt").float()).round().double() - images
        psnr = 10 * torch.log10(255**2 / differences.square().mean((1, 2, 3))).clamp(max=100)
        assert result["dtypes"][name]["latents_error"] == pytest.approx(error.item(), rel=1e-3)
        assert result["dtypes"][name]["psnr"] == pytest.approx(psnr.mean().item(), rel=1e-3)
    assert 0 < result["dtypes"]["fp16"]["latents_error"] < result["dtypes"]["bf16"]["latents_error"]
    assert "dtypes fp16 latents error" in capsys.readouterr().out


def test_an_overflow_ends_with_an_error(checkpoints, monkeypatch):
    load = precision.load_sampler

    def load_large(*arguments):
        pipeline = load(*arguments)
        with torch.no_grad():
            pipeline.unet.conv_out.weight.mul_(1e6)
        return pipeline

    monkeypatch.setattr(precision, "load_sampler", load_large)
    with pytest.raises(ValueError, match="NaN or infinite latents.*torch.float16"):
        precision.measure_precision(checkpoints / "student-1step", ["fp16"], 1)


def test_bad_options_are_refused_before_anything_is_read(capsys):
    with pytest.raises(ValueError, match="n is 0; accepted is 1 or more"):
        main(["--model", "nowhere", "--n", "0"])
    with pytest.raises(SystemExit):
        main(["--model", "nowhere", "--dtypes", "int8"])
    assert "invalid choice: 'int8'" in capsys.readouterr().err
