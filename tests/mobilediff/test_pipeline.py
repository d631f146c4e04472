import logging

import numpy as np
import pytest
import torch
from PIL import Image

import mobilediff.pipeline
from mobilediff import captions
from mobilediff.captions import load_nouns
from mobilediff.pipeline import CLASS_NAMES, MobileDiffusionPipeline, encode_text, nearest_names
from tests.generators import generators
from tests.tiny import HIDDEN_SIZE, KINDS, MAX_TOKENS, PROJECTION_DIM, tiny_pipeline

PIPELINES = {kind: tiny_pipeline(kind) for kind in KINDS}
STEPS = {"teacher": 3, "student": 3, "student-8step": 8, "student-1step": 4, "student-1step-pruned": 2}


def count_calls(pipeline, monkeypatch) -> list[int]:
    """Records the batch size of every call of the network."""
    batches = []
    forward = pipeline.unet.forward

    def counted(sample, *args, **kwargs):
        batches.append(len(sample))
        return forward(sample, *args, **kwargs)

    monkeypatch.setattr(pipeline.unet, "forward", counted)
    return batches


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_depends_on_its_seed_alone_not_on_its_batch(kind):
    def draw(prompts, numbers):
        return PIPELINES[kind](
            prompts, generator=generators(*numbers), num_inference_steps=STEPS[kind], output_type="pt"
        ).images

    prompts = ["a photo of a dog", "a photo of a fire truck", "a photo of a cat"]
    batch = draw(prompts, [1, 2, 3])
    assert batch.shape == (3, 3, 32, 32) and batch.min() >= 0 and batch.max() <= 1
    torch.testing.assert_close(draw(prompts[::-1], [3, 2, 1]).flip(0), batch, rtol=0, atol=1e-4)
    torch.testing.assert_close(draw(prompts[1:2], [2]), batch[1:2], rtol=0, atol=1e-4)
    assert (draw(prompts[1:2], [4]) - batch[1:2]).abs().max() > 0.05, "another seed must give another image"


def test_the_prompt_matters():
    noise = torch.randn(1, 4, 16, 16, generator=generators(0)[0])
    draw = [PIPELINES["student-1step"](p, latents=noise, output_type="pt").images for p in ("a dog", "a cat")]
    assert (draw[0] - draw[1]).abs().max() > 1e-3


def test_images_of_a_prompt_stand_side_by_side():
    pipeline = PIPELINES["student-1step"]
    images = pipeline(
        ["a dog", "a cat"], num_images_per_prompt=2, generator=generators(1, 2, 3, 4), output_type="pt"
    ).images
    dogs = pipeline("a dog", num_images_per_prompt=2, generator=generators(1, 2), output_type="pt").images
    torch.testing.assert_close(images[:2], dogs, rtol=0, atol=1e-4)


def test_guidance_by_hand_and_in_one_call(monkeypatch):
    """One step at t = 999: x_0 = alpha x_t - sigma (v_null + w (v_text - v_null))."""
    pipeline = PIPELINES["teacher"]
    noise = torch.randn(2, 4, 16, 16, generator=generators(0)[0])
    alpha_bar = pipeline.scheduler.alphas_cumprod[999]
    with torch.no_grad():
        outputs = []
        for prompt in ("", "a photo of a dog"):
            hidden_states, pooled = encode_text(pipeline.tokenizer, pipeline.text_encoder, [prompt, prompt])
            outputs.append(pipeline.unet(noise, 999, hidden_states, class_labels=pooled).sample)
    expected = alpha_bar**0.5 * noise - (1 - alpha_bar) ** 0.5 * (outputs[0] + 2.5 * (outputs[1] - outputs[0]))

    batches = count_calls(pipeline, monkeypatch)
    latents = pipeline(
        class_labels=["dog", 5], latents=noise, num_inference_steps=1, guidance_scale=2.5, output_type="latent"
    ).images
    torch.testing.assert_close(latents, expected, rtol=0, atol=1e-4)
    assert batches == [4], "guidance takes one call at twice the batch"


def test_guidance_outside_its_interval_is_none():
    """Two steps, at t = 999 and 499; the second by hand from where a guided first one leads."""
    pipeline, after = PIPELINES["teacher"], []

    def draw(**arguments):
        return pipeline(
            "a dog", generator=generators(3), num_inference_steps=2, output_type="latent", **arguments
        ).images

    draw(callback_on_step_end=lambda pipeline, index, timestep, tensors: after.append(tensors["latents"]))
    with torch.no_grad():
        hidden_states, pooled = encode_text(pipeline.tokenizer, pipeline.text_encoder, ["a dog"])
        output = pipeline.unet(after[0], 499, hidden_states, class_labels=pooled).sample
    expected = pipeline.scheduler.step(output, 499, after[0]).prev_sample
    torch.testing.assert_close(draw(guidance_interval=(0.9, 1.0)), expected, rtol=0, atol=1e-4)
    assert not torch.allclose(expected, after[1], atol=1e-4)  # where guidance is for both steps


