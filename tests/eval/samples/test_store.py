"""Sampling to disk: balanced, resumable, the same whatever the batch size, and never mixed with another protocol."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from eval.generate import main as command
from eval.samples.draw import batches_of, draw_samples
from eval.samples.images import read_images
from eval.samples.pipelines import load_sampler
from eval.samples.prompts import commonest_nouns, noun_counts, plan_samples, write_noun_counts
from eval.samples.settings import resolve_settings
from eval.samples.store import drawing_alone, generate, kept_samples, open_store
from mobilediff.captions import CLASS_NAMES, load_nouns
from mobilediff.files import read_json
from tests.eval.stand_ins import NoisePipeline, noise_settings, random_images
from tests.tiny import MAX_TOKENS


def test_class_plan_is_balanced_and_noun_plan_names_nouns_of_the_class():
    plan = plan_samples(200, "class", "{article} {noun}")
    assert set(Counter(plan.class_labels).values()) == {20}
    assert plan.prompts[:2] == ["an airplane", "an automobile"] and plan.noun_ids is None
    plan = plan_samples(1000, "noun", "a photo of a {}")
    nouns = list(load_nouns().items())
    for prompt, label, noun_id in zip(plan.prompts, plan.class_labels, plan.noun_ids, strict=True):
        assert nouns[noun_id] == (prompt.removeprefix("a photo of a "), label)


def test_nouns_are_asked_for_as_often_as_test_images_show_them():
    nouns, counts = list(load_nouns().items()), noun_counts()
    for n in (1000, 10000):
        plan = plan_samples(n, "noun", "{}")
        asked = Counter(plan.noun_ids)
        for label in range(10):
            of_class = {i: counts[noun] for i, (noun, cls) in enumerate(nouns) if cls == label and noun in counts}
            for noun_id, count in of_class.items():
                assert asked[noun_id] == pytest.approx(n / 10 * count / sum(of_class.values()), abs=3)
    assert plan_samples(1000, "noun", "{}").noun_ids == plan.noun_ids[:1000]


def test_the_commonest_nouns_are_of_each_class_in_turn():
    classes, others = load_nouns(), {noun: n for noun, n in noun_counts().items() if noun not in CLASS_NAMES}
    nouns = commonest_nouns(len(others))
    assert sorted(nouns) == sorted(others) and commonest_nouns(0) == []
    assert [classes[noun] for noun in nouns[:10]] == list(range(10))
    for label in range(10):
        counts = [others[noun] for noun in nouns if classes[noun] == label]
        assert counts == sorted(counts, reverse=True)
    with pytest.raises(ValueError, match=f"{len(others) + 1} nouns; accepted are 0 to {len(others)}"):
        commonest_nouns(len(others) + 1)


def test_counted_nouns_are_those_of_the_images(tmp_path):
    images = replace(random_images(6), noun_ids=torch.tensor([3, -1, 5, 3, 3, -1]), protocol={"images": "six"})
    write_noun_counts(images, tmp_path / "counts.json")
    nouns = list(load_nouns())
    assert read_json(tmp_path / "counts.json") == {nouns[3]: 3, nouns[5]: 1}
    with pytest.raises(ValueError, match="no image has a noun"):
        write_noun_counts(replace(images, noun_ids=torch.full((6,), -1)), tmp_path / "none.json")
    assert not (tmp_path / "none.json").exists()


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


def sharded_command(folder, output) -> list[str]:
    """The command that draws on two processes, which exchange nothing but their being there, over gloo."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "--", "eval.generate", "--model", str(folder), "--output", str(output), "--n", "40"]
    return [*command, "--steps", "20", "--batch-size", "1"]


