"""Explore models: many seeds, many nouns, pictures between two, numbers of steps, latents on their way."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from PIL import Image

from mobilediff.captions import caption, load_nouns
from mobilediff.demo.service.drawing import Noise, draw_seeds, png_uri
from mobilediff.demo.service.inputs import MAX_SEED, check_prompt, check_seed, check_whole, quoted
from mobilediff.demo.service.models import Model, Models
from mobilediff.demo.service.turns import TURNS
from mobilediff.sampling.scheduling import distilled_steps

MIN_SEEDS, MAX_SEEDS, MAX_SEEDS_OF_SLOW = 4, 64, 16
MAX_NOUNS = 16
MIN_FRAMES, MAX_FRAMES = 3, 16
ROW_STEPS = (1, 2, 4, 8, 25)
TURN_MACS = 2e10  # multiply-accumulates of a turn: about half a second on two cores of a CPU
FRESH_NOISE = MAX_SEED + 1  # seeds the scheduler's own noise where a visitor's seeds do not

# The pictures so far as JSON, and the pipelines' warnings about the prompts, one a line.
Progress = tuple[dict[str, Any], str]


def images_a_turn(model: Model) -> int:
    """Return how many images a model draws in one turn, at least 1."""
    return max(1, int(TURN_MACS / (model.nfe * model.macs)))


def most_seeds(model: Model) -> int:
    """Return how many images a grid of a model may hold: fewer of a slow one, which takes many turns."""
    return MAX_SEEDS if 8 * images_a_turn(model) >= MAX_SEEDS else MAX_SEEDS_OF_SLOW


def steps_of(model: Model) -> list[int]:
    """List the numbers of steps that a model was distilled for, or else `ROW_STEPS`."""
    return sorted(distilled_steps(model.pipeline.scheduler) or ROW_STEPS)


def choose_model(models: Models, name: object) -> Model:
    """Return one model, once it is loaded.

    Raises:
        ValueError: there is none of this name, or it is broken.
    """
    if not isinstance(name, str):
        raise ValueError(f"The model is {quoted(name)}; accepted is the name of one model.")
    (known,) = models.choose([name])
    return models.get(known)


def check_nouns(nouns: object) -> list[str]:
    """Return known nouns, each once.

    Raises:
        ValueError: there are none, too many, or unknown ones.
    """
    if not isinstance(nouns, list) or not all(isinstance(noun, str) for noun in nouns):
        raise ValueError(f"The nouns are {quoted(nouns)}; accepted is a list of nouns.")
    chosen = list(dict.fromkeys(nouns))
    if unknown := [noun for noun in chosen if noun not in load_nouns()]:
        raise ValueError(f"The models were not trained on {quoted(unknown[0])}; accepted are the nouns of the list.")
    if not 1 <= len(chosen) <= MAX_NOUNS:
        raise ValueError(f"There are {len(chosen)} nouns; accepted are 1 to {MAX_NOUNS}.")
    return chosen


def as_json(images: list[Image.Image], captions: list[str], text: str) -> dict[str, Any]:
    """Write images with their captions, and a sentence on all of them, as JSON; captions may go on."""
    shown = [{"image": png_uri(image), "caption": line} for image, line in zip(images, captions, strict=False)]
    return {"text": text, "pictures": shown}


def in_turns(
    model: Model,
    captions: list[str],
    cancelled: threading.Event,
    arguments: Callable[[slice], dict],
    prompts: list[str],
) -> Iterator[Progress]:
    """Draw images, as many in a turn as `images_a_turn` says, until another thread sets `cancelled`.

    Args:
        model: draws.
        captions: of all images.
        cancelled: is looked at after each step.
        arguments: of `draw_seeds`, for a slice of the images.
        prompts: that the model's warnings are about.

    Yields:
        Progress after each turn.

    Raises:
        ValueError: the model cannot draw them.
    """
    notes = "\n".join(dict.fromkeys(note for prompt in prompts for note in model.pipeline.prompt_warnings(prompt)))
    images, latency, size, count = [], 0.0, images_a_turn(model), len(captions)
    for start in range(0, count, size):
        part = slice(start, min(start + size, count))
        drawing = draw_seeds(model, cancelled=cancelled, turn=TURNS.of_batch, **arguments(part))
        if cancelled.is_set():
            return
        if drawing.problem is not None:
            raise ValueError(drawing.problem)
        images, latency = images + drawing.images, latency + drawing.latency_ms
        drawn = f"{len(images)}" if len(images) == count else f"{len(images)} of {count}"
        yield as_json(images, captions, f"{drawn} image{'s' if count > 1 else ''} in {latency:,.0f} ms"), notes


def draw_in_turns(
    model: Model, prompt: str, seed: int, count: int, cancelled: threading.Event, **options
) -> Iterator[Progress]:
    """Draw one prompt from `seed` and those after it, with options of the model's call; otherwise as `in_turns`."""
    seeds = list(range(seed, seed + count))

    def arguments(part: slice) -> dict:
        return {"seeds": seeds[part], "prompt": prompt, "num_images_per_prompt": len(seeds[part]), **options}

    yield from in_turns(model, [f"seed {one}" for one in seeds], cancelled, arguments, [prompt])


