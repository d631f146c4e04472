"""Pipelines of others as models: what they are told, what is recorded, what is refused; no pickle, no code."""

import argparse
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    DiTPipeline,
    DiTTransformer2DModel,
    UNet2DModel,
)
from safetensors.torch import load_file, save_file

import eval.cli.inputs
import eval.cli.sampling
import eval.samples.store
from eval.accuracy import main as accuracy
from eval.fid import main as fid
from eval.generate import main as generate
from eval.protocol import folder_sha256
from eval.samples.draw import draw_samples
from eval.samples.images import read_images
from eval.samples.pipelines import (
    PIPELINE_SUFFIXES,
    counted_evaluations,
    load_diffusers_pipeline,
    resolve_pipeline_settings,
    takes_generators,
)
from eval.samples.prompts import DEFAULT_TEMPLATE, plan_samples
from tests.eval.stand_ins import noise_settings
from tests.tiny import tiny_vae

SIZE = 8


@pytest.fixture(scope="module")
def ddpm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipelines") / "ddpm"
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (8,)}
    unet = UNet2DModel(sample_size=SIZE, layers_per_block=1, norm_num_groups=4, add_attention=False, **blocks)
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipelines") / "dit"
    torch.manual_seed(0)
    heads = {"attention_head_dim": 4, "num_attention_heads": 2, "num_layers": 1, "patch_size": 2}
    channels = {"in_channels": 4, "out_channels": 8, "norm_type": "ada_norm_zero", "num_embeds_ada_norm": 1000}
    DiTPipeline(
        DiTTransformer2DModel(
            sample_size=4, norm_elementwise_affine=False, activation_fn="gelu-approximate", **heads, **channels
        ),
        tiny_vae(),
        DDIMScheduler(),
    ).save_pretrained(folder)
    return folder


def drawn(tmp_path, name, *options):
    output = tmp_path / name
    generate(["--output", str(output), "--n", "5", *options])
    return read_images(output)


def test_a_pipeline_without_prompts_draws_what_its_own_call_draws(ddpm, tmp_path):
    options = ["--pipeline", str(ddpm), "--call", '{"num_inference_steps": 3}', "--seed", "7"]
    images = drawn(tmp_path, "set.npz", *options)
    own = DDPMPipeline.from_pretrained(ddpm)
    expected = [
        own(generator=torch.Generator().manual_seed(7 + index), num_inference_steps=3, output_type="np").images[0]
        for index in range(5)
    ]
    expected = torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2) * 255
    assert expected.std() > 20
    assert (images.images - expected.round()).abs().max() <= 1
    assert images.prompts is None and images.class_labels is None
    one_by_one = drawn(tmp_path, "set", *options, "--batch-size", "1")
    assert (one_by_one.images.int() - images.images.int()).abs().max() <= 1
    rounded = drawn(tmp_path, "bf16", *options, "--dtype", "bf16")
    assert 0 < (rounded.images.int() - images.images.int()).abs().max() < 30 and rounded.protocol["dtype"] == "bf16"


def test_the_protocol_of_a_pipeline_states_class_call_hash_and_counted_evaluations(ddpm, tmp_path):
    protocol = drawn(tmp_path, "set", "--pipeline", str(ddpm), "--call", '{"num_inference_steps": 3}').protocol
    assert (protocol["model"], protocol["pipeline_class"], protocol["nfe"]) == ("ddpm", "DDPMPipeline", 3)
    assert protocol["call"] == {"num_inference_steps": 3} and protocol["batch_arguments"] == ["batch_size"]
    assert protocol["model_sha256"] == folder_sha256(ddpm, PIPELINE_SUFFIXES) and protocol["revision"] is None
    with pytest.raises(ValueError, match="another protocol \\(call is"):
        drawn(tmp_path, "set", "--pipeline", str(ddpm), "--call", '{"num_inference_steps": 4}')


