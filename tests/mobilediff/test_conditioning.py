"""What a pipeline reads: text, its embeddings, and how long these are kept."""

import logging
import time

import peft
import pytest
import torch
from peft.tuners.lora import LoraLayer

from mobilediff.captions import load_nouns
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.sampling.prompts import CLASS_NAMES, encode_text, nearest_names
from tests.tiny import MAX_TOKENS, tiny_pipeline, tiny_text_encoder, tiny_tokenizer

STUDENT, ONE_STEP = tiny_pipeline("student"), tiny_pipeline("student-1step")
NOISE = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))


def draw(pipeline=STUDENT, prompt=None, latents=NOISE, **arguments) -> torch.Tensor:
    steps = 2 if pipeline.config.default_num_inference_steps == 50 else 1
    arguments = {"num_inference_steps": steps, "output_type": "latent"} | arguments
    return pipeline(prompt, latents=latents, **arguments).images


def swap_weights(encoder: torch.nn.Module) -> None:
    encoder.load_state_dict(tiny_pipeline("student", seed=1).text_encoder.state_dict())


def assign_weights(encoder: torch.nn.Module) -> None:
    encoder.load_state_dict(tiny_pipeline("student", seed=1).text_encoder.state_dict(), assign=True)


def replace_data(encoder: torch.nn.Module) -> None:
    encoder.text_projection.weight.data = -encoder.text_projection.weight.data


def edit_in_place(encoder: torch.nn.Module) -> None:
    with torch.no_grad():
        encoder.text_projection.weight.neg_()


def edit_buffer(encoder: torch.nn.Module) -> None:
    next(buffer for name, buffer in encoder.named_buffers() if "position_ids" in name).fill_(0)


def add_adapter(encoder: torch.nn.Module) -> None:
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "fc1"], init_lora_weights=False)
    peft.inject_adapter_in_model(config, encoder)


def add_hook(encoder: torch.nn.Module) -> None:
    encoder.text_projection.register_forward_hook(lambda module, inputs, output: -output)


CHANGES = [swap_weights, assign_weights, replace_data, edit_in_place, edit_buffer, add_adapter, add_hook]


@pytest.mark.parametrize("change", CHANGES)
def test_embeddings_are_kept_until_the_text_encoder_changes(change):
    pipeline = tiny_pipeline("student-1step")
    before = draw(pipeline, "a dog")
    change(pipeline.text_encoder)
    after = draw(pipeline, "a dog")
    pipeline.forget_prompts()
    assert not torch.equal(after, before) and torch.equal(draw(pipeline, "a dog"), after)