@pytest.mark.parametrize(
    ("kind", "arguments", "nfe"),
    [
        ("teacher", {}, 100),
        ("student", {"num_inference_steps": 25}, 50),
        ("student", {"num_inference_steps": 25, "guidance_scale": 1.0}, 25),
        ("student", {"num_inference_steps": 25, "guidance_interval": (0.2, 0.6)}, 25 + 10),
        ("student", {"num_inference_steps": 25, "guidance_scale": 1.0, "guidance_interval": (0.2, 0.6)}, 25),
        ("student-8step", {}, 8),
        ("student-1step", {}, 1),
        ("student-1step", {"num_inference_steps": 4, "guidance_scale": 1}, 4),
    ],
)
def test_nfe_is_what_the_network_is_called_for(kind, arguments, nfe, monkeypatch):
    assert PIPELINES[kind].nfe(**arguments) == nfe
    batches = count_calls(PIPELINES[kind], monkeypatch)
    PIPELINES[kind]("a dog", output_type="latent", **arguments)
    assert sum(batches) == nfe


def test_decoding_undoes_the_normalisation_of_each_channel():
    pipeline = PIPELINES["student"]
    z = torch.randn(1, 4, 16, 16, generator=generators(0)[0])
    mean, std = ([0.1, -0.2, 0.3, 0.0], [1.5, 0.5, 1.0, 2.0])
    raw = torch.stack([z[:, c] * std[c] + mean[c] for c in range(4)], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(pipeline.decode_latents(z), pipeline.vae.decode(raw).sample)


def test_output_types_agree():
    pipeline = PIPELINES["student-1step"]
    draw = {
        kind: pipeline("a dog", generator=generators(1), output_type=kind).images
        for kind in ("pil", "np", "pt", "latent")
    }
    assert isinstance(draw["pil"][0], Image.Image) and draw["pil"][0].size == (32, 32)
    assert draw["np"].shape == (1, 32, 32, 3) and draw["latent"].shape == (1, 4, 16, 16)
    np.testing.assert_allclose(draw["np"][0], draw["pt"][0].permute(1, 2, 0).numpy())
    np.testing.assert_array_equal(np.asarray(draw["pil"][0]), (draw["np"][0] * 255).round().astype("uint8"))
    assert isinstance(pipeline("a dog", return_dict=False), tuple)


def test_the_callback_sees_every_step_and_may_replace_latents():
    seen = []

    def callback(pipeline, step, timestep, tensors):
        seen.append((step, int(timestep)))
        return {"latents": torch.zeros_like(tensors["latents"])}

    latents = PIPELINES["student-1step"](
        "a dog", num_inference_steps=2, output_type="latent", callback_on_step_end=callback
    ).images
    assert seen == [(0, 999), (1, 499)] and not latents.any()


def test_text_is_padded_to_the_tokenizers_length_whatever_the_batch():
    pipeline = PIPELINES["student"]
    with torch.no_grad():
        hidden_states, pooled = encode_text(pipeline.tokenizer, pipeline.text_encoder, ["a dog", "a cat " * 20])
        alone = encode_text(pipeline.tokenizer, pipeline.text_encoder, ["A  DOG"])
    assert hidden_states.shape == (2, MAX_TOKENS, HIDDEN_SIZE) and pooled.shape == (2, PROJECTION_DIM)
    torch.testing.assert_close(alone[0], hidden_states[:1])
    torch.testing.assert_close(alone[1], pooled[:1])


def test_class_labels_are_prompts_of_the_template():
    pipeline = PIPELINES["student-1step"]
    noise = torch.randn(3, 4, 16, 16, generator=generators(0)[0])
    by_name = pipeline(class_labels=["airplane", "Cat", "truck"], latents=noise, output_type="pt").images
    prompts = ["a photo of an airplane", "a photo of a cat", "a photo of a truck"]
    torch.testing.assert_close(pipeline(prompts, latents=noise, output_type="pt").images, by_name)
    for labels in ([0, 3, 9], torch.tensor([0, 3, 9]), np.array([0, 3, 9])):
        torch.testing.assert_close(pipeline(class_labels=labels, latents=noise, output_type="pt").images, by_name)
    assert CLASS_NAMES == captions.CLASS_NAMES


@pytest.mark.parametrize(
    ("prompt", "warned"),
    [
        ("a photo of a stealth bomber", False),
        ("A FIRE TRUCK!!", False),
        ("two cats", False),
        ("", False),
        ("a photo of a stelth bommer", True),
        ("qqqq", True),
    ],
)
def test_a_prompt_without_known_nouns_gets_a_warning(prompt, warned, caplog):
    with caplog.at_level(logging.WARNING):
        PIPELINES["student-1step"](prompt, output_type="latent")
    assert bool(caplog.records) == warned
    assert [record.getMessage() for record in caplog.records] == PIPELINES["student-1step"].prompt_warnings(prompt)
    if prompt == "a photo of a stelth bommer":
        assert "stealth bomber" in caplog.text
    if prompt == "qqqq":
        assert "airplane" in caplog.text


def test_a_prompt_that_is_cut_gets_a_warning(caplog):
    with caplog.at_level(logging.WARNING, logger="mobilediff"):
        PIPELINES["student-1step"]("a photo of " + "a very " * 12 + "old fire truck", output_type="latent")
    assert "what follows the first 16 is not read" in caplog.text


def test_warnings_can_be_asked_for_without_a_call(monkeypatch):
    pipeline = PIPELINES["student-1step"]
    monkeypatch.setattr(mobilediff.pipeline, "encode_text", None)  # not called
    unknown, cut = pipeline.prompt_warnings("qqqq"), pipeline.prompt_warnings("a fire truck " * 12)
    assert len(unknown) == len(cut) == 1
    assert unknown[0].startswith("The prompt 'qqqq' names nothing that the model was trained on")
    assert "what follows the first 16 is not read" in cut[0]
    unknown.clear()  # the caller's own list
    assert pipeline.prompt_warnings("qqqq")


def test_default_steps_that_the_scheduler_is_not_for_are_refused():
    components = {**tiny_pipeline("student-8step").components, "nouns": None}
    with pytest.raises(ValueError, match="default_num_inference_steps is 4, the scheduler is for 8"):
        MobileDiffusionPipeline(**components, default_num_inference_steps=4)


def test_no_nouns_no_warning(caplog):
    pipeline = tiny_pipeline("student-1step")
    pipeline.register_to_config(nouns=None)
    pipeline("qqqq", output_type="latent")
    assert not caplog.records


def test_nearest_names_are_ordered_by_likeness():
    names = ["fire engine", "fire truck", "dog", "stealth bomber"]
    assert nearest_names("a picture of a fire trukc", names)[0] == "fire truck"
    assert nearest_names("?!", names) == []


NOISE = torch.zeros(1, 4, 16, 16)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("student", {"prompt": None}, "not neither"),
        ("student", {"class_labels": "cat"}, "not both"),
        ("student", {"prompt": []}, r"prompt is \[\]"),
        ("student", {"prompt": ["a dog", 3]}, "accepted: a string"),
        ("student", {"prompt": None, "class_labels": "lion"}, "'lion', accepted: airplane, .*truck, or 0 to 9"),
        ("student", {"prompt": None, "class_labels": 10}, "holds 10, accepted: airplane"),
        ("student", {"prompt": None, "class_labels": [-1]}, "holds -1"),
        ("student", {"prompt": None, "class_labels": []}, r"class_labels is \[\]"),
        ("student", {"prompt": None, "class_labels": 1.5}, "class_labels is 1.5"),
        ("student", {"num_images_per_prompt": 0}, "num_images_per_prompt is 0, accepted"),
        ("student", {"num_images_per_prompt": -3}, "num_images_per_prompt is -3"),
        ("student", {"num_images_per_prompt": 1.5}, "num_images_per_prompt is 1.5"),
        ("student", {"num_inference_steps": 0}, "is 0, accepted: whole numbers from 1 to 1000"),
        ("student", {"num_inference_steps": 1001}, "is 1001"),
        ("student", {"num_inference_steps": 2.0}, "is 2.0"),
        ("student", {"num_inference_steps": 61}, "61.*take a number near it"),
        ("student-8step", {"num_inference_steps": 50}, "is 50, this checkpoint was distilled for 8"),
        ("student-1step", {"num_inference_steps": 3}, "is 3, this checkpoint was distilled for 1 or 2 or 4"),
        ("student-1step", {"guidance_scale": 3.0}, "3.0, but guidance is distilled"),
        ("student", {"guidance_scale": -1.0}, "guidance_scale is -1.0"),
        ("student", {"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ("student", {"guidance_scale": "3"}, "guidance_scale is '3'"),
        ("student", {"guidance_interval": (0.5, 0.5)}, r"guidance_interval is \(0.5, 0.5\), accepted: two numbers"),
        ("student", {"guidance_interval": (-0.1, 0.5)}, "guidance_interval is"),
        ("student", {"guidance_interval": 0.5}, "guidance_interval is 0.5"),
        ("student-1step", {"guidance_interval": (0.2, 0.8)}, "guidance is distilled into this checkpoint"),
        ("student", {"generator": generators(1, 2)}, "list of 2, but 1 images"),
        ("student", {"generator": 7}, "generator is 7"),
        ("student", {"generator": [7]}, r"generator is \[7\]"),
        ("student", {"latents": NOISE[:, :3]}, r"latents is \(1, 3, 16, 16\), accepted: .*\(1, 4, 16, 16\)"),
        ("student", {"latents": NOISE.numpy()}, "latents is ndarray"),
        ("student", {"latents": NOISE / 0}, "latents holds NaN"),
        ("student", {"output_type": "jpg"}, "'jpg', accepted: pil, np, pt, latent"),
        ("student", {"callback_on_step_end_tensor_inputs": ["noise"]}, r"\['noise'\], accepted: \['latents'\]"),
    ],
)
def test_bad_input_is_refused_before_any_work(kind, arguments, message, monkeypatch):
    pipeline = PIPELINES[kind]
    batches = count_calls(pipeline, monkeypatch)
    monkeypatch.setattr(pipeline.text_encoder, "forward", lambda *a, **k: pytest.fail("text was encoded"))
    with pytest.raises(ValueError, match=message):
        pipeline(**{"prompt": "a dog", **arguments})
    assert not batches


@pytest.mark.parametrize("output_type", ["pil", "latent"])
def test_nan_out_of_the_network_is_refused(monkeypatch, output_type):
    pipeline = PIPELINES["student-1step"]
    forward = pipeline.unet.forward
    monkeypatch.setattr(pipeline.unet, "forward", lambda *a, **k: (forward(*a, **k)[0] * float("nan"),))
    with pytest.raises(ValueError, match="NaN or infinite latents"):
        pipeline("a dog", output_type=output_type)


def test_a_half_precision_vae_decodes_in_single_precision():
    pipeline = tiny_pipeline("student-1step")
    expected = pipeline("a dog", generator=generators(1), output_type="pt").images
    pipeline.vae.to(torch.float16)
    images = pipeline("a dog", generator=generators(1), output_type="pt").images
    assert images.dtype == torch.float32 and pipeline.vae.dtype == torch.float16
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-2)