def test_a_pipeline_with_prompts_gets_the_plan_and_code_only_where_it_is_trusted(tmp_path, checkpoints):
    folder = checkpoints / "student"
    with pytest.raises(ValueError, match="--trust-remote-code"):
        drawn(tmp_path, "refused", "--pipeline", str(folder))
    call = json.dumps({"num_inference_steps": 2, "guidance_scale": 3.0})
    foreign = drawn(tmp_path, "foreign", "--pipeline", str(folder), "--call", call, "--trust-remote-code")
    own = drawn(tmp_path, "own", "--model", str(folder), "--steps", "2", "--guidance-scale", "3")
    # the own one is in channels_last, whose kernels round otherwise
    assert (foreign.images.int() - own.images.int()).abs().max() <= 1 and foreign.prompts == own.prompts
    assert foreign.protocol["nfe"] == own.protocol["nfe"] == 4  # guided: two evaluations a step
    assert foreign.protocol["template"] == DEFAULT_TEMPLATE and foreign.protocol["batch_arguments"] == ["prompt"]


def test_class_labels_are_said_by_the_call_and_never_guessed(dit, tmp_path):
    with pytest.raises(ValueError, match="DiTPipeline is class-conditional.*--call"):
        drawn(tmp_path, "set", "--pipeline", str(dit))
    call = {"class_labels": [207, 360, 1], "num_inference_steps": 2}
    pipeline, _ = load_diffusers_pipeline(str(dit))
    settings = resolve_pipeline_settings(pipeline, str(dit), call=call)
    assert settings.call_arguments(plan_samples(9, None, None), [2, 3, 7])["class_labels"] == [1, 207, 360]
    images = drawn(tmp_path, "set", "--pipeline", str(dit), "--call", json.dumps(call))
    assert images.protocol["nfe"] == 4 and images.class_labels is None


