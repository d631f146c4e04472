"""What `save_pretrained` and `push_to_hub` write loads again and draws the same, however the pipeline was made."""

import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import dynamic_modules_utils, hub_utils
from huggingface_hub import ModelCard

from mobilediff.checkpoints import load_pipeline
from mobilediff.models.mobile_unet import MobileUNet
from mobilediff.pipeline import MobileDiffusionPipeline
from tests.checkpoints.drawing import draw, draw_elsewhere
from tests.tiny import tiny_checkpoint, tiny_pipeline

CODE = {"pipeline.py", "unet/mobile_unet.py", "scheduler/ufogen.py"}


@pytest.fixture(autouse=True)
def modules_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("saving") / "student-1step", "student-1step")


def code_files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}


def with_lora(network: torch.nn.Module) -> None:
    """Give a network an adapter that changes what it draws."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.5, generator=generator)


def test_however_a_pipeline_was_loaded(exported, tmp_path):
    own_code = DiffusionPipeline.from_pretrained(exported, trust_remote_code=True)
    ways = {
        "its-own-code": own_code,
        "package": load_pipeline(exported),
        "made-of-components": MobileDiffusionPipeline(**own_code.components),
        "from-pipe": MobileDiffusionPipeline.from_pipe(load_pipeline(exported)),
    }
    for name, pipeline in ways.items():
        pipeline.save_pretrained(tmp_path / name)
        assert code_files(tmp_path / name) == CODE
        assert not list((tmp_path / name).glob(".*"))
    expected = draw(load_pipeline(exported))
    folders = [tmp_path / name for name in ways]
    for folder, image in zip(folders, draw_elsewhere(folders, tmp_path), strict=True):
        torch.testing.assert_close(image, expected, rtol=0, atol=1e-4, msg=folder.name)
        torch.testing.assert_close(draw(load_pipeline(folder)), expected, rtol=0, atol=1e-4)


def test_every_file_has_the_permissions_that_the_umask_leaves(exported, tmp_path):
    load_pipeline(exported).save_pretrained(tmp_path / "saved")
    (tmp_path / "usual").touch()
    for folder in (exported, tmp_path / "saved"):
        modes = {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
        assert modes == {(tmp_path / "usual").stat().st_mode & 0o777}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_over_its_own_folder(exported, tmp_path, dtype):
    """Weights in memory are views of the files where the precision is the same."""
    folder = Path(shutil.copytree(exported, tmp_path / "mine"))
    load_pipeline(folder).save_pretrained(folder)  # in float32
    (folder / "notes.txt").write_text("mine")
    for load in (
        lambda: DiffusionPipeline.from_pretrained(folder, dtype=dtype, trust_remote_code=True),
        lambda: load_pipeline(folder),
    ):
        pipeline = load()
        with torch.no_grad():
            pipeline.unet.conv_out.bias.add_(0.25)
        bias = pipeline.unet.conv_out.bias.clone()
        for _ in range(2):
            pipeline.save_pretrained(folder)
        again = load()
        assert torch.equal(again.unet.conv_out.bias, bias)
        assert again.unet.state_dict().keys() == pipeline.unet.state_dict().keys()
        assert all(torch.equal(a, b) for a, b in zip(again.vae.parameters(), pipeline.vae.parameters(), strict=True))
    assert (folder / "notes.txt").read_text() == "mine" and code_files(folder) == CODE


def test_an_interrupted_save_leaves_the_old_folder(exported, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(exported, tmp_path / "mine"))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    pipeline = load_pipeline(folder)

    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(pipeline.vae, "save_pretrained", full)
    with pytest.raises(OSError, match="no space left"):
        pipeline.save_pretrained(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("kind", ["compiled", "adapter", "peft", "text encoder"])
def test_a_wrapped_network_is_saved_as_the_network_it_is(kind, tmp_path):
    pipeline = tiny_pipeline("student-1step")
    plain, config = draw(pipeline), peft.LoraConfig(r=2, target_modules=["to_q", "q_proj"])
    if kind == "compiled":
        pipeline.unet = torch.compile(pipeline.unet, backend="eager")
    elif kind == "adapter":
        pipeline.unet.add_adapter(config)
    elif kind == "peft":
        pipeline.unet = peft.get_peft_model(pipeline.unet, config)
    else:
        peft.inject_adapter_in_model(config, pipeline.text_encoder)
    with_lora(pipeline.unet)
    with_lora(pipeline.text_encoder)
    expected = draw(pipeline)
    assert torch.equal(expected, plain) == (kind == "compiled")
    names = set(pipeline.unet.state_dict())

    pipeline.save_pretrained(tmp_path / "saved")
    again = load_pipeline(tmp_path / "saved")
    assert type(again.unet) is MobileUNet and code_files(tmp_path / "saved") == CODE
    torch.testing.assert_close(draw(again), expected, rtol=0, atol=1e-4)
    assert set(pipeline.unet.state_dict()) == names and torch.equal(draw(pipeline), expected)  # as it was


def test_push_to_hub_uploads_the_code(exported, tmp_path, monkeypatch):
    uploads = []

    def upload_folder(repo_id, folder_path, **kwargs):
        uploads.append((repo_id, Path(shutil.copytree(folder_path, tmp_path / f"upload-{len(uploads)}"))))

    created = type("Created", (), {"repo_id": "me/mine"})
    for module in (hub_utils, __import__("diffusers.pipelines.pipeline_utils", fromlist=[""])):
        monkeypatch.setattr(module, "create_repo", lambda repo_id, **kwargs: created)
        monkeypatch.setattr(module, "load_or_create_model_card", lambda *args, **kwargs: ModelCard("---\n---\n# card"))
    monkeypatch.setattr(hub_utils, "upload_folder", upload_folder)
    for pipeline in (load_pipeline(exported), DiffusionPipeline.from_pretrained(exported, trust_remote_code=True)):
        pipeline.push_to_hub("me/mine")
        pipeline.save_pretrained(tmp_path / "mine", push_to_hub=True)
    assert [repo_id for repo_id, _ in uploads] == ["me/mine"] * 4
    for _, folder in uploads:
        assert code_files(folder) == CODE
        torch.testing.assert_close(draw(load_pipeline(folder)), draw(load_pipeline(exported)), rtol=0, atol=1e-4)


class Unshippable(MobileUNet):
    pass


def test_a_class_that_no_file_holds_is_refused_before_any_work(tmp_path, monkeypatch):
    pipeline = tiny_pipeline("student-1step")
    local = type("Local", (MobileUNet,), {"__module__": "__main__"})
    for cls, module in ((local, "__main__"), (Unshippable, "nowhere")):
        monkeypatch.setattr(cls, "__module__", module)
        pipeline.unet.__class__ = cls
        with pytest.raises(ValueError, match=f"the class {module}.{cls.__qualname__} cannot be saved"):
            pipeline.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_configs_are_json(tmp_path):
    """JSON has no infinity, which is a default of the solver that teacher and student are sampled with."""
    pipeline = load_pipeline(Path(__file__).parents[2] / "checkpoints" / "student")
    assert pipeline.scheduler.config.lambda_min_clipped == -float("inf")
    pipeline.save_pretrained(tmp_path / "saved")

    def refuse(constant):
        raise ValueError(constant)

    for file in (tmp_path / "saved").rglob("*.json"):
        json.loads(file.read_text(), parse_constant=refuse)
    assert load_pipeline(tmp_path / "saved").scheduler.config.lambda_min_clipped == -float("inf")