@pytest.mark.parametrize("output", ["set", "set.npz"])
def test_two_interrupted_and_resumed_processes_write_the_images_of_one(checkpoints, tmp_path, output):
    folder, output = checkpoints / "student", tmp_path / output
    batches = output if output.suffix != ".npz" else tmp_path / "set.npz.parts"
    environment = {**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}

    def drawn():
        return sorted(path.name for path in batches.glob("[0-9]*"))

    with subprocess.Popen(sharded_command(folder, output), env=environment, stderr=subprocess.DEVNULL) as interrupted:
        deadline = time.monotonic() + 600
        while len(drawn()) < 4 and interrupted.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        interrupted.terminate()
        interrupted.wait(60)
    before = drawn()
    assert 4 <= len(before) < 40 and not read_json(open_store(output).manifest)["complete"]
    assert {int(name[:6]) % 2 for name in before} == {0, 1}  # of both processes
    times = {name: (batches / name).stat().st_mtime_ns for name in before} if output.suffix != ".npz" else {}
    finished = subprocess.run(
        sharded_command(folder, output), env=environment, capture_output=True, text=True, timeout=600
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert {name: (output / name).stat().st_mtime_ns for name in times} == times  # none is drawn twice
    pipeline = load_sampler(folder)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the processes: a sum over more threads may round a pixel the other way
    generate(pipeline, resolve_settings(pipeline, folder, num_inference_steps=20), tmp_path / "whole.npz", 40, 1)
    torch.set_num_threads(threads)
    whole, sharded = read_images(tmp_path / "whole.npz"), read_images(output)
    assert torch.equal(whole.images, sharded.images) and whole.prompts == sharded.prompts
    assert sharded.protocol["complete"] and sharded.protocol["nfe"] == 40


def test_samples_in_other_words_with_another_scheduler_and_guidance_in_an_interval(checkpoints, tmp_path, capsys):
    folder = checkpoints / "teacher"
    options = ["--model", str(folder), "--n", "10", "--steps", "4", "--prompts", "noun"]
    command(
        [*options, "--output", str(tmp_path / "set"), "--template", "AN OLD {noun}!!"]
        + ["--scheduler", "UniPCMultistepScheduler", "--interval", "0.3", "0.8"]
    )
    images = read_images(tmp_path / "set")
    assert images.prompts[0].startswith("AN OLD ") and images.prompts[0].endswith("!!")
    assert images.protocol["scheduler"] == "UniPCMultistepScheduler"
    assert images.protocol["guidance_interval"] == [0.3, 0.8]
    assert images.protocol["nfe"] == 4 + 2  # of the timesteps 999, 749, 499, 249 two are between 300 and 800
    with pytest.raises(
        ValueError, match="scheduler is 'NoScheduler'; accepted for this checkpoint are .*DDIMScheduler"
    ):
        command([*options, "--output", str(tmp_path / "other"), "--scheduler", "NoScheduler"])
    no_place = "has no place for the noun"
    for template, message in (
        ("an old one", no_place),
        ("a zebra", no_place),
        ("{adjective} {noun}", "cannot be filled"),
    ):
        with pytest.raises(SystemExit):
            command([*options, "--output", str(tmp_path / "other"), "--template", template])
        assert message in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_an_output_that_cannot_hold_samples_is_refused_before_a_model_is_loaded(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "set.txt").touch()
    for output, named in (
        ("", "--output is empty; accepted is a folder"),
        (tmp_path / "pipe", "pipe; accepted is a folder"),
        (tmp_path / "set.txt", "set.txt; accepted is a folder"),
        (tmp_path / "folder.npz", "folder.npz is a folder; accepted is a file"),
    ):
        with pytest.raises((ValueError, OSError), match=named):
            command(["--model", "nowhere", "--output", str(output), "--n", "10"])


def test_an_upper_case_suffix_is_an_npz_file(tmp_path):
    generate(NoisePipeline(), noise_settings(), tmp_path / "set.NPZ", 10, 10)
    assert (tmp_path / "set.NPZ").is_file() and len(read_images(tmp_path / "set.NPZ")) == 10


def test_interrupted_samples_of_a_measurement_are_kept_and_go_on(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        kept_samples(NoisePipeline(fail_after=2), noise_settings(), 30, 10, tmp_path)
    again = NoisePipeline()
    images = kept_samples(again, noise_settings(), 30, 10, tmp_path)
    whole = kept_samples(NoisePipeline(), noise_settings(), 30, 30, tmp_path / "whole")
    assert again.batches == [10] and torch.equal(images.images, whole.images)


@pytest.mark.parametrize("damage", ["npz", "json"])
def test_damaged_samples_of_a_measurement_are_drawn_again(tmp_path, capsys, damage):
    whole = kept_samples(NoisePipeline(), noise_settings(), 20, 10, tmp_path)
    (file,) = tmp_path.glob(f"noise-*.{damage}")
    file.write_bytes(file.read_bytes()[:100])
    again = kept_samples(NoisePipeline(), noise_settings(), 20, 10, tmp_path)
    assert torch.equal(again.images, whole.images) and again.protocol["complete"]
    assert f"{file.name} is damaged, its samples are drawn again" in capsys.readouterr().err


def test_a_damaged_shard_is_drawn_again_and_the_others_are_kept(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        kept_samples(NoisePipeline(fail_after=2), noise_settings(), 30, 10, tmp_path)
    first, second = sorted(tmp_path.glob("*.parts/*.npz"))
    second.write_bytes(b"PK")
    again = NoisePipeline()
    assert len(kept_samples(again, noise_settings(), 30, 10, tmp_path)) == 30
    assert again.batches == [10, 10]


def test_a_second_command_waits_for_the_first_and_draws_nothing_twice(tmp_path, capsys):
    begun, go_on = threading.Event(), threading.Event()

    class Waiting(NoisePipeline):
        def __call__(self, **arguments):
            begun.set()
            assert go_on.wait(60)
            return super().__call__(**arguments)

    first, second, sets = Waiting(), NoisePipeline(), []

    def keep(pipeline):
        sets.append(kept_samples(pipeline, noise_settings(), 20, 10, tmp_path))

    threads = [threading.Thread(target=keep, args=(pipeline,)) for pipeline in (first, second)]
    threads[0].start()
    assert begun.wait(60)
    threads[1].start()
    threads[1].join(0.5)
    assert threads[1].is_alive() and not second.batches
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert first.batches == [10, 10] and second.batches == []
    assert torch.equal(sets[0].images, sets[1].images)
    assert "another command draws into" in capsys.readouterr().err


def hold_lock(output, held, release):
    with drawing_alone(output):
        held.set()
        release.wait(60)


def test_a_command_waits_for_another_process_that_draws_into_its_folder(tmp_path, capsys):
    context, output, pipeline = multiprocessing.get_context("spawn"), tmp_path / "set", NoisePipeline()
    held, release = context.Event(), context.Event()
    other = context.Process(target=hold_lock, args=(output, held, release))
    other.start()
    assert held.wait(120)
    drawing = threading.Thread(target=generate, args=(pipeline, noise_settings(), output, 10))
    drawing.start()
    drawing.join(0.5)
    assert drawing.is_alive() and not pipeline.batches and not output.exists()
    release.set()
    other.join(60)
    drawing.join(60)
    assert pipeline.batches == [10] and len(read_images(output)) == 10 and other.exitcode == 0
    assert f"another command draws into {output}: waiting for it" in capsys.readouterr().err


def test_prompts_that_the_model_cuts_off_are_refused(checkpoints, tmp_path):
    options = ["--model", str(checkpoints / "student-1step"), "--n", "10", "--output", str(tmp_path / "set")]
    with pytest.raises(
        ValueError, match=f"the prompt '(a photo of )+airplane' has .* tokens, but .* reads {MAX_TOKENS}"
    ):
        command([*options, "--template", "a photo of " * 10 + "{noun}"])
    assert not list((tmp_path / "set").glob("*"))
    command([*options, "--template", "a photo of " * 3 + "{noun}"])
    assert len(read_images(tmp_path / "set")) == 10


def test_a_compiled_network_gets_batches_of_one_size():
    assert batches_of(list(range(5)), 2, compiled=False) == [[0, 1], [2, 3], [4]]
    assert batches_of(list(range(5)), 2, compiled=True) == [[0, 1], [2, 3], [4, 4]]
    assert batches_of(list(range(3)), 5, compiled=True) == [[0, 1, 2]] and batches_of([], 5, compiled=True) == []
    plan = plan_samples(5, "class", "a photo of a {}")
    drawn = [
        list(draw_samples(NoisePipeline(), noise_settings(compiled=compiled), plan, list(range(5)), 2))
        for compiled in (True, False)
    ]
    assert [indices for indices, _ in drawn[0]] == [[0, 1], [2, 3], [4]]
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(*drawn, strict=True))