def explore_seeds(
    models: Models, name: object, prompt: object, seed: object, count: object, cancelled: threading.Event
) -> Iterator[Progress]:
    """Draw one prompt from `seed` and those after it; yields and errors as in `in_turns`."""
    model = choose_model(models, name)
    prompt, seed = check_prompt(prompt, model.pipeline.tokenizer), check_seed(seed)
    count = check_whole(f"number of images of {model.name}", count, MIN_SEEDS, most_seeds(model))
    yield from draw_in_turns(model, prompt, seed, count, cancelled)


def explore_nouns(
    models: Models, name: object, nouns: object, seed: object, cancelled: threading.Event
) -> Iterator[Progress]:
    """Draw nouns from one noise; yields and errors as in `in_turns`."""
    nouns, seed = check_nouns(nouns), check_seed(seed)
    model = choose_model(models, name)
    prompts = [caption(noun, model.pipeline.config.class_template) for noun in nouns]

    def arguments(part: slice) -> dict:
        return {"seeds": [seed] * len(prompts[part]), "prompt": prompts[part]}

    yield from in_turns(model, nouns, cancelled, arguments, prompts)


def slerp(first: torch.Tensor, last: torch.Tensor, fractions: torch.Tensor) -> torch.Tensor:
    """Interpolate between two tensors along the arc between them (Shoemake 1985), which keeps a noise's length.

    Args:
        first, last: [1, ...], not parallel.
        fractions: of the way, 0 to 1, [N].

    Returns:
        [N, ...].
    """
    cosine = torch.nn.functional.cosine_similarity(first.flatten(), last.flatten(), dim=0)
    angle = torch.arccos(cosine)
    fractions = fractions.reshape(-1, *[1] * (first.ndim - 1))
    return (torch.sin((1 - fractions) * angle) * first + torch.sin(fractions * angle) * last) / torch.sin(angle)


def initial_noise(model: Model, seed: int) -> torch.Tensor:
    """Draw the latents that a call with this seed starts from, [1, C, h, w]."""
    pipeline, generator = model.pipeline, torch.Generator("cpu").manual_seed(seed)
    return pipeline.prepare_latents(1, generator, None, pipeline.device)


def way(frames: object) -> tuple[torch.Tensor, list[str]]:
    """Return evenly spaced fractions from 0 to 1 and their captions.

    Raises:
        ValueError: not a whole number of frames from `MIN_FRAMES` to `MAX_FRAMES`.
    """
    fractions = torch.linspace(0, 1, check_whole("number of pictures", frames, MIN_FRAMES, MAX_FRAMES))
    return fractions, [f"{fraction:.0%}" for fraction in fractions.tolist()]


def explore_noise(
    models: Models,
    name: object,
    prompt: object,
    first_seed: object,
    last_seed: object,
    frames: object,
    cancelled: threading.Event,
) -> Iterator[Progress]:
    """Draw one prompt from noises between those of two seeds, by `slerp`; yields and errors as in `in_turns`."""
    first, last = check_seed(first_seed), check_seed(last_seed)
    if first == last:
        raise ValueError(f"Both seeds are {first}; accepted are two different ones.")
    fractions, captions = way(frames)
    model = choose_model(models, name)
    prompt = check_prompt(prompt, model.pipeline.tokenizer)
    latents = slerp(initial_noise(model, first), initial_noise(model, last), fractions.to(model.pipeline.device))

    def arguments(part: slice) -> dict:
        noise: Noise = lambda *_: latents[part]  # noqa: E731 - of these images
        count = len(latents[part])
        return {"seeds": [FRESH_NOISE] * count, "noise": noise, "prompt": prompt, "num_images_per_prompt": count}

    yield from in_turns(model, captions, cancelled, arguments, [prompt])


