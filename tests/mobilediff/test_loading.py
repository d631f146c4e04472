"""What loading accepts of diffusers' ways, and what it says about folders that cannot be loaded."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoModel, AutoPipelineForText2Image, DiffusionPipeline
from diffusers.utils import dynamic_modules_utils

from mobilediff.models.mobile_unet import MobileUNet
from mobilediff.pipeline import MobileDiffusionPipeline
from tests.checkpoints.drawing import draw
from tests.tiny import tiny_pipeline


@pytest.fixture
def folder(checkpoints, tmp_path) -> Path:
    return Path(shutil.copytree(checkpoints / "student-1step", tmp_path / "student-1step"))


@pytest.fixture(params=["package", "its own code"])
def pipeline_class(request, checkpoints, tmp_path, monkeypatch) -> type:
    if request.param == "package":
        return MobileDiffusionPipeline
    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    return type(DiffusionPipeline.from_pretrained(checkpoints / "student-1step", trust_remote_code=True))


@pytest.mark.parametrize("component", ["unet", "text_encoder", "vae"])
def test_a_git_lfs_pointer_is_named(component, folder, pipeline_class):
    (file,) = (folder / component).glob("*.safetensors")
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(ValueError, match=f"{component}/{file.name} is a Git LFS pointer"):
        pipeline_class.from_pretrained(folder, trust_remote_code=True)


@pytest.mark.parametrize("file", ["unet/config.json", "model_index.json"])
def test_an_entry_of_a_newer_version_is_refused_and_not_ignored(file, folder):
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | {"new_option": [1, 2]}))
    for pipeline_class in (MobileDiffusionPipeline, DiffusionPipeline):
        with pytest.raises(ValueError, match="has new_option, which this code of Mobile.* does not know; accepted"):
            pipeline_class.from_pretrained(folder, trust_remote_code=True)


def test_a_variant_that_is_not_there_is_refused_with_what_is(folder, pipeline_class):
    with pytest.raises(ValueError, match="variant is 'fp16', .* have no such variant; accepted is None: dtype says"):
        pipeline_class.from_pretrained(folder, variant="fp16", trust_remote_code=True)
    with pytest.raises(ValueError, match="variant=ema.*no such modeling files"):  # diffusers' own words
        DiffusionPipeline.from_pretrained(folder, variant="ema", trust_remote_code=True)


def test_a_variant_that_is_there_is_loaded(folder):
    expected = draw(MobileDiffusionPipeline.from_pretrained(folder))
    pipeline = MobileDiffusionPipeline.from_pretrained(folder)
    pipeline.save_pretrained(folder.with_name("variant"), variant="fp16")
    again = MobileDiffusionPipeline.from_pretrained(folder.with_name("variant"), variant="fp16")
    torch.testing.assert_close(draw(again), expected, rtol=0, atol=1e-4)


def test_the_device_is_chosen_for_the_network(folder):
    expected = draw(MobileDiffusionPipeline.from_pretrained(folder))
    network = MobileUNet.from_pretrained(folder / "unet", device_map="auto")
    pipeline = MobileDiffusionPipeline.from_pretrained(folder, unet=network)
    torch.testing.assert_close(draw(pipeline), expected, rtol=0, atol=1e-4)


def test_repeated_blocks_are_compiled_alone():
    pipeline = tiny_pipeline("student-1step")
    expected, compiled = draw(pipeline), []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    pipeline.unet.compile_repeated_blocks(backend=backend, fullgraph=True)
    torch.testing.assert_close(draw(pipeline), expected, rtol=0, atol=1e-4)
    assert len(compiled) > 1


def test_the_automatic_model_takes_the_networks_code_from_the_folder(folder, tmp_path, caplog):
    own = MobileDiffusionPipeline.from_pretrained(folder)
    DiffusionPipeline.from_pretrained(folder, trust_remote_code=True).save_pretrained(tmp_path / "again")
    for checkpoint in (folder, tmp_path / "again"):
        unet = AutoModel.from_pretrained(str(checkpoint / "unet"), trust_remote_code=True)
        assert type(unet).__name__ == "MobileUNet" and type(unet) is not MobileUNet
        assert all(torch.equal(value, unet.state_dict()[name]) for name, value in own.unet.state_dict().items())
        torch.testing.assert_close(draw(MobileDiffusionPipeline.from_pipe(own, unet=unet)), draw(own))
    assert not [record for record in caplog.records if "trust_remote_code" not in record.message]
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        AutoModel.from_pretrained(str(folder / "unet"))


def test_the_automatic_pipeline_says_that_it_does_not_know_the_class(folder):
    with pytest.raises(ValueError, match="AutoPipeline can't find a pipeline linked to .*MobileDiffusionPipeline"):
        AutoPipelineForText2Image.from_pretrained(folder)
    with pytest.raises(ValueError, match="AutoPipeline can't find a pipeline linked to MobileDiffusionPipeline"):
        AutoPipelineForText2Image.from_pipe(tiny_pipeline("student-1step"))


@pytest.mark.parametrize("kind", ["student", "student-1step"])
def test_a_printed_pipeline_fits_on_a_screen(kind):
    printed = repr(tiny_pipeline(kind))
    assert len(printed.splitlines()) < 45 and "nouns" in printed and len(printed) < 3000
