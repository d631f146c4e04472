import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import AutoencoderTiny, DDIMScheduler, DiffusionPipeline, DPMSolverMultistepScheduler
from diffusers.utils import dynamic_modules_utils
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModelWithProjection

from mobilediff import export
from mobilediff.checkpoints import checkpoint_names, load_pipeline
from mobilediff.downstream.img2img import MobileDiffusionImg2ImgPipeline
from mobilediff.export import export_pipeline
from mobilediff.pipeline import MobileDiffusionPipeline
from tests.checkpoints.drawing import draw
from tests.tiny import KINDS, tiny_checkpoint, tiny_pipeline, tiny_text_encoder, tiny_tokenizer


@pytest.fixture
def student(checkpoints, tmp_path) -> Path:
    """A checkpoint that the test may damage."""
    return Path(shutil.copytree(checkpoints / "student", tmp_path / "student"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_loads_with_the_package_and_gives_the_same_image(checkpoints, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path))
    original = draw(tiny_pipeline(kind))
    for pipeline in (
        load_pipeline(checkpoints / kind),
        MobileDiffusionPipeline.from_pretrained(checkpoints / kind),
        DiffusionPipeline.from_pretrained(checkpoints / kind, trust_remote_code=True),
    ):
        assert {module.dtype for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder)} == {torch.float32}
        torch.testing.assert_close(draw(pipeline), original, rtol=0, atol=0.03)
    in_half = load_pipeline(checkpoints / kind, dtype=torch.bfloat16)
    assert in_half.unet.dtype == torch.bfloat16


def test_the_package_runs_its_own_code_and_not_the_folders(checkpoints, student):
    code = next(student.glob("unet/*.py"))
    code.write_text("raise SystemExit('code of the folder was run')")
    assert type(load_pipeline(student).unet).__module__ == "mobilediff.models.mobile_unet"
    with pytest.raises(ValueError, match="trust_remote_code"):
        DiffusionPipeline.from_pretrained(student)


def test_what_is_in_a_checkpoint(checkpoints):
    folder = checkpoints / "student-1step"
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"][1] == "MobileDiffusionPipeline"
    assert (folder / f"{index['_class_name'][0]}.py").is_file()
    for name, cls in (("unet", "MobileUNet"), ("scheduler", "UFOGenScheduler")):
        assert index[name][1] == cls and (folder / name / f"{index[name][0]}.py").is_file()
    assert index["vae"] == ["diffusers", "AutoencoderKL"]
    # diffusers takes any other list for a component and looks for its folder on the hub.
    assert all((folder / key).is_dir() for key, value in index.items() if isinstance(value, list) and key[0] != "_")
    suffixes = {file.suffix for file in folder.rglob("*") if file.is_file()}
    assert suffixes == {".json", ".md", ".py", ".safetensors"}
    assert "have not been measured" in (folder / "README.md").read_text()
    for file in folder.rglob("*.safetensors"):
        assert {t.dtype for t in load_file(file).values() if t.is_floating_point()} == {torch.float16}


def test_exporting_leaves_the_pipeline_as_it_is(tmp_path):
    pipeline = tiny_pipeline("student-1step")
    before = {name: tensor.clone() for name, tensor in pipeline.unet.state_dict().items()}
    export_pipeline(pipeline, tmp_path / "a")
    assert all(torch.equal(tensor, before[name]) for name, tensor in pipeline.unet.state_dict().items())


def test_a_pruned_network_reloads_through_its_config_alone(checkpoints):
    unet = load_pipeline(checkpoints / "student-1step-pruned").unet
    assert unet.config.resnet_hidden_channels == {"down_blocks.1.resnets.0": 16}
    whole = load_pipeline(checkpoints / "student-1step").unet
    assert sum(p.numel() for p in unet.parameters()) < sum(p.numel() for p in whole.parameters())


def test_an_export_replaces_a_checkpoint_in_one_piece(tmp_path, monkeypatch):
    folder = tiny_checkpoint(tmp_path / "model", "student-1step", seed=0)
    (folder / "unet" / "stale.json").touch()
    tiny_checkpoint(folder, "student-1step", seed=1)
    assert not (folder / "unet" / "stale.json").exists()
    torch.testing.assert_close(
        draw(load_pipeline(folder)), draw(tiny_pipeline("student-1step", seed=1)), rtol=0, atol=0.03
    )

    monkeypatch.setattr(export, "_tidy_config", lambda *args: 1 / 0)
    before = draw(load_pipeline(folder))
    with pytest.raises(ZeroDivisionError):
        tiny_checkpoint(folder, "student-1step", seed=2)
    assert torch.equal(draw(load_pipeline(folder)), before)
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "nothing temporary is left"