def test_an_adapter_switched_off_and_on_again():
    pipeline = tiny_pipeline("student-1step")
    plain = draw(pipeline, "a dog")
    add_adapter(pipeline.text_encoder)
    adapted = draw(pipeline, "a dog")
    layers = [layer for layer in pipeline.text_encoder.modules() if isinstance(layer, LoraLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    assert torch.equal(draw(pipeline, "a dog"), plain)
    for layer in layers:
        layer.enable_adapters(True)
    assert torch.equal(draw(pipeline, "a dog"), adapted) and not torch.equal(adapted, plain)


def test_a_shorter_tokenizer_is_seen():
    pipeline = tiny_pipeline("student-1step")
    long = draw(pipeline, "a photo of a dog on a ship")
    pipeline.tokenizer.model_max_length = 6
    assert not torch.equal(draw(pipeline, "a photo of a dog on a ship"), long)
    assert "first 6 is not read" in pipeline.prompt_warnings("a photo of a dog on a ship")[0]


@pytest.mark.parametrize("prompts", [["a dog"], ["a dog", "a ship"]])
def test_embeddings_in_place_of_a_prompt(prompts):
    noise = NOISE.repeat(len(prompts), 1, 1, 1)
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    embeds = dict(zip(names, STUDENT.encode_prompt(prompts), strict=True))
    assert embeds["prompt_embeds"].shape == embeds["negative_prompt_embeds"].shape == (len(prompts), MAX_TOKENS, 16)
    expected = draw(prompt=prompts, latents=noise)
    without_text = MobileDiffusionPipeline.from_pipe(STUDENT, text_encoder=None, tokenizer=None)
    for pipeline in (STUDENT, without_text):
        assert torch.equal(draw(pipeline, latents=noise, **embeds), expected)
        # one prompt's row stands for several images of it
        twice = draw(pipeline, latents=noise.repeat_interleave(2, 0), num_images_per_prompt=2, **embeds)
        torch.testing.assert_close(twice[::2], expected, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="no text encoder"):
        draw(without_text, prompts)
    with pytest.raises(ValueError, match="no text encoder"):  # for the null prompt
        draw(without_text, latents=noise, **{name: embeds[name] for name in names[::2]})
    unguided = draw(without_text, latents=noise, guidance_scale=0.0, **{name: embeds[name] for name in names[::2]})
    assert torch.equal(unguided, draw(prompt=prompts, latents=noise, guidance_scale=1.0))


def test_a_negative_prompt_takes_the_null_prompts_place():
    null = draw(prompt="a dog")
    negative = draw(prompt="a dog", negative_prompt="a ship")
    assert torch.equal(draw(prompt="a dog", negative_prompt=""), null) and not torch.equal(negative, null)
    by_embeds = STUDENT.encode_prompt("a ship", do_classifier_free_guidance=False)[::2]
    arguments = {"negative_prompt_embeds": by_embeds[0], "negative_pooled_prompt_embeds": by_embeds[1]}
    assert torch.equal(draw(prompt="a dog", **arguments), negative)
    noise = NOISE.repeat(2, 1, 1, 1)
    two = draw(prompt=["a dog", "a dog"], latents=noise, negative_prompt=["a ship", ""])
    torch.testing.assert_close(two, torch.cat([negative, null]), rtol=0, atol=1e-4)


def test_a_negative_prompt_without_guidance(caplog):
    with caplog.at_level(logging.WARNING):
        image = draw(prompt="a dog", negative_prompt="a ship", guidance_scale=1.0)
    assert "changes nothing without guidance" in caplog.text
    assert torch.equal(image, draw(prompt="a dog", guidance_scale=1.0))
    assert torch.equal(draw(ONE_STEP, "a dog", negative_prompt=""), draw(ONE_STEP, "a dog"))


EMBEDS, POOLED = torch.zeros(1, MAX_TOKENS, 16), torch.zeros(1, 12)
TWO = {"prompt_embeds": EMBEDS, "pooled_prompt_embeds": POOLED}
NEGATIVE = {"negative_prompt_embeds": EMBEDS, "negative_pooled_prompt_embeds": POOLED}


@pytest.mark.parametrize(
    ("pipeline", "arguments", "message"),
    [
        (ONE_STEP, {"prompt": "a dog", "negative_prompt": "a ship"}, "'a ship', but guidance is distilled"),
        (ONE_STEP, {"prompt": "a dog", **NEGATIVE}, "negative_prompt_embeds is given, but guidance is distilled"),
        (STUDENT, {"prompt": "a dog", **TWO}, "not both"),
        (STUDENT, {"prompt_embeds": EMBEDS}, "pooled_prompt_embeds is None; accepted"),
        (STUDENT, {**TWO, "pooled_prompt_embeds": POOLED[:, :5]}, r"pooled_prompt_embeds is \(1, 5\), accepted"),
        (
            STUDENT,
            {**TWO, "prompt_embeds": EMBEDS[0]},
            rf"prompt_embeds is \({MAX_TOKENS}, 16\), accepted: .*\({MAX_TOKENS}, any, 16\)",
        ),
        (STUDENT, {**TWO, "prompt_embeds": EMBEDS / 0}, "prompt_embeds holds NaN"),
        (STUDENT, {**TWO, "prompt_embeds": "a dog"}, "prompt_embeds is str"),
        (STUDENT, {"prompt": "a dog", "negative_prompt": "a", **NEGATIVE}, "not both"),
        (
            STUDENT,
            {"prompt": ["a dog", "a cat"], **NEGATIVE},
            rf"negative_prompt_embeds is \(1, {MAX_TOKENS}, 16\), accepted",
        ),
        (STUDENT, {"prompt": "a dog", "negative_prompt": ["a", "b"]}, "negative_prompt is a list of 2"),
        (STUDENT, {"prompt": "a dog", "negative_prompt": 3}, "is 3, accepted"),
        (STUDENT, {"prompt": "a cat \ud83d"}, r"'a cat \\ud83d', which holds half of a surrogate pair"),
        (STUDENT, {"prompt": ["a dog", "\udc00 a cat"]}, "half of a surrogate pair"),
        (STUDENT, {"prompt": "a dog", "negative_prompt": "\ud83d"}, "half of a surrogate pair"),
    ],
)
def test_bad_text_and_embeddings_are_refused(pipeline, arguments, message, monkeypatch):
    monkeypatch.setattr(pipeline.unet, "forward", lambda *args, **kwargs: pytest.fail("the network was called"))
    with pytest.raises(ValueError, match=message):
        pipeline(**arguments)


def test_half_of_a_surrogate_pair_is_refused_wherever_text_is_read():
    for read in (STUDENT.prompt_warnings, lambda prompt: STUDENT.cache_prompts([prompt]), STUDENT.encode_prompt):
        with pytest.raises(ValueError, match="half of a surrogate pair"):
            read("a cat \ud83d")
    assert draw(prompt="a cat \U0001f600").isfinite().all()


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("a dog<|endoftext|> on a ship", "a dog  on a ship"),
        ("<|startoftext|>a dog", " a dog"),
        ("<|endof\u200btext|>a dog", " a dog"),
        ("a d\u200bog", "a dog"),
        ("\u202ea dog\u202c\ufeff", "a dog"),
    ],
)
def test_marks_are_not_read(typed, read):
    assert torch.equal(draw(ONE_STEP, typed), draw(ONE_STEP, read))
    assert ONE_STEP.prompt_warnings(typed) == []
    with torch.no_grad():
        both = encode_text(ONE_STEP.tokenizer, ONE_STEP.text_encoder, [typed, read])[1]
    assert torch.equal(both[0], both[1])