def test_a_null_label_is_for_pipelines_whose_labels_are_optional(dit):
    class Optional(DiTPipeline):
        def __call__(self, batch_size=1, class_labels=None, generator=None, output_type="pil"):
            raise NotImplementedError

    pipeline = Optional(**DiTPipeline.from_pretrained(dit).components)
    settings = resolve_pipeline_settings(pipeline, str(dit), call={"class_labels": None})
    plan = plan_samples(4, None, None)
    assert settings.call_arguments(plan, [0, 3]) == {"class_labels": None, "batch_size": 2}
    settings = resolve_pipeline_settings(pipeline, str(dit), call={"class_labels": [5, 6]})
    assert settings.call_arguments(plan, [0, 3]) == {"class_labels": [5, 6], "batch_size": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--call", "steps=3"], "is not JSON"),
        (["--call", "[3]"], "accepted is a JSON object"),
        (["--call", '{"generator": 0}'], "--call holds generator: not yours"),
        (["--call", '{"steps": 3}'], "--call holds steps; the call of DDPMPipeline takes .*num_inference_steps"),
        (["--steps", "3"], "part of --call"),
        (["--guidance-scale", "3"], "part of --call"),
        (["--interval", "0.2", "0.8"], "--interval is an option of --model"),
        (["--scheduler", "DDIMScheduler"], "--scheduler is an option of --model"),
    ],
)
def test_bad_calls_are_refused_by_name(ddpm, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        drawn(tmp_path, "set", "--pipeline", str(ddpm), *options)
    assert not (tmp_path / "set").exists()


def test_options_of_a_pipeline_are_refused_beside_a_checkpoint(ddpm, tmp_path):
    with pytest.raises(ValueError, match="options of --pipeline"):
        drawn(tmp_path, "set", "--model", str(ddpm), "--call", "{}")


def test_what_makes_no_images_from_text_or_noise_is_refused(ddpm):
    class Editing(DDPMPipeline):
        def __call__(self, image, batch_size=1, generator=None):
            raise NotImplementedError

    class Unseeded(DDPMPipeline):
        def __call__(self, batch_size=1):
            raise NotImplementedError

    class Upscaling(DDPMPipeline):
        def __call__(self, image=None, generator=None):
            raise NotImplementedError

    parts = DDPMPipeline.from_pretrained(ddpm).components
    for kind, message in ((Editing, "needs image"), (Unseeded, "no generator"), (Upscaling, "makes no images from")):
        with pytest.raises(ValueError, match=f"{kind.__name__} .*{message}"):
            resolve_pipeline_settings(kind(**parts), str(ddpm))


def test_a_pipeline_that_takes_one_generator_is_drawn_one_by_one(ddpm, tmp_path, monkeypatch):
    class Single(DDPMPipeline):
        def __call__(self, batch_size: int = 1, generator: torch.Generator | None = None, output_type: str = "pil"):
            torch.rand(1, generator=generator)  # of a list this is a TypeError
            return super().__call__(batch_size, generator, num_inference_steps=2, output_type=output_type)

    pipeline = Single(**DDPMPipeline.from_pretrained(ddpm).components)
    assert takes_generators(DDPMPipeline.from_pretrained(ddpm)) and not takes_generators(pipeline)
    monkeypatch.setattr(eval.cli.sampling, "load_diffusers_pipeline", lambda *args: (pipeline, None))
    with pytest.raises(ValueError, match="Single takes one generator a call: --batch-size 1"):
        drawn(tmp_path, "set", "--pipeline", str(ddpm))
    assert len(drawn(tmp_path, "set", "--pipeline", str(ddpm), "--batch-size", "1")) == 5


def test_weights_that_are_pickled_missing_or_cut_are_refused_and_no_code_runs(tmp_path, ddpm, capsys):
    class Harmful:
        def __reduce__(self):
            return (print, ("code ran",))

    folder = tmp_path / "copy"
    DDPMPipeline.from_pretrained(ddpm).save_pretrained(folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="copy cannot be loaded"):
        load_diffusers_pipeline(str(folder))
    weights.unlink()
    torch.save(Harmful(), folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="copy cannot be loaded; weights must be safetensors"):
        load_diffusers_pipeline(str(folder))
    assert "code ran" not in capsys.readouterr().out


def test_weights_that_lack_a_tensor_are_refused_by_its_name(tmp_path, ddpm):
    folder = tmp_path / "copy"
    DDPMPipeline.from_pretrained(ddpm).save_pretrained(folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    del tensors["conv_in.bias"]
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(ValueError, match="lack conv_in.bias"):
        load_diffusers_pipeline(str(folder))


def test_what_is_no_pipeline_is_refused_by_name(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="neither a folder nor a name on the hub"):
        load_diffusers_pipeline("./nowhere")
    with pytest.raises(FileNotFoundError, match="has no model_index.json"):
        load_diffusers_pipeline(str(tmp_path))

    def offline(name, **options):
        raise OSError("no network")

    monkeypatch.setattr(DiffusionPipeline, "download", offline)
    with pytest.raises(FileNotFoundError, match="somebody/pipeline is no folder.*no network.*also takes a folder"):
        load_diffusers_pipeline("somebody/pipeline")


def test_a_pipeline_of_the_hub_is_recorded_by_its_revision(ddpm, tmp_path, monkeypatch):
    asked = {}

    def download(name, **options):
        asked.update(options)
        return str(ddpm)

    monkeypatch.setattr(DiffusionPipeline, "download", download)
    call = ["--call", '{"num_inference_steps": 2}']
    protocol = drawn(tmp_path, "set", "--pipeline", "somebody/pipeline", *call).protocol
    assert asked == {"use_safetensors": True, "trust_remote_code": False}
    assert (protocol["model"], protocol["revision"], protocol["model_sha256"]) == ("somebody/pipeline", "ddpm", None)
    samples = ["--pipeline", "somebody/pipeline", *call, "--samples", str(tmp_path / "kept"), "--n", "2"]
    parser = argparse.ArgumentParser()
    eval.cli.inputs.add_input_arguments(parser)
    assert len(eval.cli.inputs.images_from_arguments(parser.parse_args(samples))) == 2
    assert [path.name[:9] for path in (tmp_path / "kept").glob("*.npz")] == ["pipeline-"]


def test_counting_ends_with_its_block_and_takes_named_samples(ddpm):
    pipeline = DDPMPipeline.from_pretrained(ddpm)
    with counted_evaluations(pipeline) as rows:
        pipeline.unet(sample=torch.zeros(3, 3, SIZE, SIZE), timestep=0)
        pipeline.unet(torch.zeros(2, 3, SIZE, SIZE), 0)
    pipeline.unet(torch.zeros(1, 3, SIZE, SIZE), 0)
    assert rows == [3, 2]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.full((2, 4, 4, 3), np.nan), "values from nan to nan, not 0..1: seed 8"),
        (np.stack([np.zeros((4, 4, 3)), np.full((4, 4, 3), -0.5)]), "values from -0.5 to -0.5, not 0..1: seed 9"),
        (np.zeros((2, 4, 4, 1)), r"returned \(2, 4, 4, 1\) for 2 samples"),
        (np.zeros((1, 4, 4, 3)), r"returned \(1, 4, 4, 3\) for 2 samples"),
        (None, "returned NoneType for 2 samples"),
    ],
)
def test_samples_that_are_no_rgb_images_are_refused_by_name(images, message):
    def pipeline(**arguments):
        return SimpleNamespace(images=images)

    with pytest.raises(ValueError, match=f"noise .*{message}"):
        next(draw_samples(pipeline, noise_settings(), plan_samples(10, "class", "{}"), [8, 9], 2))