def test_export_refuses_a_foreign_folder_and_infinite_weights(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(FileExistsError, match="is not a checkpoint"):
        tiny_checkpoint(tmp_path)
    pipeline = tiny_pipeline("student-1step")
    with torch.no_grad():
        pipeline.unet.conv_in.weight[0] = 1e6
    with pytest.raises(ValueError, match="conv_in.weight of unet is not finite in torch.float16"):
        export_pipeline(pipeline, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_missing_checkpoint_is_named_with_those_beside_it(checkpoints):
    assert checkpoint_names(checkpoints) == sorted(KINDS)
    with pytest.raises(FileNotFoundError, match="no checkpoint at .*studnet.*holds student, student-1step"):
        load_pipeline(checkpoints / "studnet")
    with pytest.raises(FileNotFoundError, match="holds none"):
        load_pipeline(checkpoints / "nowhere" / "at-all")


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("damage", ["truncated", "pointer", "empty", "lacking"])
def test_damaged_weights_are_named(student, component, damage):
    file = next((student / component).glob("*.safetensors"))
    content = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "pointer":
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        tensors = load_file(file)
        tensors.pop(sorted(tensors)[0])
        save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=component):
        load_pipeline(student)


def test_a_missing_weight_file_a_pickle_and_broken_json_are_refused(student):
    config = student / "unet" / "config.json"
    text = config.read_text()
    config.write_text(text[:50])
    with pytest.raises(ValueError, match="unet/config.json is not valid JSON"):
        load_pipeline(student)
    config.write_text(text)
    file = next((student / "unet").glob("*.safetensors"))
    tensors = load_file(file)
    file.unlink()
    with pytest.raises(OSError, match="unet"):
        load_pipeline(student)
    torch.save(tensors, student / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="diffusion_pytorch_model.bin may hold pickled code"):
        load_pipeline(student)


def front_matter(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_command_makes_a_folder_for_the_hub(checkpoints, tmp_path):
    output = tmp_path / "hub"
    arguments = ["--model", str(checkpoints / "student-1step"), "--output", str(output)]
    export.main(arguments)
    card = (output / "README.md").read_text()
    metadata = front_matter(card)
    assert metadata["license"] == "mit" and metadata["library_name"] == "diffusers"
    assert metadata["datasets"] == ["uoft-cs/cifar10"] and "text-to-image" in metadata["tags"]
    assert "# hub\n" in card and "have not been measured" in card and "1, 2, 4" in card
    load_pipeline(output)

    export.main([*arguments, "--name", "student-1step"])
    assert "# student-1step\n" in (output / "README.md").read_text()
    (tmp_path / "card.md").write_text("mine")
    export.main([*arguments, "--card", str(tmp_path / "card.md")])
    assert (output / "README.md").read_text() == "mine"

    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        export.main(["--model", str(tmp_path / "none"), "--output", str(output)])


def test_the_command_sets_the_default_scale_of_guidance(checkpoints, tmp_path):
    arguments = ["--output", str(tmp_path / "hub")]
    export.main(["--model", str(checkpoints / "teacher"), *arguments, "--guidance-scale", "1.5"])
    pipeline = load_pipeline(tmp_path / "hub")
    assert pipeline.config.default_guidance_scale == 1.5
    for kind, scale in (("student-1step", "1.5"), ("teacher", "-1")):
        with pytest.raises(ValueError, match=re.escape(f"guidance_scale is {float(scale)}")):
            export.main(["--model", str(checkpoints / kind), *arguments, "--guidance-scale", scale])


def test_the_command_sets_the_interval_of_guidance(checkpoints, tmp_path):
    arguments = ["--output", str(tmp_path / "hub")]
    export.main(["--model", str(checkpoints / "teacher"), *arguments, "--interval", "0.2", "0.7"])
    assert load_pipeline(tmp_path / "hub").nfe(50) == 50 + 25
    assert (
        "| guidance scale | 3, between 0.2 and 0.7 of the timesteps |" in (tmp_path / "hub" / "README.md").read_text()
    )
    for kind, interval in (("student-1step", ["0.2", "0.7"]), ("teacher", ["0.7", "0.2"])):
        with pytest.raises(ValueError, match=re.escape("guidance_interval is [0.")):
            export.main(["--model", str(checkpoints / kind), *arguments, "--interval", *interval])


def test_the_command_sets_scheduler_and_steps(checkpoints, tmp_path):
    arguments = ["--output", str(tmp_path / "hub")]
    teacher = ["--model", str(checkpoints / "teacher"), *arguments]
    export.main([*teacher, "--scheduler", "DPMSolverMultistepScheduler", "--steps", "7"])
    pipeline = load_pipeline(tmp_path / "hub")
    assert type(pipeline.scheduler).__name__ == "DPMSolverMultistepScheduler" and pipeline.nfe() == 14
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    student = ["--model", str(checkpoints / "student-8step"), *arguments]
    (tmp_path / "card.md").write_text("mine")
    for bad, named in (
        ([*teacher, "--scheduler", "LCM"], "scheduler is 'LCM'; accepted"),
        ([*teacher, "--scheduler", "HeunDiscreteScheduler"], "scheduler is 'HeunDiscreteScheduler'; accepted"),
        ([*teacher, "--scheduler", "PNDMScheduler"], "scheduler is 'PNDMScheduler'; accepted"),
        ([*teacher, "--scheduler", "EDMEulerScheduler"], "scheduler is 'EDMEulerScheduler'; accepted"),
        ([*teacher, "--steps", "61", "--card", str(tmp_path / "card.md")], "num_inference_steps is 61"),
        ([*student, "--scheduler", "DDIMScheduler"], "scheduler is 'DDIMScheduler'; accepted"),
        ([*teacher, "--steps", "0"], "num_inference_steps is 0"),
        ([*student, "--steps", "9"], "num_inference_steps is 9"),
    ):
        with pytest.raises(ValueError, match=re.escape(named)):
            export.main(bad)


def test_the_command_takes_another_text_encoder_of_the_same_widths(checkpoints, tmp_path):
    tokenizer = tiny_tokenizer()
    encoder = tiny_text_encoder(tokenizer)
    with torch.no_grad():
        encoder.text_projection.weight.mul_(2)
    encoder.save_pretrained(tmp_path / "clip" / "text_encoder")
    tokenizer.save_pretrained(tmp_path / "clip" / "tokenizer")
    arguments = ["--model", str(checkpoints / "teacher"), "--output", str(tmp_path / "hub")]
    arguments += ["--text", str(tmp_path / "clip")]
    export.main(arguments)
    torch.testing.assert_close(
        load_pipeline(tmp_path / "hub").text_encoder.text_projection.weight,
        encoder.text_projection.weight,
        rtol=1e-3,
        atol=1e-4,
    )
    encoder.config.projection_dim = 5
    CLIPTextModelWithProjection(encoder.config).save_pretrained(tmp_path / "clip" / "text_encoder")
    with pytest.raises(ValueError, match="projection_dim of the text encoder is 5, the model's is"):
        export.main(arguments)


def test_the_command_takes_another_decoder_of_the_same_encoder(checkpoints, tmp_path):
    vae = load_pipeline(checkpoints / "teacher").vae
    with torch.no_grad():
        vae.decoder.conv_out.bias.add_(1)
    vae.save_pretrained(tmp_path / "vae")
    arguments = ["--model", str(checkpoints / "teacher"), "--output", str(tmp_path / "hub")]
    arguments += ["--vae", str(tmp_path / "vae")]
    export.main(arguments)
    taken = load_pipeline(tmp_path / "hub").vae
    torch.testing.assert_close(taken.decoder.conv_out.bias, vae.decoder.conv_out.bias, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        vae.quant_conv.bias.add_(1)
    vae.save_pretrained(tmp_path / "vae")
    with pytest.raises(ValueError, match="its encoder is not the one"):
        export.main(arguments)
    vae.register_to_config(latents_std=[2.0] * 4)
    vae.save_pretrained(tmp_path / "vae")
    with pytest.raises(ValueError, match=re.escape("latents_std is [2.0, 2.0, 2.0, 2.0], but")):
        export.main(arguments)


def test_a_vae_of_another_class_is_taken_if_it_decodes_alike(checkpoints, tmp_path, monkeypatch):
    widths = {"encoder_block_out_channels": [8, 8], "decoder_block_out_channels": [8, 8]}
    small = AutoencoderTiny(**widths, num_encoder_blocks=[1, 1], num_decoder_blocks=[1, 0])
    small.save_pretrained(tmp_path / "vae")
    arguments = ["--model", str(checkpoints / "student-1step"), "--output", str(tmp_path / "hub")]
    arguments += ["--vae", str(tmp_path / "vae")]
    with torch.no_grad():
        small.decoder.layers[-1].bias.add_(10)
    small.save_pretrained(tmp_path / "vae")
    with pytest.raises(ValueError, match="accepted is 20 dB or more: they are for other latents"):
        export.main(arguments)
    assert not (tmp_path / "hub").exists()
    monkeypatch.setattr(export, "LEAST_LIKENESS", -100)
    export.main(arguments)
    assert "block_out_channels" not in json.loads((tmp_path / "hub" / "vae" / "config.json").read_text())
    taken = load_pipeline(tmp_path / "hub")
    torch.testing.assert_close(taken.vae.decoder.layers[-1].bias, small.decoder.layers[-1].bias, rtol=1e-3, atol=1e-2)
    latents = torch.randn(2, 4, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(taken.decode_latents(latents), taken.vae.decode(latents).sample)
        taken.vae.register_to_config(scaling_factor=0.5, shift_factor=1.0)
        torch.testing.assert_close(taken.decode_latents(latents), taken.vae.decode(2 * latents + 1).sample)
    for content, named in (
        ("{", "is not valid JSON"),
        ('{"_class_name": "VQModel"}', "_class_name is 'VQModel'; accepted"),
    ):
        (tmp_path / "vae" / "config.json").write_text(content)
        with pytest.raises(ValueError, match=re.escape(named)):
            export.main(arguments)


def enlarging(vae: AutoencoderTiny) -> AutoencoderTiny:
    """A decoder that draws each pixel of another's images four times: a further level that copies."""
    config = {name: [*vae.config[name], 8] for name in ("encoder_block_out_channels", "decoder_block_out_channels")}
    config |= {name: [*vae.config[name], 0] for name in ("num_encoder_blocks", "num_decoder_blocks")}
    large, last = AutoencoderTiny(**config), len(vae.decoder.layers) - 1
    with torch.no_grad():
        for mine, its in zip(large.decoder.layers[:last], vae.decoder.layers[:last], strict=True):
            mine.load_state_dict(its.state_dict())
        # the old last layer writes its three channels at 32 x 32 pixels, which the new ones hand on
        inner, outer = large.decoder.layers[last + 1], large.decoder.layers[last + 2]
        for layer in (inner, outer):
            layer.weight.zero_()
        inner.weight[:, :, 1, 1] = torch.eye(8)
        outer.weight[:, :, 1, 1] = vae.decoder.layers[last].weight[:, :, 1, 1]
        outer.bias.copy_(vae.decoder.layers[last].bias)
    return large


def test_a_vae_of_twice_the_size_is_taken_if_its_images_are_alike_when_shrunk(checkpoints, tmp_path, capsys):
    widths = {"encoder_block_out_channels": [8, 8], "decoder_block_out_channels": [8, 8]}
    small = AutoencoderTiny(**widths, num_encoder_blocks=[1, 1], num_decoder_blocks=[1, 0])
    with torch.no_grad():  # of the last convolution the middle alone, which enlarged pixels pass unchanged
        middle = small.decoder.layers[-1].weight[:, :, 1, 1].clone()
        small.decoder.layers[-1].weight.zero_()
        small.decoder.layers[-1].weight[:, :, 1, 1] = middle
    large = enlarging(small)
    large.save_pretrained(tmp_path / "vae")
    pipeline = load_pipeline(checkpoints / "student-1step")
    pipeline.register_modules(vae=small)
    export_pipeline(pipeline, tmp_path / "small")
    export.main(
        ["--model", str(tmp_path / "small"), "--output", str(tmp_path / "hub"), "--vae", str(tmp_path / "vae")]
    )
    taken = load_pipeline(tmp_path / "hub")
    drawn, expected = (
        one(class_labels="truck", generator=torch.Generator().manual_seed(0), output_type="pt").images
        for one in (taken, pipeline)
    )
    assert drawn.shape == (1, 3, 64, 64)
    torch.testing.assert_close(drawn, expected.repeat_interleave(2, 2).repeat_interleave(2, 3), rtol=0, atol=1e-2)
    assert "Images are 64 x 64 pixels." in (tmp_path / "hub" / "README.md").read_text()
    varied = MobileDiffusionImg2ImgPipeline.from_pipe(taken)("a cat", image=drawn, strength=0.5).images[0]
    assert varied.size == (64, 64)
    with pytest.raises(ValueError, match="32 x 32 pixels"):
        MobileDiffusionImg2ImgPipeline.from_pipe(taken)("a cat", image=expected, strength=0.5)


def test_a_compiled_network_is_exported_as_what_it_is(tmp_path):
    pipeline = tiny_pipeline("student-1step")
    plain = export_pipeline(pipeline, tmp_path / "plain" / "model")
    pipeline.unet = torch.compile(pipeline.unet, backend="eager")
    pipeline.vae = torch.compile(pipeline.vae, backend="eager")
    compiled = export_pipeline(pipeline, tmp_path / "compiled" / "model")
    files = sorted(path.relative_to(plain) for path in plain.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(compiled) for path in compiled.rglob("*") if path.is_file())
    assert all((plain / file).read_bytes() == (compiled / file).read_bytes() for file in files)


def test_classes_that_no_checkpoint_can_carry_are_refused_and_the_old_one_stays(tmp_path):
    folder = tiny_checkpoint(tmp_path / "model", "student-1step")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for changes, named in (
        ({"__module__": "__main__"}, "__main__.MobileUNet"),
        ({"__name__": "MyUNet", "__qualname__": "MyUNet"}, "mobilediff.models.mobile_unet.MyUNet"),
    ):
        pipeline = tiny_pipeline("student-1step")
        cls = type(pipeline.unet)
        name = changes.get("__name__", cls.__name__)
        own = type(name, (cls,), {"__module__": cls.__module__} | changes)
        pipeline.unet.__class__ = own
        with pytest.raises(ValueError, match=f"the class {named} cannot be saved; accepted are"):
            export_pipeline(pipeline, folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_what_cannot_be_loaded_does_not_take_the_place_of_what_can(tmp_path, monkeypatch):
    folder = tiny_checkpoint(tmp_path / "model", "student-1step")
    before = draw(load_pipeline(folder))
    cast = export._cast_weights

    def lose_a_tensor(file, dtype):
        cast(file, dtype)
        tensors = load_file(file)
        tensors.pop(sorted(tensors)[0])
        save_file(tensors, file, metadata={"format": "pt"})

    monkeypatch.setattr(export, "_cast_weights", lose_a_tensor)
    with pytest.raises(ValueError, match="lack"):
        tiny_checkpoint(folder, "student-1step", seed=1)
    assert torch.equal(draw(load_pipeline(folder)), before)


def test_an_export_keeps_what_is_no_part_of_the_checkpoint(tmp_path):
    folder = tiny_checkpoint(tmp_path / "clone", "student-1step")
    for kept in (".git/objects/ab/cd", ".gitattributes", "notes.txt", "unet/pictures/a.png", "vae/notes.md"):
        (folder / kept).parent.mkdir(parents=True, exist_ok=True)
        (folder / kept).write_text(kept)
    (folder / ".git" / "objects" / "ab" / "cd").chmod(0o444)  # as git's objects are
    (folder / "link").symlink_to("notes.txt")
    stale = ("old_code.py", "unet/old.safetensors", "unet/old_code.py", "tokenizer/vocab.json")
    for file in stale:
        (folder / file).write_text("{}")
    tiny_checkpoint(folder, "student-1step", seed=1)
    for kept in (".git/objects/ab/cd", ".gitattributes", "notes.txt", "unet/pictures/a.png", "vae/notes.md"):
        assert (folder / kept).read_text() == kept
    assert (folder / "link").is_symlink() and not any((folder / file).exists() for file in stale)
    expected = draw(tiny_pipeline("student-1step", seed=1))
    torch.testing.assert_close(draw(load_pipeline(folder)), expected, rtol=0, atol=0.03)


def test_a_schedulers_infinite_default_is_left_out_and_another_infinity_refused(tmp_path):
    pipeline = tiny_pipeline("teacher")
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    assert pipeline.scheduler.config.lambda_min_clipped == -math.inf
    folder = export_pipeline(pipeline, tmp_path / "teacher")

    def refuse(constant: str):
        raise AssertionError(constant)

    for file in folder.rglob("*.json"):
        json.loads(file.read_text(), parse_constant=refuse)
    scheduler = load_pipeline(folder).scheduler
    assert scheduler.config.lambda_min_clipped == -math.inf and torch.equal(
        scheduler.alphas_cumprod, pipeline.scheduler.alphas_cumprod
    )
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    assert load_pipeline(export_pipeline(pipeline, tmp_path / "ddim")).scheduler.config.num_train_timesteps == 1000
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.scheduler.register_to_config(sample_max_value=math.inf)
    with pytest.raises(ValueError, match="sample_max_value in scheduler/scheduler_config.json is inf, which JSON"):
        export_pipeline(pipeline, tmp_path / "other")
    assert not (tmp_path / "other").exists()