@pytest.mark.parametrize(
    "prompt",
    [
        "'a dog'",
        "\u2018a dog\u2019",
        '"dog"',
        "a dog's head",
        "the dogs\u2019 home",
        "fire-truck",
        "ostriches",
        "ferries",
        "buses",
    ],
)
def test_names_in_other_forms_are_known(prompt):
    assert ONE_STEP.prompt_warnings(prompt) == []


@pytest.mark.parametrize("prompt", ["foxes", "dogma", "a doge", "cats' eye's", "it's"])
def test_other_words_are_still_unknown(prompt):
    assert bool(ONE_STEP.prompt_warnings(prompt)) == (prompt != "cats' eye's")


def test_only_what_is_read_is_searched():
    names = sorted({*CLASS_NAMES, *load_nouns()})
    prompt = " ".join(f"wrod{i}" for i in range(3000))
    start = time.perf_counter()
    cut, unknown = ONE_STEP.prompt_warnings(prompt)
    nearest_names(prompt, names)
    assert time.perf_counter() - start < 3
    assert "is not read" in cut and "names nothing" in unknown
    beyond = "wrod " * 30 + "dog"
    assert len(ONE_STEP.prompt_warnings(beyond)) == 2  # the dog is not read
    assert len(ONE_STEP.prompt_warnings("dog " + beyond)) == 1


def test_a_tokenizer_of_another_vocabulary_is_refused(tmp_path):
    tokenizer = tiny_tokenizer()
    encoder = tiny_text_encoder(tokenizer)
    rest = {name: part for name, part in STUDENT.components.items() if name not in ("tokenizer", "text_encoder")}
    MobileDiffusionPipeline(tokenizer=tokenizer, text_encoder=encoder, **rest)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    empty = type(tokenizer).from_pretrained(tmp_path)
    more = tiny_tokenizer()
    more.add_tokens(["<dog-toy>"])
    for other in (empty, more):
        with pytest.raises(ValueError, match=f"the tokenizer knows {len(other)} tokens, the text encoder embeds"):
            MobileDiffusionPipeline(tokenizer=other, text_encoder=encoder, **rest)
    encoder.resize_token_embeddings(len(more))
    MobileDiffusionPipeline(tokenizer=more, text_encoder=encoder, **rest)
    with pytest.raises(ValueError, match="tokenizer is None; accepted: text_encoder and tokenizer together"):
        MobileDiffusionPipeline(tokenizer=None, text_encoder=encoder, **rest)
