"""Figures of a LoRA of a tiny model."""

import json

import numpy as np
import pytest
from PIL import Image

from eval.lora import main
from tests.mobilediff.test_lora import WEIGHTS, saved, with_adapter
from tests.shards import write_shard
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("model") / "student-1step", "student-1step")


@pytest.fixture(scope="module")
def loras(tmp_path_factory):
    return [saved(with_adapter(seed), tmp_path_factory.mktemp(f"lora-{seed}")) for seed in (1, 2)]


def measured(tmp_path, *arguments) -> dict:
    main([*map(str, arguments), "--json", str(tmp_path / "result.json")])
    return json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))


def test_pictures_of_a_folders_classes_are_compared_with_its_images(model, loras, tmp_path, capsys):
    for name in ("truck", "cat"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for grey in (0, 255):
            Image.new("RGB", (32, 32), (grey,) * 3).save(tmp_path / "images" / name / f"{grey}.png")
    arguments = ["--model", model, "--lora", loras[0], "--images", tmp_path / "images", "--n", 6]
    result = measured(tmp_path, *arguments, "--together", loras[1])
    assert result["lora_bytes"] == (loras[0] / WEIGHTS).stat().st_size
    distances = [result[name]["kernel_distance"] for name in ("plain", "lora", "together")]
    assert len(set(distances)) == 3 and result["protocol"]["reference_n"] == 4
    assert all("pair_error" not in result[name] for name in ("plain", "lora", "together")) and "filtered" not in result
    assert set(result["milliseconds"]) == {"plain", "lora", "fused"}
    assert "lora kernel distance" in capsys.readouterr().out
    again = measured(tmp_path, *arguments)
    assert (again["plain"], again["lora"]) == (result["plain"], result["lora"]) and "together" not in again


def test_the_filtered_picture_is_the_target_of_each(model, loras, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    write_shard(tmp_path / "test-00000-of-00001.parquet", images, [0, 1] * 4, ["a_s_000001.png"] * 8)
    arguments = ["--model", model, "--lora", loras[0] / WEIGHTS, "--style", "pencil", "--n", 4, "--data", tmp_path]
    result = measured(tmp_path, *arguments)
    assert result["filtered"]["pair_error"] == 0 < result["plain"]["pair_error"] != result["lora"]["pair_error"]
    assert result["protocol"]["reference"] == "CIFAR-10 test, the first 4, pencil"


def test_too_few_pictures_are_refused(model, loras):
    with pytest.raises(ValueError, match="--n is 1; accepted is 2 or more"):
        main(["--model", str(model), "--lora", str(loras[0]), "--style", "pencil", "--n", "1"])
