"""Threads that share one pipeline draw what they draw one by one."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

from mobilediff.captions import load_nouns
from mobilediff.sampling.conditioning import MAX_CACHED_PROMPTS
from tests.tiny import tiny_pipeline

THREADS = 8


def draw(pipeline, prompt: str, seed: int, steps: int, **arguments) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return pipeline(prompt, generator=generator, num_inference_steps=steps, output_type="pt", **arguments).images


def all_at_once(pipeline, jobs: list[tuple]) -> list[torch.Tensor]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda job: draw(pipeline, *job), jobs))


@pytest.mark.parametrize("scheduler", [None, DPMSolverMultistepScheduler, UniPCMultistepScheduler])
def test_calls_of_several_step_counts_at_once(scheduler):
    pipeline = tiny_pipeline("student-1step" if scheduler is None else "student")
    if scheduler is not None:
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    before = dict(vars(pipeline.scheduler))
    jobs = [("a dog", seed, (1, 2, 4)[seed % 3]) for seed in range(24)]
    one_by_one = [draw(pipeline, *job) for job in jobs]
    for image, expected in zip(all_at_once(pipeline, jobs), one_by_one, strict=True):
        assert torch.equal(image, expected)
    assert all(vars(pipeline.scheduler)[name] is value for name, value in before.items())


def test_300_prompts_at_once_leave_only_padded_embeddings():
    pipeline = tiny_pipeline("student-1step")
    nouns = list(load_nouns())[:100]
    prompts = [f"{start} {noun}" for noun in nouns for start in ("a", "a photo of a", "qqqq qqqq qqqq")]
    one_by_one = [draw(pipeline, prompt, 0, 1) for prompt in prompts]
    pipeline.forget_prompts()
    images = all_at_once(pipeline, [(prompt, 0, 1) for prompt in prompts])
    assert all(torch.equal(image, expected) for image, expected in zip(images, one_by_one, strict=True))
    assert all(torch.equal(draw(pipeline, prompts[i], 0, 1), one_by_one[i]) for i in range(0, 300, 50))  # as kept


def test_a_half_precision_vae_is_left_alone_while_another_thread_decodes():
    pipeline = tiny_pipeline("student-1step")
    pipeline.vae.to(torch.float16)
    jobs = [("a dog", seed, 1) for seed in range(24)]
    one_by_one = [draw(pipeline, *job) for job in jobs]
    assert all(torch.equal(*pair) for pair in zip(all_at_once(pipeline, jobs), one_by_one, strict=True))
    assert pipeline.vae.dtype == torch.float16


def test_what_a_callback_sets_is_of_its_own_call():
    """One call lets another run to its end while it is under way itself, with other steps and guidance."""
    pipeline = tiny_pipeline("student")
    expected = {steps: draw(pipeline, "a dog", 0, steps, guidance_scale=steps) for steps in (2, 3)}
    inside, done, seen = threading.Event(), threading.Event(), []

    def wait(pipeline, index, timestep, tensors):
        inside.set()
        assert done.wait(60)
        seen.append((pipeline.num_timesteps, pipeline.guidance_scale, pipeline.interrupt))

    def stop(pipeline, index, timestep, tensors):
        pipeline._interrupt = index == 1

    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(draw, pipeline, "a dog", 0, 2, guidance_scale=2, callback_on_step_end=wait)
        assert inside.wait(60)
        stopped = pool.submit(draw, pipeline, "a dog", 0, 5, guidance_scale=5, callback_on_step_end=stop).result()
        three = pool.submit(draw, pipeline, "a dog", 0, 3, guidance_scale=3).result()
        done.set()
        assert torch.equal(waiting.result(), expected[2]) and torch.equal(three, expected[3])
    assert seen == [(2, 2.0, False)] * 2
    assert not torch.equal(stopped, draw(pipeline, "a dog", 0, 5, guidance_scale=5))


def test_another_thread_stops_the_calls_under_way():
    pipeline, steps = tiny_pipeline("student"), []

    def interrupt(pipeline, index, timestep, tensors):
        steps.append(index)
        thread = threading.Thread(target=setattr, args=(pipeline, "_interrupt", True))
        thread.start()
        thread.join()

    draw(pipeline, "a dog", 0, 5, callback_on_step_end=interrupt)
    assert steps == [0]
    assert torch.equal(draw(pipeline, "a dog", 0, 2), draw(pipeline, "a dog", 0, 2))  # the next one runs to its end
    assert not pipeline.interrupt


def test_a_call_in_a_callback_leaves_the_outer_one_as_it_is():
    pipeline, seen = tiny_pipeline("student"), []

    def preview(pipeline, index, timestep, tensors):
        draw(pipeline, "a cat", 1, 1, guidance_scale=1)
        seen.append((pipeline.num_timesteps, pipeline.guidance_scale))

    image = draw(pipeline, "a dog", 0, 3, guidance_scale=4, callback_on_step_end=preview)
    assert seen == [(3, 4.0)] * 3
    assert torch.equal(image, draw(pipeline, "a dog", 0, 3, guidance_scale=4))


def test_one_tokenizer_in_two_pipelines():
    """As app and evaluation share one: warnings of one pipeline, text of the other."""
    first = tiny_pipeline("student-1step")
    second = type(first).from_pipe(first)
    prompts = [f"{'very ' * (i % 20)} dog {i}" for i in range(200)]
    with torch.no_grad(), ThreadPoolExecutor(THREADS) as pool:
        warned = pool.map(lambda prompt: first.prompt_warnings(prompt), prompts)
        encoded = pool.map(lambda prompt: second._encode([prompt])[0], prompts)
        assert {len(one[0]) for one in encoded} == {first.tokenizer.model_max_length} and len(list(warned)) == 200
    assert MAX_CACHED_PROMPTS > 200
