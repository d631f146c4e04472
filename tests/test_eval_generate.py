"""Sampling to disk: balanced, resumable, the same whatever the batch size, and never mixed with another protocol."""

from collections import Counter

import numpy as np
import pytest

from eval.generate import generate
from eval.images import read_images
from eval.inputs import kept_samples
from eval.sampling import plan_samples
from mobilediff.captions import load_nouns
from tests.eval_stand_ins import NoisePipeline, noise_settings


def test_class_plan_is_balanced_and_noun_plan_names_nouns_of_the_class():
    plan = plan_samples(200, "class", "{article} {noun}")
    assert set(Counter(plan.class_labels).values()) == {20}
    assert plan.prompts[:2] == ["an airplane", "an automobile"] and plan.noun_ids is None
    plan = plan_samples(1000, "noun", "a photo of a {}")
    nouns = list(load_nouns().items())
    for prompt, label, noun_id in zip(plan.prompts, plan.class_labels, plan.noun_ids, strict=True):
        assert nouns[noun_id] == (prompt.removeprefix("a photo of a "), label)
    assert set(plan.noun_ids) == set(range(len(nouns)))


@pytest.mark.parametrize("n", [0, -5, 10**9])
def test_bad_counts_are_refused(n):
    with pytest.raises(ValueError, match=f"n is {n}"):
        plan_samples(n, "class", "{}")


@pytest.mark.parametrize("output", ["set", "set.npz"])
def test_images_do_not_depend_on_the_batch_size(tmp_path, output):
    sets = []
    for batch_size in (1, 7, 20):
        file = tmp_path / f"{batch_size}-{output}"
        generate(NoisePipeline(), noise_settings(), file, 20, batch_size)
        sets.append(read_images(file))
    assert all(bool((one.images == sets[0].images).all()) for one in sets)
    assert sets[0].class_labels.tolist() == [index % 10 for index in range(20)]
    assert sets[0].prompts[3] == "a photo of a cat"
    assert sets[0].protocol["nfe"] == 1 and sets[0].protocol["n"] == 20


@pytest.mark.parametrize("output", ["set", "set.npz"])
def test_resumed_equals_uninterrupted_and_does_not_draw_twice(tmp_path, output):
    whole, interrupted = tmp_path / f"whole-{output}", tmp_path / f"interrupted-{output}"
    generate(NoisePipeline(), noise_settings(), whole, 25, 4)
    with pytest.raises(KeyboardInterrupt):
        generate(NoisePipeline(fail_after=3), noise_settings(), interrupted, 25, 4)
    if interrupted.suffix != ".npz":
        with pytest.raises(ValueError, match="holds 12 images but its manifest.json speaks of 25"):
            read_images(interrupted)
    second = NoisePipeline()
    generate(second, noise_settings(), interrupted, 25, 5)
    assert sum(second.batches) == 25 - 12
    if whole.suffix == ".npz":
        first, resumed = np.load(whole), np.load(interrupted)
        assert all((first[name] == resumed[name]).all() for name in first.files)
    else:
        names = [path.name for path in sorted(whole.iterdir())]
        assert names == [path.name for path in sorted(interrupted.iterdir())]
        assert all((whole / name).read_bytes() == (interrupted / name).read_bytes() for name in names)
    third = NoisePipeline()
    generate(third, noise_settings(), interrupted, 25, 5)
    assert third.batches == []


def test_a_larger_n_continues_and_a_smaller_one_is_refused(tmp_path):
    generate(NoisePipeline(), noise_settings(), tmp_path / "set", 10, 10)
    more = NoisePipeline()
    generate(more, noise_settings(), tmp_path / "set", 30, 10)
    assert more.batches == [10, 10] and len(read_images(tmp_path / "set")) == 30
    with pytest.raises(ValueError, match="over n = 20"):
        generate(NoisePipeline(), noise_settings(), tmp_path / "set", 20, 10)


@pytest.mark.parametrize("output", ["set", "set.npz"])
@pytest.mark.parametrize("change", [{"seed": 1}, {"num_inference_steps": 2}, {"model_sha256": "1"}, {"dtype": "bf16"}])
def test_another_protocol_is_refused_by_name(tmp_path, output, change):
    generate(NoisePipeline(), noise_settings(), tmp_path / output, 10, 10)
    with pytest.raises(ValueError, match=f"another protocol \\({next(iter(change))} is"):
        generate(NoisePipeline(), noise_settings(**change), tmp_path / output, 20, 10)


def test_foreign_images_are_not_taken_for_samples(tmp_path):
    (tmp_path / "000000.png").write_bytes(b"somebody's picture")
    with pytest.raises(ValueError, match="their protocol is not known"):
        generate(NoisePipeline(), noise_settings(), tmp_path, 10, 10)
    (tmp_path / "cat.png").write_bytes(b"somebody's picture")
    with pytest.raises(ValueError, match="cat.png"):
        generate(NoisePipeline(), noise_settings(), tmp_path, 10, 10)


def test_kept_samples_are_drawn_once_a_protocol(tmp_path):
    def keep(n, **changes):
        pipeline = NoisePipeline()
        images = kept_samples(pipeline, noise_settings(**changes), n, 10, tmp_path)
        return images, sum(pipeline.batches)

    first, drawn = keep(20)
    assert drawn == 20
    fewer, drawn = keep(10)
    assert drawn == 0 and bool((fewer.images == first.images[:10]).all()) and fewer.protocol["n"] == 10
    assert keep(30)[1] == 10
    assert keep(20, seed=5)[1] == 20