def explore_prompts(
    models: Models,
    name: object,
    first_prompt: object,
    last_prompt: object,
    seed: object,
    frames: object,
    cancelled: threading.Event,
) -> Iterator[Progress]:
    """Draw embeddings between those of two prompts, linearly, from one noise; yields and errors as in `in_turns`."""
    seed = check_seed(seed)
    fractions, captions = way(frames)
    model = choose_model(models, name)
    pipeline = model.pipeline
    prompts = [check_prompt(prompt, pipeline.tokenizer) for prompt in (first_prompt, last_prompt)]
    with TURNS.of_batch(), torch.no_grad():
        texts, _, pooled, _ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False)
    fractions = fractions.to(texts)
    texts = torch.lerp(texts[:1], texts[1:], fractions.reshape(-1, 1, 1))
    pooled = torch.lerp(pooled[:1], pooled[1:], fractions.reshape(-1, 1))

    def arguments(part: slice) -> dict:
        embeddings = {"prompt_embeds": texts[part], "pooled_prompt_embeds": pooled[part]}
        return {"seeds": [seed] * len(texts[part]), **embeddings}

    yield from in_turns(model, captions, cancelled, arguments, prompts)


def explore_steps(
    models: Models, names: object, prompt: object, seed: object, cancelled: threading.Event
) -> Iterator[Progress]:
    """Draw one prompt from one noise with each number of steps of `steps_of` each chosen model.

    Yields:
        Progress after each image.

    Raises:
        ValueError: bad input, or a model cannot draw it.
    """
    chosen = models.choose(names)
    seed = check_seed(seed)
    prompt = check_prompt(prompt, models.get(chosen[0]).pipeline.tokenizer)
    images, captions, latency, notes = [], [], 0.0, {}
    for model in map(models.get, chosen):
        notes |= dict.fromkeys(model.pipeline.prompt_warnings(prompt))
        for steps in steps_of(model):
            options = {"prompt": prompt, "num_inference_steps": steps}
            drawing = draw_seeds(model, [seed], cancelled, turn=TURNS.of_batch, **options)
            if cancelled.is_set():
                return
            if drawing.problem is not None:
                raise ValueError(drawing.problem)
            images += drawing.images
            latency += drawing.latency_ms
            captions.append(f"{model.name}, {steps} step{'s' if steps > 1 else ''}, {drawing.latency_ms:,.0f} ms")
            text = f"{len(images)} image{'s' if len(images) > 1 else ''} in {latency:,.0f} ms"
            yield as_json(images, captions, text), "\n".join(notes)


def explore_latents(
    models: Models, name: object, prompt: object, seed: object, cancelled: threading.Event
) -> Iterator[Progress]:
    """Draw one image, and decode its latents before the first and after each step.

    A model that was distilled for several numbers of steps takes the most; others take their own.

    Yields:
        Progress, once.

    Raises:
        ValueError: bad input, or the model cannot draw it.
    """
    seed = check_seed(seed)
    model = choose_model(models, name)
    pipeline = model.pipeline
    prompt = check_prompt(prompt, pipeline.tokenizer)
    steps = max(distilled_steps(pipeline.scheduler) or [pipeline.config.default_num_inference_steps])
    latents = [initial_noise(model, seed)]
    options = {"prompt": prompt, "num_inference_steps": steps}
    drawing = draw_seeds(model, [seed], cancelled, turn=TURNS.of_batch, on_latents=latents.append, **options)
    if cancelled.is_set():
        return
    if drawing.problem is not None:
        raise ValueError(drawing.problem)
    images, decoding = [], 0.0
    for part in torch.cat(latents).split(MAX_FRAMES):
        with TURNS.of_batch(), torch.no_grad():
            start = time.perf_counter()
            images += pipeline.image_processor.postprocess(pipeline.decode_latents(part), output_type="pil")
            decoding += (time.perf_counter() - start) * 1000
    captions = ["noise", *(f"step {step}" for step in range(1, steps + 1))]
    text = (
        f"{model.name}, {steps} step{'s' if steps > 1 else ''} in {drawing.latency_ms:,.0f} ms; "
        f"decoding the latents took {decoding:,.0f} ms more"
    )
    yield as_json(images, captions, text), "\n".join(pipeline.prompt_warnings(prompt))