def test_a_vae_without_statistics_is_refused():
    pipeline = tiny_pipeline()
    pipeline.vae.register_to_config(latents_mean=None)
    with pytest.raises(ValueError, match="latents_mean"):
        type(pipeline)(**pipeline.components)


def test_kept_text_embeddings_are_the_computed_ones(monkeypatch):
    pipeline = tiny_pipeline("student-1step")
    calls = []
    encode = mobilediff.pipeline.encode_text
    monkeypatch.setattr(mobilediff.pipeline, "encode_text", lambda *args: (calls.append(args[2]), encode(*args))[1])
    pipeline.cache_prompts()
    names = {*CLASS_NAMES, *load_nouns()}
    assert len(calls) == len(names) + 1 and ["a photo of an ostrich"] in calls and [""] in calls
    draw = {"num_inference_steps": 1, "output_type": "pt"}
    drawn = pipeline(["a photo of an ostrich"] * 2, generator=torch.Generator().manual_seed(0), **draw).images
    assert len(calls) == len(names) + 1
    for name in ("ostrich", "fire truck", "cat"):
        prompt = f"a photo of {'an' if name == 'ostrich' else 'a'} {name}"
        with torch.no_grad():
            kept = pipeline.encode_prompt([prompt], 1, False, pipeline.device, torch.float32)
            computed = encode(pipeline.tokenizer, pipeline.text_encoder, [prompt])
        assert all(torch.equal(a, b) for a, b in zip(kept, computed, strict=True))

    pipeline.forget_prompts()
    assert pipeline._prompt_warnings.cache_info().currsize == 0
    again = pipeline(["a photo of an ostrich"] * 2, generator=torch.Generator().manual_seed(0), **draw).images
    assert torch.equal(again, drawn) and calls[-1] == ["a photo of an ostrich"]
    count = len(calls)
    pipeline("an emu in the snow", **draw)
    pipeline("an emu in the snow", **draw)
    assert len(calls) == count + 1
    with torch.autocast("cpu", torch.bfloat16):  # other numbers, so kept apart
        pipeline("an emu in the snow", **draw)
    assert len(calls) == count + 2
    hidden_states, _ = pipeline.encode_prompt(["an emu in the snow"], 1, False, pipeline.device, torch.float32)
    assert hidden_states.requires_grad
    encoder = tiny_pipeline("student-1step", seed=1).text_encoder
    pipeline.register_modules(text_encoder=encoder)
    other = pipeline(["a photo of an ostrich"] * 2, generator=torch.Generator().manual_seed(0), **draw).images
    assert not torch.equal(other, drawn)