def test_samples_of_another_size_are_measured_once_resized(ddpm, judge, tmp_path):
    command = ["--pipeline", str(ddpm), "--call", '{"num_inference_steps": 2}', "--n", "20"]
    command += [
        "--samples",
        str(tmp_path / "samples"),
        "--extractor",
        "judge",
        "--json",
        str(tmp_path / "result.json"),
    ]
    with pytest.raises(ValueError, match=r"images are \(20, 3, 8, 8\).*--resize 32"):
        fid(command)
    fid([*command, "--resize", "32"])
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["samples"]["resized"] == "Lanczos (Pillow), from 8x8" and result["samples"]["nfe"] == 2
    assert result["protocol"]["image_size"] == "32x32" and "class_accuracy" not in result


def test_repeats_are_further_sets_of_seeds_and_show_their_spread(ddpm, judge, tmp_path, capsys):
    command = ["--pipeline", str(ddpm), "--call", '{"num_inference_steps": 2}', "--n", "20", "--resize", "32"]
    command += ["--samples", str(tmp_path / "samples"), "--extractor", "judge"]
    single = []
    for seed in ("5", "25"):
        fid([*command, "--seed", seed, "--json", str(tmp_path / "one.json")])
        single.append(json.loads((tmp_path / "one.json").read_text())["frechet_distance_judge"])
    fid([*command, "--seed", "5", "--repeats", "2", "--json", str(tmp_path / "two.json")])
    result = json.loads((tmp_path / "two.json").read_text())
    repeats = result["repeats"]
    assert repeats["seeds"] == [5, 25] and repeats["frechet_distance_judge"]["values"] == single
    assert repeats["frechet_distance_judge"]["std"] == pytest.approx(abs(single[0] - single[1]) / 2**0.5)
    assert result["frechet_distance_judge"] == single[0] and "2 sets: mean, std" in capsys.readouterr().out


def test_bad_repeats_and_sizes_are_refused_before_samples_are_drawn(ddpm, judge, tmp_path, monkeypatch):
    monkeypatch.setattr(eval.samples.store, "generate", lambda *args: pytest.fail("drawn"))
    command = ["--pipeline", str(ddpm), "--n", "20", "--samples", str(tmp_path), "--extractor", "judge"]
    for option, value in (("--repeats", "0"), ("--resize", "0"), ("--resize", "4000")):
        with pytest.raises(ValueError, match=f"{option} (is )?{value}.*accepted is 1"):
            fid([*command, option, value])
    with pytest.raises(ValueError, match="--repeats is 2, but images holds one set"):
        fid(["--images", "images", "--repeats", "2", "--extractor", "judge"])


def test_samples_without_labels_are_refused_before_they_are_drawn(ddpm, judge, tmp_path, monkeypatch):
    monkeypatch.setattr(eval.samples.store, "generate", lambda *args: pytest.fail("drawn"))
    with pytest.raises(ValueError, match="ddpm takes no prompts"):
        accuracy(["--pipeline", str(ddpm), "--samples", str(tmp_path)])
