"""Options, the loop, resuming, and every stage on tiny data and networks."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

import mobilediff.timing
from mobilediff.captions import CaptionBank, load_nouns
from mobilediff.checkpoints import encoder_tensors, load_pipeline, load_vae
from mobilediff.export import export_pipeline
from mobilediff.images import to_bytes
from mobilediff.models.autoencoder import encode_latents
from mobilediff.models.build import build_network
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.pipeline import MobileDiffusionPipeline, encode_text
from mobilediff.schedulers.compatible import choose_scheduler
from mobilediff.training import (
    classifier,
    clip,
    decoder,
    one_step,
    progressive,
    prune,
    student,
    teacher,
    tiny_vae,
    vae,
)
from mobilediff.training.data.conditioning import velocities
from mobilediff.training.engine.options import RunLimits, TrainingOptions, build_options, parse_options, run_stage
from mobilediff.training.engine.pipelines import load_velocity_pipeline
from mobilediff.training.engine.state import load_state, save_state, saved_states
from mobilediff.training.engine.trainer import Trainer
from mobilediff.training.losses import decoder as decoder_loss
from mobilediff.training.tools import seeds
from tests.tiny import tiny_checkpoint, tiny_unet

FULL = RunLimits()
EXPORTS = ("export", "export-ema-0.2", "export-ema-0.35")
TINY_IMAGES = {"block_out_channels": [8, 8], "projection_dim": 6}
TINY_TEXT = {
    "hidden_size": 8,
    "intermediate_size": 16,
    "projection_dim": 6,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cifar10")
    generator = np.random.default_rng(0)
    nouns = list(load_nouns().items())
    for split in ("train", "test"):
        images, labels, names = [], [], []
        for i in range(24):
            buffer = io.BytesIO()
            Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, format="PNG")
            noun, label = nouns[i * 16]
            images.append({"bytes": buffer.getvalue(), "path": None})
            labels.append(label)
            names.append(f"{noun.replace(' ', '_')}_s_{i:06d}.png")
        table = pa.table({"img": images, "label": labels, "filename": names})
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return folder


def tiny_options(output, data, **changes) -> dict:
    return {
        "output": str(output),
        "data": str(data),
        "steps": 3,
        "batch_size": 4,
        "warmup_steps": 1,
        "log_every": 1,
        **changes,
    }


def test_options_come_from_the_file_and_then_from_the_command_line(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("output: runs/a\nlearning_rate: 1e-4\nbetas: [0.5, 0.9]\nsteps: 7\n")
    options, limits = parse_options(TrainingOptions, ["--config", str(file), "--max-minutes", "2", "steps=9"])
    assert (options.output, options.learning_rate, options.betas, options.steps) == ("runs/a", 1e-4, (0.5, 0.9), 9)
    assert limits == RunLimits(max_minutes=2.0)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("stepz=9", "stepz"),
        ("steps=many", "many"),
        ("steps=1.5", "1.5"),
        ("compile=1", "compile"),
        ("steps=0", "steps is 0"),
        ("batch_size=-4", "batch_size is -4"),
        ("mixed_precision=fp16", "accepted are bf16, no"),
        ("steps", "key=value"),
        ("steps=[1", "steps=[1 is not YAML"),
        ("betas=[0.9]", "betas is [0.9]; a list of 2 is expected"),
        ("betas=[0.9, high]", "betas is 'high'"),
        ("further_ema_decays=[0.9, low]", "further_ema_decays is 'low'"),
    ],
)
def test_bad_options_are_named(tmp_path, capsys, override, named):
    file = tmp_path / "run.yaml"
    file.write_text("output: runs/a\n")
    with pytest.raises(SystemExit):
        parse_options(TrainingOptions, ["--config", str(file), override])
    assert named in capsys.readouterr().err


def test_a_config_file_holds_keys_and_values(tmp_path, capsys):
    file = tmp_path / "run.yaml"
    for text, named in (("- output", "holds a list"), ("output: [", "is not YAML")):
        file.write_text(text)
        with pytest.raises(SystemExit):
            parse_options(TrainingOptions, ["--config", str(file)])
        assert named in capsys.readouterr().err


def test_what_a_stage_refuses_is_one_line(tmp_path, monkeypatch):
    file = tmp_path / "run.yaml"
    file.write_text("output: runs/a\n")
    monkeypatch.setattr(sys, "argv", ["stage", "--config", str(file)])

    def refuse(options, limits):
        raise FileNotFoundError(f"{options.output} is nowhere")

    with pytest.raises(SystemExit, match="^error: runs/a is nowhere$"):
        run_stage(refuse, TrainingOptions)


@pytest.mark.parametrize(
    ("options_class", "changes", "named"),
    [
        (progressive.ProgressiveOptions, {"guidance_interval": [0.8, 0.15]}, r"guidance_interval is \(0.8, 0.15\)"),
        (progressive.ProgressiveOptions, {"num_steps": 0}, "num_steps is 0"),
        (progressive.ProgressiveOptions, {"target_steps": 0}, "target_steps is 0"),
        (progressive.ProgressiveOptions, {"cfg_aware_probability": 1.5}, "cfg_aware_probability is 1.5"),
        (progressive.ProgressiveOptions, {"cfg_aware_range": [14, 2]}, r"cfg_aware_range is \[14.0, 2.0\]"),
        (
            progressive.ProgressiveOptions,
            {"validation_samples": 265},
            "validation_samples is 265; accepted are 0 and",
        ),
        (progressive.ProgressiveOptions, {"validation_samples": 100}, "validation_samples is 100"),
        (
            one_step.OneStepOptions,
            {"student_steps": 6},
            "student_steps is 6; accepted are multiples of num_intervals, 4",
        ),
        (
            one_step.OneStepOptions,
            {"discriminator_timesteps": "all"},
            "discriminator_timesteps is 'all'; accepted are 'next' and",
        ),
        (one_step.OneStepOptions, {"null_probability": 0.1}, "null_probability is 0.1; accepted is 0"),
        (one_step.OneStepOptions, {"first_timestep_probability": 1.5}, "first_timestep_probability is 1.5"),
        (one_step.OneStepOptions, {"steps": 5, "reconstruction_steps": 5}, "reconstruction_steps is 5; accepted are"),
        (
            one_step.OneStepOptions,
            {"default_num_inference_steps": 3},
            r"default_num_inference_steps is 3; accepted are \[1, 2, 4\]",
        ),
        (
            progressive.ProgressiveOptions,
            {"num_steps": 4},
            "default_num_inference_steps is 8; accepted is num_steps, 4",
        ),
        (student.StudentOptions, {"default_guidance_interval": [0.8, 0.2]}, r"interval is \(0.8, 0.2\)"),
        (prune.PruneOptions, {"num_intervals": 0}, "num_intervals is 0"),
        (prune.PruneOptions, {"method": "random"}, "method is 'random'; accepted are"),
        (prune.PruneOptions, {"pruning_ratio": 1.0}, "pruning_ratio is 1.0"),
    ],
)
def test_a_stages_own_options_are_checked_at_once(options_class, changes, named):
    with pytest.raises(ValueError, match=named):
        build_options(options_class, {"output": "a", **changes})


def test_single_precision_is_asked_for_with_a_word_that_yaml_reads_as_false(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("output: runs/a\nmixed_precision: no\n")
    assert parse_options(TrainingOptions, ["--config", str(file)])[0].mixed_precision == "no"


def test_an_option_may_be_none():
    options = build_options(teacher.TeacherOptions, {"output": "a", "weights": None, "sample_steps": 4})
    assert (options.weights, options.sample_steps) == (None, 4)


def test_state_is_replaced_as_one(tmp_path):
    save_state(tmp_path, {"a": torch.ones(2)}, {"step": 1})
    save_state(tmp_path, {"a": torch.full((2,), 2.0)}, {"step": 2})
    assert [path.name for path in saved_states(tmp_path)] == ["state-00000002"]
    tensors, scalars = load_state(tmp_path)
    assert tensors["a"].tolist() == [2.0, 2.0]
    assert scalars == {"step": 2}


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, fused=True)


class Regression:
    """A network with dropout that learns noise drawn in the step: whatever is not restored changes its weights.

    Its convolutions are channels_last, so optimiser state that comes back in another memory format shows.
    """

    def __init__(self, folder, stop_after=None, optimizer=None, **changes):
        torch.manual_seed(0)
        self.network = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3), torch.nn.Dropout(0.5), torch.nn.Conv2d(8, 1, 3), torch.nn.Flatten()
        )
        values = {"steps": 8, "batch_size": 5, "warmup_steps": 2, "mixed_precision": "no", "log_every": 1, **changes}
        self.trainer = Trainer(TrainingOptions(output=str(folder), **values), FULL, data_size=12)
        made = optimizer(self.network.parameters()) if optimizer else None
        self.module = self.trainer.add("network", self.network, optimizer=made)
        self.inputs = torch.randn(12, 3, 5, 5, generator=torch.Generator().manual_seed(1))
        self.stop_after = stop_after
        self.visited = []

    def step(self, step):
        self.visited += step.indices.tolist()
        inputs = self.inputs[step.indices]
        target = inputs.mean((1, 2, 3))[:, None] + torch.randn(len(inputs), 1, generator=step.generator)
        loss = (self.module(inputs) - target).square().mean()
        self.trainer.update("network", loss)
        self.trainer.stop_requested = step.index + 1 == self.stop_after
        return {"loss": loss}

    def fit(self):
        return self.trainer.fit(self.step, lambda folder: folder.mkdir(parents=True))


@pytest.mark.parametrize("optimizer", [None, sgd])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, optimizer):
    whole = Regression(tmp_path / "whole", optimizer=optimizer)
    assert whole.fit()
    assert not Regression(tmp_path / "parts", stop_after=3, optimizer=optimizer).fit()
    rest = Regression(tmp_path / "parts", optimizer=optimizer)
    assert rest.fit()
    assert len(rest.visited) == 5 * 5
    ours, _ = load_state(tmp_path / "parts")
    expected, _ = load_state(tmp_path / "whole")
    assert set(ours) == set(expected)
    for name, value in expected.items():
        assert torch.equal(ours[name], value), name


def test_a_run_is_not_gone_on_with_under_other_options(tmp_path):
    Regression(tmp_path, stop_after=3).fit()
    with pytest.raises(ValueError, match="learning_rate was 0.0003 and is now 0.1"):
        Regression(tmp_path, learning_rate=0.1).fit()
    longer = Regression(tmp_path, steps=9)
    assert longer.fit()
    assert longer.trainer.step == 9


def test_what_a_run_cached_before_its_first_state_is_not_used_under_other_options(tmp_path):
    Regression(tmp_path)
    with pytest.raises(ValueError, match="batch_size was 5 and is now 6"):
        Regression(tmp_path, batch_size=6)


def test_a_run_is_not_gone_on_with_on_another_number_of_processes(tmp_path):
    Regression(tmp_path, stop_after=3).fit()
    (state,) = saved_states(tmp_path)
    scalars = json.loads((state / "scalars.json").read_text()) | {"num_processes": 2}
    (state / "scalars.json").write_text(json.dumps(scalars))
    with pytest.raises(ValueError, match="begun on 2 processes and is now on 1"):
        Regression(tmp_path).fit()


def test_a_diverged_run_keeps_its_last_good_state(tmp_path):
    Regression(tmp_path, stop_after=3).fit()
    diverged = Regression(tmp_path)
    diverged.inputs = diverged.inputs * float("nan")
    with pytest.raises(FloatingPointError, match="is not finite at step 8"):
        diverged.fit()
    assert [state.name for state in saved_states(tmp_path)] == ["state-00000003"]


def test_records_after_the_saved_state_are_dropped(tmp_path):
    Regression(tmp_path, stop_after=3).fit()
    with (tmp_path / "stats.jsonl").open("a") as stream:
        stream.write(json.dumps({"step": 4, "loss": 1.0}) + "\n")
    Regression(tmp_path).fit()
    steps = [json.loads(line)["step"] for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 9))


def test_a_value_that_is_not_in_every_step_is_averaged_over_those_it_is_in(tmp_path):
    run = Regression(tmp_path, log_every=8)

    def step(draws):
        values = run.step(draws)
        return values | ({"rare": torch.tensor(6.0)} if draws.index % 2 else {})

    run.trainer.fit(step, lambda folder: folder.mkdir(parents=True))
    assert json.loads((tmp_path / "stats.jsonl").read_text().splitlines()[-1])["rare"] == 6.0


def test_a_dry_run_starts_anew(tmp_path):
    Regression(tmp_path).fit()
    options = TrainingOptions(output=str(tmp_path))
    Trainer(options, RunLimits(dry_run=True), data_size=12)
    assert load_state(tmp_path) is None


def test_noun_loss_without_nouns_is_0():
    logits = torch.randn(3, 5, requires_grad=True)
    assert classifier.noun_cross_entropy(logits, torch.full((3,), -1)).item() == 0
    mixed = classifier.noun_cross_entropy(logits, torch.tensor([-1, 2, 4]))
    assert mixed.item() == pytest.approx(torch.nn.functional.cross_entropy(logits[1:], torch.tensor([2, 4])).item())


def test_each_image_is_visited_once_an_epoch(tmp_path):
    run = Regression(tmp_path)
    run.fit()
    assert sorted(run.visited[:12]) == list(range(12))
    assert sorted(run.visited[12:24]) == list(range(12))


def test_the_learning_rate_warms_up_holds_and_decays_to_zero(tmp_path):
    options = TrainingOptions(output=str(tmp_path), steps=100, warmup_steps=10, decay_fraction=0.5)
    trainer = Trainer(options, FULL, data_size=1)
    factors = [trainer.learning_rate_factor(step) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[50] == 1.0
    assert factors[75] == pytest.approx(0.5)
    assert factors[100] == 0.0


def test_averages_of_several_lengths_are_exported_and_resumed(tmp_path):
    def fit(folder, **options):
        run = Regression(folder, ema_decay=0.05, further_ema_decays=(0.2, 0.35), **options)

        def export(target):
            target.mkdir(parents=True)
            weight = run.network[0].weight.detach().contiguous()
            save_file({"weight": weight}, target / "weights.safetensors")

        run.trainer.fit(run.step, export)
        return [load_file(folder / name / "weights.safetensors")["weight"] for name in EXPORTS]

    whole = fit(tmp_path / "whole")
    fit(tmp_path / "parts", stop_after=4)
    for tensor, resumed in zip(whole, fit(tmp_path / "parts"), strict=True):
        torch.testing.assert_close(resumed, tensor, rtol=0, atol=0)
    assert not torch.equal(whole[0], whole[1]) and not torch.equal(whole[1], whole[2])
    for bad in ((1.0,), (0.0,), (0.5,)):
        with pytest.raises(ValueError, match="ema_decay and further_ema_decays"):
            TrainingOptions(output="a", ema_decay=0.5, further_ema_decays=bad)


def test_a_time_limit_stops_and_saves(tmp_path):
    run = Regression(tmp_path)
    run.trainer.limits = RunLimits(max_minutes=0.0)
    assert not run.fit()
    assert load_state(tmp_path)[1]["step"] == 0


def test_whitened_stem_decorrelates_patches():
    encoder = ImageEncoder(stem_channels=24, stem_kernel_size=2, block_out_channels=(8,))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(64, 3, 32, 32, generator=generator).cumsum(-1)
    classifier.whiten_stem(encoder, images, epsilon=1e-6)
    responses = encoder.conv_stem(images)[:, :12].permute(1, 0, 2, 3).flatten(1)
    torch.testing.assert_close(responses @ responses.T / responses.shape[1], torch.eye(12), atol=1e-2, rtol=0)
    with pytest.raises(ValueError, match="24 channels, not 8"):
        classifier.whiten_stem(ImageEncoder(stem_channels=8, stem_kernel_size=2), images)


def test_naming_is_by_cosine_among_all_names():
    names, scale = torch.eye(3), torch.tensor(2.0).log()
    loss = clip.naming_loss(5 * names[:2], 7 * names, torch.tensor([0, 1]), scale)
    log_partition = torch.logsumexp(torch.tensor([2.0, 0.0, 0.0]), 0)
    assert loss.item() == pytest.approx((log_partition - 2).item(), rel=1e-5)
    unknown = clip.naming_loss(names[:2], names, torch.tensor([0, -1]), scale)
    assert unknown.item() == pytest.approx(loss.item(), rel=1e-5)


def test_a_text_tower_learns_phrasings_and_keeps_what_it_says_of_captions(tmp_path, data_folder):
    values = tiny_options(tmp_path / "first", data_folder, image_encoder=TINY_IMAGES, text_encoder=TINY_TEXT)
    assert clip.train(build_options(clip.ClipOptions, values), FULL)
    first = tmp_path / "first" / "export"
    values = tiny_options(tmp_path / "on", data_folder, steps=24, learning_rate=0.01, weights=str(first))
    values |= {"mixed_precision": "no", "ema_decay": 0.0}
    losses = {}
    for keep in (0.0, 100.0):
        values |= {"lambda_keep": keep, "output": str(tmp_path / f"keep-{keep}")}
        assert clip.train(build_options(clip.ClipOptions, values), FULL)
        export = tmp_path / f"keep-{keep}" / "export"
        assert (export / "tokenizer" / "tokenizer.json").read_bytes() == (
            first / "tokenizer" / "tokenizer.json"
        ).read_bytes()
        losses[keep] = moved(first, export)
    assert 0 < losses[100.0] < losses[0.0] / 2, losses
    with pytest.raises(ValueError, match="lambda_keep is 1.0; without weights"):
        build_options(clip.ClipOptions, {"output": "a", "lambda_keep": 1.0})


@torch.no_grad()
def moved(before: Path, after: Path) -> float:
    """How far apart two text towers are on plain captions."""
    hidden = [
        encode_text(
            CLIPTokenizer.from_pretrained(folder / "tokenizer"),
            CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder"),
            CaptionBank().texts,
        )[0]
        for folder in (before, after)
    ]
    return (hidden[0] - hidden[1]).square().mean().item()


def test_a_trained_tokenizer_keeps_every_byte():
    tokenizer = clip.train_tokenizer(["a photo of a fire truck"], 600, 16)
    assert tokenizer.tokenize("A fire TRUCK")[-1] == "truck</w>"
    ids = tokenizer("§ zebra ~")["input_ids"]
    assert tokenizer.eos_token_id not in ids[1:-1]


def test_classifier_clip_and_vae_stages_export_what_the_next_stage_loads(tmp_path, data_folder):
    judge = tiny_options(tmp_path / "judge", data_folder, ema_decay=0.0, network={"block_out_channels": [8, 8]})
    assert classifier.train(build_options(classifier.ClassifierOptions, judge), FULL)
    assert ImageEncoder.from_pretrained(tmp_path / "judge" / "export").config.num_nouns == 396

    towers = tiny_options(
        tmp_path / "clip",
        data_folder,
        ema_decay=0.0,
        sample_every=3,
        image_encoder=TINY_IMAGES,
        text_encoder=TINY_TEXT,
    )
    assert clip.train(build_options(clip.ClipOptions, towers), FULL)
    records = [json.loads(line) for line in (tmp_path / "clip" / "stats.jsonl").read_text().splitlines()]
    assert {"zero_shot_noun", "zero_shot_class"} <= set(records[-1])

    autoencoder = tiny_options(
        tmp_path / "vae",
        data_folder,
        perceptual=str(tmp_path / "clip" / "export" / "image_encoder"),
        network={
            "block_out_channels": [8, 8],
            "down_block_types": ["DownEncoderBlock2D"] * 2,
            "up_block_types": ["UpDecoderBlock2D"] * 2,
            "norm_num_groups": 4,
        },
    )
    assert vae.train(build_options(vae.VaeOptions, autoencoder), FULL)
    trained = vae.AutoencoderKL.from_pretrained(tmp_path / "vae" / "export")
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    assert encode_latents(trained, images).shape == (2, 4, 16, 16)
    assert len(trained.config.latents_mean) == len(trained.config.latents_std) == 4

    sharper = tiny_options(
        tmp_path / "decoder",
        data_folder,
        sample_every=3,
        vae=str(tmp_path / "vae" / "export"),
        perceptual=str(tmp_path / "clip" / "export" / "image_encoder"),
        latent_cache=str(tmp_path / "latents"),
        lambda_adversarial=0.5,
        adversarial_start=1,
    )
    assert decoder.train(build_options(decoder.DecoderOptions, sharper), FULL)
    decoding = vae.AutoencoderKL.from_pretrained(tmp_path / "decoder" / "export")
    before, after = encoder_tensors(trained), encoder_tensors(decoding)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(decoding.decoder.conv_out.weight, trained.decoder.conv_out.weight)
    without = sharper | {"output": str(tmp_path / "no-adversary"), "lambda_adversarial": 0.0}
    assert decoder.train(build_options(decoder.DecoderOptions, without), FULL)
    plain = vae.AutoencoderKL.from_pretrained(tmp_path / "no-adversary" / "export")
    assert not torch.equal(decoding.decoder.conv_out.weight, plain.decoder.conv_out.weight)
    with pytest.raises(ValueError, match="adversarial_start is 3, with 3 steps"):
        build_options(decoder.DecoderOptions, sharper | {"adversarial_start": 3})

    network = tmp_path / "unet.json"
    network.write_text(
        json.dumps(
            {
                "_class_name": "UNet2DConditionModel",
                "sample_size": 16,
                "in_channels": 4,
                "out_channels": 4,
                "block_out_channels": [8, 16],
                "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
                "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
                "layers_per_block": 1,
                "cross_attention_dim": 8,
                "attention_head_dim": 2,
                "norm_num_groups": 4,
                "class_embed_type": "simple_projection",
                "projection_class_embeddings_input_dim": 6,
            }
        )
    )
    full = tiny_options(
        tmp_path / "teacher",
        data_folder,
        vae=str(tmp_path / "decoder" / "export"),
        text=str(tmp_path / "clip" / "export"),
        network=str(network),
        latent_cache=str(tmp_path / "latents"),
        sample_every=3,
        sample_steps=1,
    )
    assert teacher.train(build_options(teacher.TeacherOptions, full), RunLimits(dry_run=True))
    assert teacher.train(build_options(teacher.TeacherOptions, full), FULL)
    pipeline = MobileDiffusionPipeline.from_pretrained(tmp_path / "teacher" / "export")
    images = pipeline("a fire truck", num_inference_steps=2, output_type="pt").images
    assert images.shape == (1, 3, 32, 32)
    assert (tmp_path / "teacher" / "samples" / "00000003.png").is_file()
    assert len(list((tmp_path / "latents").iterdir())) == 1  # another decoder makes no other latents
    straight = {**full, "output": str(tmp_path / "straight"), "flow_matching": True}
    assert teacher.train(build_options(teacher.TeacherOptions, straight), FULL)
    pipeline = MobileDiffusionPipeline.from_pretrained(tmp_path / "straight" / "export")
    assert pipeline.scheduler.config.prediction_type == "flow_prediction"
    assert pipeline("a fire truck", num_inference_steps=2, output_type="pt").images.isfinite().all()
    with pytest.raises(ValueError, match="scheduler is 'DDIMScheduler'; accepted"):
        choose_scheduler(pipeline, "DDIMScheduler")
    choose_scheduler(pipeline, "UniPCMultistepScheduler")
    assert pipeline("a fire truck", num_inference_steps=2, output_type="pt").images.isfinite().all()

    flow = {key: value for key, value in full.items() if key not in ("vae", "text")}
    flow |= {"output": str(tmp_path / "of-flow"), "teacher": straight["output"] + "/export"}
    with pytest.raises(ValueError, match="prediction_type is flow_prediction; accepted is v_prediction"):
        student.train(build_options(student.StudentOptions, flow | {"sample_steps": 1}), FULL)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        teacher.train(build_options(teacher.TeacherOptions, {**full, "vae": "nowhere"}), FULL)
    network.write_text(network.read_text().replace('"sample_size": 16', '"sample_size": 32'))
    with pytest.raises(ValueError, match="sample_size is 32, but the latents need 16"):
        teacher.train(build_options(teacher.TeacherOptions, {**full, "output": str(tmp_path / "other")}), FULL)
    with pytest.raises(FileNotFoundError, match="no checkpoint at nowhere"):
        student.train(build_options(student.StudentOptions, flow | {"teacher": "nowhere"}), FULL)


def test_the_discriminators_gradient_points_to_what_it_calls_real():
    torch.manual_seed(0)
    discriminator, images = decoder_loss.PatchDiscriminator(), torch.randn(2, 3, 32, 32, requires_grad=True)
    logits = discriminator(images)
    assert logits.shape == (2, 1, 8, 8)
    other = torch.randn_like(images)
    gradient = decoder_loss.gradient_in(images, -logits.mean())
    scaled = decoder_loss.scaled_like(gradient, other)
    torch.testing.assert_close(scaled.norm(), other.norm())
    torch.testing.assert_close(torch.cosine_similarity(scaled.flatten(), gradient.flatten(), dim=0), torch.tensor(1.0))
    assert discriminator(images - 0.01 * scaled).mean() > logits.mean()
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.0, 1.0])
    assert decoder_loss.hinge_loss(real, fake).item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3)


def test_distillation_stages_run_one_after_the_other(tmp_path, data_folder):
    common = {"latent_cache": str(tmp_path / "latents"), "null_probability": 0.0}
    start = str(tiny_checkpoint(tmp_path / "teacher", "teacher"))
    network = tmp_path / "student.json"
    network.write_text(json.dumps({**tiny_unet("student").config, "_class_name": "MobileUNet"}))
    options = tiny_options(tmp_path / "student", data_folder, teacher=start, network=str(network), **common)
    assert student.train(build_options(student.StudentOptions, options), FULL)

    start = str(tmp_path / "student" / "export")
    options = tiny_options(tmp_path / "eight", data_folder, student=start, default_num_inference_steps=8, **common)
    assert progressive.train(build_options(progressive.ProgressiveOptions, options), FULL)
    pipeline = MobileDiffusionPipeline.from_pretrained(tmp_path / "eight" / "export")
    assert pipeline.nfe() == 8
    with pytest.raises(ValueError, match="guidance is distilled into this checkpoint"):
        pipeline.nfe(guidance_scale=2.0)

    folded = {**options, "output": str(tmp_path / "folded"), "target_steps": 1, "num_steps": 32}
    folded |= {"default_num_inference_steps": 32, "teacher": str(tmp_path / "teacher")}
    assert progressive.train(build_options(progressive.ProgressiveOptions, folded), FULL)
    assert MobileDiffusionPipeline.from_pretrained(tmp_path / "folded" / "export").nfe() == 32

    aware = {**options, "output": str(tmp_path / "aware"), "cfg_aware_probability": 1.0, "lambda_task": 0.2}
    assert progressive.train(build_options(progressive.ProgressiveOptions, aware), FULL)
    assert MobileDiffusionPipeline.from_pretrained(tmp_path / "aware" / "export").nfe(guidance_scale=2.0) == 16

    start = str(tmp_path / "eight" / "export")
    options = tiny_options(
        tmp_path / "one",
        data_folder,
        student=start,
        num_pairs=6,
        reconstruction_steps=1,
        sample_every=2,
        validation_samples=260,
        validation_steps=[2],
        num_intervals=2,
        pair_cache=str(tmp_path / "pairs"),
        **common,
    )
    assert one_step.train(build_options(one_step.OneStepOptions, options), FULL)
    assert load_pipeline(tmp_path / "one" / "export").scheduler.config.distilled_num_inference_steps == [1, 2]
    pairs_file, *others = (tmp_path / "pairs").glob("*.safetensors")
    assert not others and len(load_file(pairs_file)["rows"]) == 6
    records = [json.loads(line) for line in (tmp_path / "one" / "stats.jsonl").read_text().splitlines()]
    watched = next(record for record in records if "distance" in record)
    assert watched["step"] == 2 and {"class_accuracy", "recall", "seed_distance"} <= set(watched)
    assert watched["distance_2_steps"] != watched["distance"]
    assert "loss_perceptual" not in records[0]
    assert "loss_discriminator" not in records[0]
    assert {"loss_reconstruction", "loss_adversarial", "loss_discriminator", "loss_r1"} <= set(records[-1])

    rest = {**options, "output": str(tmp_path / "resumed")}
    assert not one_step.train(build_options(one_step.OneStepOptions, rest), RunLimits(max_minutes=0.0))
    assert one_step.train(build_options(one_step.OneStepOptions, rest), FULL)
    whole, resumed = (load_state(tmp_path / name)[0] for name in ("one", "resumed"))
    assert {name.split("/")[0] for name in whole} == {"generator", "discriminator"}
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    ImageEncoder(**TINY_IMAGES).save_pretrained(tmp_path / "image_encoder")
    matched = {**options, "output": str(tmp_path / "judged"), "discriminator_timesteps": "any"}
    seen = {"lambda_perceptual": 1.0, "perceptual": str(tmp_path / "image_encoder")}
    assert one_step.train(build_options(one_step.OneStepOptions, matched | seen), FULL)
    records = [json.loads(line) for line in (tmp_path / "judged" / "stats.jsonl").read_text().splitlines()]
    assert all(record["loss_perceptual"] > 0 for record in records if "loss_reconstruction" in record)
    matched |= {"output": str(tmp_path / "matched"), "lambda_distribution": 1.0, "lambda_adversarial": 0.0}
    matched |= {"teacher": str(tmp_path / "student" / "export"), "fake_score": str(tmp_path / "student" / "export")}
    assert one_step.train(build_options(one_step.OneStepOptions, {**matched, "fake_score_updates": 2}), FULL)
    records = [json.loads(line) for line in (tmp_path / "matched" / "stats.jsonl").read_text().splitlines()]
    assert "loss_distribution" not in records[0] and "loss_follower" not in records[0]
    assert {"loss_reconstruction", "loss_distribution", "loss_follower"} <= set(records[-1])
    assert "loss_adversarial" not in records[-1]
    trained = tmp_path / "one" / "export" / "unet"
    further = {**options, "output": str(tmp_path / "further"), "weights": str(trained), "learning_rate": 1e-9}
    assert one_step.train(build_options(one_step.OneStepOptions, further), FULL)
    files = [folder / "diffusion_pytorch_model.safetensors" for folder in (trained, tmp_path / "further/export/unet")]
    for name, tensor in (after := load_file(files[1])).items():
        torch.testing.assert_close(tensor, load_file(files[0])[name])
    start_file = Path(start, "unet", files[0].name)
    assert any(not torch.equal(tensor, after[name]) for name, tensor in load_file(start_file).items())
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        one_step.train(build_options(one_step.OneStepOptions, {**options, "weights": "nowhere"}), FULL)
    with pytest.raises(FileNotFoundError, match="no checkpoint at nowhere"):
        one_step.train(build_options(one_step.OneStepOptions, {**matched, "teacher": "nowhere"}), FULL)
    assert len(list((tmp_path / "pairs").glob("*.safetensors"))) == 1  # all of them had the same
    with pytest.raises(ValueError, match="num_inference_steps is 4, this checkpoint was distilled for 8"):
        one_step.train(build_options(one_step.OneStepOptions, {**options, "student_steps": 4}), FULL)
    with pytest.raises(ValueError, match="aware/export samples with guidance; accepted is a student that has it"):
        aware = {**options, "student": str(tmp_path / "aware" / "export")}
        one_step.train(build_options(one_step.OneStepOptions, aware), FULL)

    start = str(tmp_path / "one" / "export")
    sizes = {}
    for method in ("structured", "unstructured"):
        options = tiny_options(
            tmp_path / method,
            data_folder,
            student=start,
            method=method,
            pruning_ratio=0.5,
            default_num_inference_steps=1,
            **common,
        )
        assert prune.train(build_options(prune.PruneOptions, options), FULL)
        pipeline = MobileDiffusionPipeline.from_pretrained(tmp_path / method / "export")
        assert pipeline.nfe() == 1
        assert pipeline("an ostrich", output_type="pt").images.shape == (1, 3, 32, 32)
        sizes[method] = sum(parameter.numel() for parameter in pipeline.unet.parameters())
    assert sizes["structured"] < sizes["unstructured"]
    zeros = load_file(tmp_path / "unstructured/export/unet/diffusion_pytorch_model.safetensors")["conv_in.weight"] == 0
    assert zeros.float().mean().item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("probability", "expected"), [(0.0, {4.0, 1.0}), (1.0, {3.0})])
def test_cfg_aware_steps_guide_teacher_and_student_alike(tmp_path, data_folder, monkeypatch, probability, expected):
    scales = []

    def recorded(network, conditioning, trainer, noisy, timesteps, caption_ids, scale=1.0, interval=(0.0, 1.0)):
        scales.append((next(network.parameters()).requires_grad, float(scale)))
        return velocities(network, conditioning, trainer, noisy, timesteps, caption_ids, scale, interval)

    monkeypatch.setattr(progressive, "velocities", recorded)
    options = tiny_options(
        tmp_path / "run",
        data_folder,
        student=str(tiny_checkpoint(tmp_path / "student", "student")),
        latent_cache=str(tmp_path / "latents"),
        guidance_scale=4.0,
        cfg_aware_probability=probability,
        cfg_aware_range=[3.0, 3.0],
    )
    assert progressive.train(build_options(progressive.ProgressiveOptions, options), FULL)
    # in each of three steps two of the teacher and one of the student
    assert len(scales) == 3 * 3 and {scale for _, scale in scales} == expected
    of_student = [scale for trained, scale in scales if trained]
    assert of_student == [3.0 if probability else 1.0] * 3


def test_a_small_vae_learns_both_halves_and_takes_the_place_of_the_full_one(tmp_path, data_folder):
    students = [str(tiny_checkpoint(tmp_path / name, name)) for name in ("student-1step", "student-8step")]
    perceptual = tmp_path / "image_encoder"
    ImageEncoder(**TINY_IMAGES).save_pretrained(perceptual)
    widths = {"encoder_block_out_channels": [8, 8], "decoder_block_out_channels": [8, 8]}
    options = tiny_options(
        tmp_path / "tiny-vae",
        data_folder,
        sample_every=3,
        validation_samples=260,
        students=students,
        num_latents=510,
        num_real=1,
        perceptual=str(perceptual),
        latent_cache=str(tmp_path / "latents"),
        network=widths | {"num_encoder_blocks": [1, 1], "num_decoder_blocks": [1, 0]},
    )
    assert tiny_vae.train(build_options(tiny_vae.TinyVaeOptions, options), FULL)
    records = [json.loads(line) for line in (tmp_path / "tiny-vae" / "stats.jsonl").read_text().splitlines()]
    assert {"loss_reconstruction", "loss_encoder", "loss_perceptual"} <= set(records[0])
    assert {"psnr_db", "distance", "recall"} <= set(records[-1])
    drawn = load_file(tmp_path / "tiny-vae" / "synthetic.safetensors")
    assert drawn["latents"].shape == (1020, 4, 16, 16) and drawn["images"].shape == (1020, 3, 32, 32)
    pipeline = load_pipeline(students[0])
    decoded = to_bytes(pipeline.decode_latents(drawn["latents"][:4].float()))
    assert (decoded.int() - drawn["images"][:4].int()).abs().max() <= 8  # drawn in bf16

    sharper = options | {"output": str(tmp_path / "sharper"), "sample_every": 0, "lambda_adversarial": 0.1}
    tried = sharper | {"output": str(tmp_path / "tried"), "adversarial_start": 2}
    trial = build_options(tiny_vae.TinyVaeOptions, tried)
    assert tiny_vae.train(trial, RunLimits(dry_run=True)) and trial.adversarial_start == 1
    assert tiny_vae.train(build_options(tiny_vae.TinyVaeOptions, sharper), FULL)
    judged = json.loads((tmp_path / "sharper" / "stats.jsonl").read_text().splitlines()[-1])
    assert {"loss_adversarial", "loss_discriminator"} <= set(judged) and "loss_discriminator" not in records[-1]

    trained = load_vae(tmp_path / "tiny-vae" / "export")
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    assert encode_latents(trained, images).shape == (2, 4, 16, 16)
    pipeline.register_modules(vae=trained)
    export_pipeline(pipeline, tmp_path / "small")
    images = load_pipeline(tmp_path / "small")(class_labels=["cat"], output_type="pt").images
    assert images.shape == (1, 3, 32, 32) and images.isfinite().all()

    with pytest.raises(ValueError, match="small: its VAE is AutoencoderTiny; accepted is AutoencoderKL"):
        load_velocity_pipeline(str(tmp_path / "small"))
    other = str(tiny_checkpoint(tmp_path / "other", "student-1step"))
    with torch.no_grad():
        pipeline = load_pipeline(other)
        pipeline.vae.decoder.conv_out.bias.add_(1)
    export_pipeline(pipeline, other)
    for changes, named in (
        ({"students": [students[0], other]}, "other has another VAE than"),
        ({"students": []}, "students is empty"),
        ({"students": [str(tmp_path / "small")]}, "small: its VAE is AutoencoderTiny"),
        ({"validation_samples": 100}, "validation_samples is 100"),
        ({"num_latents": 500}, "num_latents is 500"),
        ({"num_real": 4}, "num_real is 4"),
        ({"network": options["network"] | {"num_decoder_blocks": [1]}}, "should have the same length"),
        (
            {"network": widths | {"num_encoder_blocks": [1, 1], "num_decoder_blocks": [1, 1], "latent_channels": 8}},
            r"network: makes latents and images of \(8, 16, 16, 3, 32, 32\); accepted is \(4, 16, 16, 3, 32, 32\)",
        ),
    ):
        with pytest.raises(ValueError, match=named):
            refused = options | {"output": str(tmp_path / "refused")} | changes
            tiny_vae.train(build_options(tiny_vae.TinyVaeOptions, refused), FULL)


def test_a_network_starts_from_given_weights_of_its_config_alone(tmp_path):
    trained = tiny_unet("teacher")
    trained.save_pretrained(tmp_path / "unet")
    config = {**trained.config, "_class_name": type(trained).__name__}
    latents = torch.zeros(2, config["in_channels"], config["sample_size"], config["sample_size"])
    (tmp_path / "network.json").write_text(json.dumps(config))
    network = build_network(str(tmp_path / "network.json"), latents, str(tmp_path / "unet"))
    assert network.training
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in network.state_dict().items())
    wider = [2 * channels for channels in config["block_out_channels"]]
    (tmp_path / "wider.json").write_text(json.dumps({**config, "block_out_channels": wider}))
    with pytest.raises(ValueError, match="unet are of another network than .*wider.json"):
        build_network(str(tmp_path / "wider.json"), latents, str(tmp_path / "unet"))
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        build_network(str(tmp_path / "network.json"), latents, "nowhere")


def test_student_inherits_what_fits():
    source, target = tiny_unet("teacher"), tiny_unet("student")
    before = {name: value.clone() for name, value in target.state_dict().items()}
    names = student.inherit_weights(target, source)
    assert "conv_in.weight" in names
    for name, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[name] if name in names else before[name]), name


def test_stages_are_matched_from_both_ends_where_their_maps_have_one_size():
    def shapes(*sizes):
        return [torch.Size([1, 8, size, size]) for size in sizes]

    teacher = shapes(8, 4, 4, 4, 8, 16, 16)  # three levels: down, middle, up
    assert student.match_stages(teacher, teacher) == [(i, i) for i in range(7)]
    # two levels: the middle is of 8 x 8 here and of 4 x 4 there, and so is the second level
    assert student.match_stages(shapes(8, 8, 8, 16, 16), teacher) == [(0, 0), (3, 5), (4, 6)]
    with pytest.raises(ValueError, match="one size"):
        student.match_stages(shapes(2, 2, 2), teacher)


def train_on_two_processes(stage: str, options: dict, folder) -> list[dict]:
    """Run a stage as two processes that exchange gradients over gloo; returns its records."""
    config = folder / f"{stage}.yaml"
    config.write_text(yaml.safe_dump(options))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", f"mobilediff.training.{stage}", "--config", str(config)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr[-3000:]
    stats = (folder / stage / "stats.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in stats.splitlines()]


def test_two_processes_share_the_work(tmp_path, data_folder):
    judge = tiny_options(tmp_path / "judge", data_folder, ema_decay=0.0, network={"block_out_channels": [8, 8]})
    assert classifier.train(build_options(classifier.ClassifierOptions, judge), FULL)
    network = {
        "block_out_channels": [8, 8],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "norm_num_groups": 4,
    }
    perceptual = str(tmp_path / "judge" / "export")
    options = tiny_options(tmp_path / "vae", data_folder, sample_every=1, perceptual=perceptual, network=network)
    records = train_on_two_processes("vae", options, tmp_path)
    assert records[-1]["images"] == 3 * 4 * 2 and "psnr_db" in records[-1]
    trained, latents = str(tmp_path / "vae" / "export"), str(tmp_path / "latents")
    options = tiny_options(tmp_path / "decoder", data_folder, perceptual=perceptual, vae=trained, latent_cache=latents)
    options["lambda_adversarial"] = 0.5
    records = train_on_two_processes("decoder", options, tmp_path)
    assert records[-1]["images"] == 3 * 4 * 2 and "loss_discriminator" in records[-1]

    start = str(tiny_checkpoint(tmp_path / "eight", "student-8step"))
    options = tiny_options(
        tmp_path / "one_step",
        data_folder,
        student=start,
        num_pairs=6,
        reconstruction_steps=1,
        sample_every=1,
        latent_cache=str(tmp_path / "latents"),
        pair_cache=str(tmp_path / "pairs"),
    )
    records = train_on_two_processes("one_step", options, tmp_path)
    assert records[-1]["images"] == 3 * 4 * 2
    assert MobileDiffusionPipeline.from_pretrained(tmp_path / "one_step" / "export").nfe() == 1


def test_the_benchmark_times_a_stage_and_saves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mobilediff.timing, "MATRIX_SIZE", 32)
    config = tmp_path / "toy.yaml"
    config.write_text(yaml.safe_dump({"output": str(tmp_path / "toy")}))
    options, limits = parse_options(TrainingOptions, ["--config", str(config), "--benchmark"])
    run = Regression(options.output, steps=100, batch_size=6)
    run.trainer.limits = limits
    assert not run.fit()
    figures = json.loads(capsys.readouterr().out)
    macs = [9 * 27 * 8, 9 * 8]  # of the two convolutions; the first has no gradient of its input
    assert figures["gflops_image"] == pytest.approx(2e-9 * (3 * sum(macs) - macs[0]))
    assert figures["share_of_peak"] == pytest.approx(figures["gflops"] / figures["peak_gflops"])
    assert figures["images_per_second"] == pytest.approx(6000 / figures["median_ms"])
    assert not list((tmp_path / "toy-benchmark").glob("*.json*"))


def test_the_same_seeds_of_every_evaluation_stand_below_each_other(tmp_path):
    folder = tmp_path / "run" / "samples"
    folder.mkdir(parents=True)
    for step in (10, 20):
        grid = torch.zeros(80, 3, 32, 32)
        grid[7 * 8 : 8 * 8] = step / 255  # the horses
        to_pil_image(make_grid(grid, nrow=8)).save(folder / f"{step:08d}.png")
    rows = seeds.read_rows(tmp_path / "run", "horse")
    assert list(rows) == [10, 20] and all(row.shape == (36, 274, 3) for row in rows.values())
    assert [int(row[2:34, 2:34].min()) for row in rows.values()] == [10, 20]
    assert seeds.read_rows(tmp_path / "run", "ship")[20].max() == 0
    seeds.main([str(tmp_path / "run"), "--output", str(tmp_path / "seeds.png")])
    assert Image.open(tmp_path / "seeds.png").width > 2 * 274
    for arguments, named in (
        (["--classes", "unicorn", "--output", "a.png"], "class is 'unicorn'; accepted are airplane"),
        (["--output", "a.jpg"], "--output is a.jpg; accepted is a file that ends in .png"),
    ):
        with pytest.raises(ValueError, match=named):
            seeds.main([str(tmp_path / "run"), *arguments])
    with pytest.raises(FileNotFoundError, match="holds no grids"):
        seeds.main([str(tmp_path), "--output", "a.png"])
    Image.new("RGB", (274, 100)).save(folder / "00000030.png")
    with pytest.raises(ValueError, match="is 100 pixels high; accepted are grids of 10 rows"):
        seeds.read_rows(tmp_path / "run", "horse")
