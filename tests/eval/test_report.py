"""Sizes, the report and the grid on tiny checkpoints: counts add up, nothing is measured twice, tables land."""

import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file

import eval.benchmark.peers
import eval.clip_score
import eval.extractors.clip
import eval.measures.clip_score
import eval.measures.quality
import eval.report
import eval.reporting.records
import eval.samples.store
from eval.accuracy import main as accuracy
from eval.benchmark.size import measure_size
from eval.extractors.clip import bundled_clip
from eval.extractors.statistics import reference_statistics
from eval.fid import main as fid
from eval.generate import main as generate
from eval.grid import compose_grid
from eval.grid import main as grid
from eval.measures.frechet import measure_frechet_distance
from eval.measures.outside import measure_outside
from eval.protocol import folder_sha256, tensor_sha256
from eval.report import main as report
from eval.report import sample_counts
from eval.reporting.records import damaged
from eval.reporting.tables import DAMAGED, REAL, RECONSTRUCTED, SCALE, figures, table
from eval.samples.images import read_images, real_images
from eval.samples.pipelines import load_sampler
from eval.samples.settings import resolve_settings
from eval.samples.store import generate as generate_samples
from eval.schema import read_results
from mobilediff.checkpoints import load_pipeline
from mobilediff.export import export_pipeline
from mobilediff.model_card import RESULTS_END, RESULTS_START, model_card
from mobilediff.models.image_encoder import ImageEncoder
from tests.eval.stand_ins import random_images, write_png_folder
from tests.tiny import PROJECTION_DIM, tiny_checkpoint, tiny_pipeline, tiny_text_encoder, tiny_tokenizer

KINDS = ("student-8step", "student-1step")


@pytest.fixture(scope="module")
def checkpoints(checkpoints, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    for kind in KINDS:
        shutil.copytree(checkpoints / kind, folder / kind)
        card = model_card(kind, tiny_pipeline(kind))
        (folder / kind / "README.md").write_text(card, encoding="utf-8")
    return folder


@pytest.fixture
def clip(tmp_path, monkeypatch):
    folder = tmp_path / "clip"
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    ImageEncoder(
        stem_channels=4, block_out_channels=(8,), num_classes=None, projection_dim=PROJECTION_DIM
    ).save_pretrained(folder / "image_encoder")
    tiny_text_encoder(tokenizer).save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    monkeypatch.setattr(eval.extractors.clip, "CLIP_FOLDER", folder)


def test_generated_images_do_not_depend_on_the_batch_size(checkpoints, tmp_path):
    model = str(checkpoints / "student-1step")
    for batch_size in ("1", "6"):
        output = str(tmp_path / batch_size)
        generate(["--model", model, "--output", output, "--n", "12", "--steps", "2", "--batch-size", batch_size])
    one, six = (read_images(tmp_path / name) for name in ("1", "6"))
    # The noise is the same; a batched matrix product may round a pixel the other way.
    assert (one.images.int() - six.images.int()).abs().max() <= 1
    assert one.protocol["nfe"] == 2 and one.protocol["num_inference_steps"] == 2
    assert one.protocol["model_sha256"] == folder_sha256(checkpoints / "student-1step")


def test_a_compiled_network_draws_the_same_images_and_the_protocol_says_so(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # needs no C++ compiler
    folder = checkpoints / "student-1step"
    pipeline = load_sampler(folder)
    for compiled in (False, True):
        settings = resolve_settings(pipeline, folder, compiled=compiled)
        generate_samples(pipeline, settings, tmp_path / str(compiled), 4)
    eager, compiled = (read_images(tmp_path / name) for name in ("False", "True"))
    assert (eager.images.int() - compiled.images.int()).abs().max() <= 1
    assert compiled.protocol["compiled"] is True and eager.protocol["compiled"] is False
    assert "forward" not in vars(pipeline.unet)  # as it was
    with pytest.raises(ValueError, match="compiled is True there, False here"):
        generate(["--model", str(folder), "--output", str(tmp_path / "True"), "--n", "8"])


def test_settings_take_the_defaults_of_the_checkpoint_and_refuse_what_it_was_not_made_for(checkpoints):
    folder = checkpoints / "student-8step"
    pipeline = load_sampler(folder)
    settings = resolve_settings(pipeline, folder)
    assert (settings.num_inference_steps, settings.guidance_scale, settings.nfe) == (8, 1.0, 8)
    for bad in (
        {"num_inference_steps": 7},
        {"guidance_scale": 4.0},
        {"prompts": "verb"},
        {"dtype": "fp8"},
        {"seed": -1},
    ):
        with pytest.raises(ValueError, match=str(next(iter(bad.values())))):
            resolve_settings(pipeline, folder, **bad)


def test_the_hash_is_of_the_weights_and_not_of_the_card(checkpoints, tmp_path):
    folder = tiny_checkpoint(tmp_path / "student-1step", "student-1step")
    before = folder_sha256(folder)
    (folder / "README.md").write_text("another card")
    assert folder_sha256(folder) == before
    weights = next(folder.glob("unet/*.safetensors"))
    tensors = load_file(weights)
    next(iter(tensors.values())).flatten()[0] += 1
    save_file(tensors, weights)
    assert folder_sha256(folder) != before


def test_macs_and_parameters_add_up(tmp_path):
    pipeline = tiny_pipeline("teacher")
    pipeline.save_pretrained(tmp_path)
    size = measure_size(pipeline, tmp_path)
    assert size["nfe"] == 100 and size["guidance_scale"] == 3.0
    assert (
        size["macs_image"]
        == 100 * size["macs_network_call"] + size["macs_vae_decoder"] + 2 * size["macs_text_encoder"]
    )
    used = [pipeline.unet, pipeline.text_encoder, pipeline.vae.decoder, pipeline.vae.post_quant_conv]
    assert size["params_total"] == sum(p.numel() for module in used for p in module.parameters())
    assert size["weights_bytes"] == sum(path.stat().st_size for path in tmp_path.glob("*/*.safetensors"))


def test_report_measures_once_and_fills_the_tables(checkpoints, judge, clip, tmp_path, monkeypatch, capsys):
    readme, results = tmp_path / "README.md", tmp_path / "results.json"
    readme.write_text(f"# Title\n{RESULTS_START}\nold\n{RESULTS_END}\nrest\n")
    monkeypatch.setattr(eval.reporting.records, "real_images", lambda data, split: random_images(40))
    monkeypatch.setattr(eval.measures.clip_score, "real_images", lambda data, split: random_images(40))
    arguments = ["--checkpoints", str(checkpoints), "--readme", str(readme), "--results", str(results)]
    arguments += ["--samples", str(tmp_path / "samples"), "--n", "20", "student-8step=10", "--data", "stand-in"]
    arguments += ["--only", "size,distance,quality,clip"]
    monkeypatch.setattr(eval.measures.quality, "real_images", lambda data, split: random_images(120, 9))
    report(arguments)
    records = json.loads(results.read_text())["records"]
    assert set(records) == {*KINDS, *SCALE}
    assert records["student-8step"]["frechet_distance"]["n"] == 10 and records["student-1step"]["clip"]["n"] == 20
    assert (
        records[DAMAGED]["frechet_distance"]["frechet_distance_judge"]
        > records[REAL]["frechet_distance"]["frechet_distance_judge"]
    )
    text = readme.read_text()
    assert text.startswith("# Title\n") and text.endswith("\nrest\n") and "old" not in text
    rows = ("student-8step", "student-1step", *SCALE)
    assert sorted(rows, key=lambda row: text.index(f"| {row} |")) == list(rows)
    interval = records["student-1step"]["frechet_distance"]["intervals"]["frechet_distance_judge"]
    shown = f"{records['student-1step']['frechet_distance']['frechet_distance_judge']:.2f} ({interval['low']:.2f} to "
    assert records["student-1step"]["quality"]["copies"]["n_training"] == 120 and "| recall |" in text
    assert (tmp_path / "distance-nfe.png").exists() and not (tmp_path / "distance-latency.png").exists()
    assert shown in text and "not FID" in text
    card = (checkpoints / "student-1step" / "README.md").read_text()
    assert shown in card and "| student-8step |" not in card

    with monkeypatch.context() as patch:
        patch.setattr(eval.reporting.records, "kept_samples", lambda *args: pytest.fail("sampled again"))
        patch.setattr(eval.reporting.records, "real_images", lambda *args: pytest.fail("measured again"))
        patch.setattr(eval.reporting.records, "TrainingFeatures", lambda *args: pytest.fail("measured again"))
        report(arguments)
        assert readme.read_text() == text
        with pytest.raises(ValueError, match="5 images are too few"):
            report([*arguments, "--n", "5", "--only", "distance"])
        with pytest.raises(pytest.fail.Exception, match="sampled again"):
            report([*arguments, "--n", "30", "--only", "distance"])

    older = json.loads(results.read_text())
    for row in ("student-1step", REAL):
        assert older["records"][row]["quality"].pop("sliced_wasserstein") > 0
    results.write_text(json.dumps(older))
    report([*arguments, "--only", "quality"])
    again = json.loads(results.read_text())["records"]
    assert all(again[row]["quality"]["sliced_wasserstein"] > 0 for row in ("student-1step", REAL))

    report([*arguments, "--n", "20", "--only", "quality"])
    assert (
        "student-8step: frechet_distance was measured on other samples than the new quality" in capsys.readouterr().err
    )
    record = json.loads(results.read_text())["records"]["student-8step"]
    assert record["quality"]["n"] == 20 and "frechet_distance" not in record
    with monkeypatch.context() as patch:
        patch.setattr(
            eval.reporting.records, "kept_samples", lambda *args: pytest.fail("sampled before the data was looked for")
        )
        patch.setattr(eval.measures.quality, "real_images", real_images)
        with pytest.raises(FileNotFoundError, match="stand-in"):
            report([*arguments, "--n", "22", "--only", "quality"])
    report([*arguments, "--n", "20"])

    content = json.loads(results.read_text())
    content["records"]["student-8step"]["frechet_distance"]["protocol"]["extractor_sha256"] = "0" * 64
    results.write_text(json.dumps(content))
    report([*arguments, "--models", "student-1step", "--n", "20"])
    assert "student-8step: frechet_distance was measured with another extractor" in capsys.readouterr().err
    assert "frechet_distance" not in json.loads(results.read_text())["records"]["student-8step"]

    before = tmp_path / "before.json"
    before.write_text(json.dumps(content))
    report(["--compare", str(before), str(results)])
    assert "not comparable" not in (table := capsys.readouterr().out) and "0 of" in table


def test_files_without_markers_are_refused_before_any_work(tmp_path, checkpoints):
    good, bad = tmp_path / "good.md", tmp_path / "bad.md"
    good.write_text(f"{RESULTS_START}\n{RESULTS_END}\n")
    bad.write_text("no markers")
    with pytest.raises(ValueError, match="bad.md needs"):
        report(["--checkpoints", str(checkpoints), "--readme", str(good), str(bad)])


def test_counts_and_sections_are_checked(checkpoints):
    assert sample_counts(["teacher=2000", "500"], ["teacher", "student"], 7) == {"teacher": 2000, "student": 500}
    for bad in ("1", "x", "techer=5", "-3"):
        with pytest.raises(ValueError, match=f"--n {bad}"):
            sample_counts([bad], ["teacher"], 7)
    assert sample_counts(["teacher=5"], ["teacher", "student"], 7) == {"teacher": 5, "student": 7}
    with pytest.raises(ValueError, match="--only holds speed"):
        report(["--checkpoints", str(checkpoints), "--only", "speed"])


def test_a_model_outside_the_checkpoints_is_a_row_that_says_so(checkpoints, judge, tmp_path, monkeypatch):
    folder = tiny_checkpoint(tmp_path / "run" / "export", "student-1step")
    monkeypatch.setattr(eval.reporting.records, "real_images", lambda data, split: random_images(40))
    results = tmp_path / "results.json"
    arguments = ["--checkpoints", str(checkpoints), "--results", str(results), "--no-insert", "--n", "20"]
    arguments += ["--samples", str(tmp_path / "samples"), "--only", "size,distance", "--dtype", "bf16"]
    report([*arguments, "--models", f"outside={folder}"])
    report([*arguments, "--models", "student-1step"])  # leaves the other row
    records = json.loads(results.read_text())["records"]
    assert records["outside"]["frechet_distance"]["samples"]["model"] == "outside"
    assert records["outside"]["frechet_distance"]["samples"]["dtype"] == "bf16"
    rows = table(read_results(results).records)
    assert "| outside (its weights are not in `checkpoints/`) |" in rows and "| student-1step |" in rows
    assert "drawn in bf16" in rows
    for bad in ("student-1step=x", "=x", "outside="):
        with pytest.raises(ValueError, match="accepted are NAME=FOLDER"):
            eval.report.model_folders([bad], checkpoints)


def test_damaged_images_keep_their_labels_and_differ():
    images = random_images(10)
    other = damaged(images)
    assert bool((other.class_labels == images.class_labels).all()) and "damage" in other.protocol
    assert other.protocol["images_sha256"] == tensor_sha256(other.images) != images.protocol["images_sha256"]
    assert 10 < (other.images.float() - images.images.float()).abs().mean() < 30


def test_fid_command_draws_and_says_that_it_is_no_fid(checkpoints, judge, tmp_path, capsys):
    arguments = ["--model", str(checkpoints / "student-1step"), "--n", "20", "--samples", str(tmp_path)]
    fid([*arguments, "--extractor", "judge", "--json", str(tmp_path / "result.json")])
    printed = capsys.readouterr().out
    assert "Frechet distance (mobilediff-judge, n = 20)" in printed and "FID" not in printed and "floor" in printed
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["samples"]["model"] == "student-1step" and result["n"] == 20


def test_bad_counts_are_refused_before_anything_is_drawn(checkpoints, judge, tmp_path, monkeypatch):
    monkeypatch.setattr(eval.samples.store, "generate", lambda *args: pytest.fail("drawn"))
    model = ["--model", str(checkpoints / "student-1step"), "--samples", str(tmp_path)]
    for n in ("0", "-5", "5"):
        with pytest.raises(ValueError, match=f"{n} images are too few"):
            fid([*model, "--extractor", "judge", "--n", n])
    folder = write_png_folder(tmp_path / "images", random_images(12).images)
    for n in ("0", "-5", "13"):
        with pytest.raises(ValueError, match=f"n is {n}; accepted is 1 to 12"):
            fid(["--images", str(folder), "--extractor", "judge", "--n", n])


def test_the_other_commands_write_what_they_measure(checkpoints, judge, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(eval.measures.clip_score, "real_images", lambda data, split: random_images(20))
    samples = ["--model", str(checkpoints / "student-1step"), "--n", "20", "--samples", str(tmp_path / "samples")]
    result = tmp_path / "result.json"
    accuracy([*samples, "--prompts", "noun", "--json", str(result)])
    assert 0 <= json.loads(result.read_text())["noun_top1"] <= json.loads(result.read_text())["noun_top5"] <= 1
    eval.clip_score.main([*samples, "--data", "stand-in", "--json", str(result)])
    assert json.loads(result.read_text())["protocol"]["clip_model"] == "mobilediff-clip"


def test_the_bundled_clip_scores_images_between_minus_100_and_100(clip):
    model = bundled_clip()
    assert model.name == "mobilediff-clip"
    score = eval.measures.clip_score.clip_score(model, random_images(6).images, ["a cat", "a dog"] * 3, progress=False)
    assert -100 <= score <= 100 and score != 0


def test_the_grid_repeats_every_pixel(checkpoints, tmp_path):
    red, blue = Image.new("RGB", (2, 2), "red"), Image.new("RGB", (2, 2), "blue")
    red.putpixel((0, 1), (0, 255, 0))
    pixels = np.asarray(compose_grid([[red, blue]], scale=3))
    assert pixels.shape == (4 + 6 + 4, 2 * (6 + 4) + 4, 3)
    assert (pixels[4 + 3 : 4 + 6, 4 : 4 + 3] == (0, 255, 0)).all() and (pixels[4:7, 4:10] == (255, 0, 0)).all()
    output = tmp_path / "grid.png"
    arguments = ["--model", str(checkpoints / "student-1step"), "--output", str(output), "--prompts", "a cat", "a dog"]
    grid([*arguments, "--seeds", "0", "1", "2", "--scale", "2", "--no-labels"])
    assert Image.open(output).size == (4 + 3 * 68, 4 + 2 * 68)
    one_row = np.asarray(Image.open(output))[4:68, 4:]
    arguments[2:2] = [str(checkpoints / "student-8step")]  # a second model, a row below the first
    grid([*arguments, "--nouns", "3", "--seeds", "0", "1", "2", "--scale", "2", "--no-labels"])
    assert Image.open(output).size == (4 + 3 * 68, 4 + (2 + 3) * 2 * 68)
    both = np.asarray(Image.open(output))
    assert (both[4:68, 4:] == one_row).all() and (both[72:136, 4:] != one_row).any()
    grid([*arguments, "--nouns", "3", "--seeds", "0", "1", "2", "--scale", "2", "--no-labels", "--blocks", "2"])
    blocks, wide = np.asarray(Image.open(output)), 4 + 3 * 68  # two prompts in the first, three in the second
    assert blocks.shape[:2] == (4 + 6 * 68, 2 * wide)
    assert (blocks[: 4 + 4 * 68, :wide] == both[: 4 + 4 * 68]).all() and (blocks[4 + 4 * 68 :, :wide] == 255).all()
    assert (blocks[4:, wide:] == both[4 + 4 * 68 :]).all()
    grid([*arguments, "--nouns", "3", "--seeds", "0", "1", "2", "--scale", "2", "--no-labels", "--blocks", "4"])
    assert Image.open(output).size == (4 * wide, 4 + 4 * 68)
    with pytest.raises(ValueError, match="--blocks is 6; accepted are 1 to the number of prompts, 5"):
        grid([*arguments, "--nouns", "3", "--blocks", "6"])
    with pytest.raises(ValueError, match="accepted is a file that ends in .png"):
        grid(["--model", "any", "--output", "grid.jpg"])
    with pytest.raises(ValueError, match="--scale is 0; accepted is 1 or more"):
        grid(["--model", "any", "--output", "grid.png", "--scale", "0"])


def test_the_row_through_the_vae_is_measured_again_for_another_vae(tmp_path, judge, monkeypatch):
    folder = tiny_checkpoint(tmp_path / "checkpoints" / "student-1step", "student-1step")
    monkeypatch.setattr(eval.reporting.records, "real_images", lambda data, split: random_images(40))
    results = tmp_path / "results.json"
    arguments = ["--checkpoints", str(folder.parent), "--results", str(results), "--no-insert", "--n", "20"]
    arguments += ["--samples", str(tmp_path / "samples"), "--only", "distance", "--data", "stand-in"]
    rows = []

    def measure(measured, *args, **options):
        rows.append(measured.images.protocol.get("images", "samples"))
        return measure_frechet_distance(measured, *args, **options)

    monkeypatch.setattr(eval.reporting.records, "measure_frechet_distance", measure)
    for bias in (0.0, 0.5):
        pipeline = load_pipeline(folder)
        with torch.no_grad():
            pipeline.vae.decoder.conv_out.bias.add_(bias)
        export_pipeline(pipeline, folder)
        if bias:
            report([*arguments[:-4], "--only", "size"])
            assert "frechet_distance" not in json.loads(results.read_text())["records"][RECONSTRUCTED]
        report(arguments)
    assert len(rows) == 1 + 3 + 1 + 1 and rows[-2] == "samples" and rows[-1].endswith("reconstructed")
    assert "frechet_distance" in json.loads(results.read_text())["records"][RECONSTRUCTED]


def with_nouns(images):
    return replace(images, noun_ids=torch.arange(len(images)) * 7 % 396)


def test_nouns_are_a_section_of_their_own_and_measured_once(tmp_path, judge, monkeypatch):
    checkpoints = tmp_path / "checkpoints"
    for kind in ("teacher", "student-1step"):
        tiny_checkpoint(checkpoints / kind, kind)
    monkeypatch.setattr(eval.reporting.records, "real_images", lambda data, split: with_nouns(random_images(40)))
    results = tmp_path / "results.json"
    arguments = ["--checkpoints", str(checkpoints), "--results", str(results), "--no-insert", "--n", "20"]
    arguments += ["--samples", str(tmp_path / "samples"), "--only", "size,nouns", "--data", "stand-in"]
    arguments += ["--n-nouns", "18"]
    monkeypatch.setattr(eval.reporting.records, "resolve_settings", two_steps)
    report(arguments)
    records = json.loads(results.read_text())["records"]
    assert records["student-1step"]["nouns"]["samples"]["prompts"] == "noun"
    assert records["student-1step"]["nouns"]["n"] == 18
    assert 0 <= records["teacher"]["nouns"]["noun_top1"] <= records["teacher"]["nouns"]["noun_top5"] <= 1
    assert records[REAL]["nouns"]["noun_n"] == 40
    assert "noun top-5" in table(read_results(results).records)

    monkeypatch.setattr(eval.reporting.records, "measure_accuracy", lambda *args: pytest.fail("measured again"))
    report(arguments)
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        report([*arguments, "--n-nouns", "15"])


def two_steps(pipeline, folder, **options):
    return resolve_settings(pipeline, folder, num_inference_steps=2, **options)


def test_another_extractor_has_a_column_of_its_own(checkpoints, judge, tmp_path, monkeypatch):
    other = replace(judge, name="other", result_key="frechet_distance_other")
    monkeypatch.setattr(eval.report, "choose_extractor", lambda *args: other)
    monkeypatch.setattr(eval.reporting.records, "reference_statistics", partial(of_the_judge, judge))
    monkeypatch.setattr(eval.reporting.records, "measure_frechet_distance", partial(measured_by_the_judge, judge))
    monkeypatch.setattr(eval.reporting.records, "real_images", lambda data, split: random_images(40))
    results = tmp_path / "results.json"
    arguments = ["--checkpoints", str(checkpoints), "--results", str(results), "--no-insert", "--n", "20"]
    arguments += ["--samples", str(tmp_path / "samples"), "--only", "size,distance", "--models", "student-1step"]
    report(arguments)
    records = json.loads(results.read_text())["records"]
    assert records["student-1step"]["frechet_distance other"]["label"] == "Frechet distance (other, n = 20)"
    assert records[REAL]["figures"]["quality"].keys() >= {"Fréchet distance", "Frechet distance (other, n = 40)"}


def test_both_extractors_measure_equally_many_images_of_every_row(
    checkpoints, judge, outside, tmp_path, monkeypatch, capsys
):
    results, rows = tmp_path / "results.json", []
    monkeypatch.setattr(eval.reporting.records, "real_images", lambda data, split: random_images(40))
    arguments = ["--checkpoints", str(checkpoints), "--results", str(results), "--no-insert", "--data", "stand-in"]
    arguments += ["--samples", str(tmp_path / "samples"), "--only", "outside", "--models", *KINDS]

    def measure(measured, *args):
        rows.append(measured.images.protocol.get("model", "for scale"))
        return measure_outside(measured, *args)

    monkeypatch.setattr(eval.reporting.records, "measure_outside", measure)
    report([*arguments, "--n-outside", "30"])
    assert KINDS[0] == "student-8step" and rows == ["for scale"] * 3 + ["student-1step", "student-8step"]
    records = read_results(results).records
    assert {record.outside.n for record in records.values()} == {30} and set(records) == {*KINDS, *SCALE}
    assert records["student-1step"].outside.samples.model_extra["seeds"] == "0..29, one an image"
    assert records[REAL].outside.frechet_distance_judge < records[DAMAGED].outside.frechet_distance_judge
    report([*arguments, "--n-outside", "30"])
    assert len(rows) == 5  # nothing twice
    report([*arguments, "--n-outside", "20"])
    assert len(rows) == 10

    content = json.loads(results.read_text())
    content["records"]["student-1step"]["outside"]["protocol"]["extractor_sha256"] = "0" * 64
    content["records"]["student-8step"]["outside"]["protocol"]["judge_sha256"] = "0" * 64
    results.write_text(json.dumps(content))
    report([*arguments, "--only", "size"])
    assert "student-8step: outside was measured with another extractor" in capsys.readouterr().err
    report([*arguments, "--n-outside", "20"])
    assert rows[10:] == ["student-1step", "student-8step"]

    monkeypatch.setattr(eval.reporting.records, "kept_samples", lambda *args: pytest.fail("drawn"))
    for n, message in (("8", "8 images are too few"), ("41", "n is 41; accepted is 1 to 40")):
        with pytest.raises(ValueError, match=message):
            report([*arguments, "--n-outside", n])


def of_the_judge(judge, extractor, *args):
    return reference_statistics(judge, *args)


def measured_by_the_judge(judge, images, extractor, **options):
    measured = measure_frechet_distance(images, judge, **options)
    for part in (measured, measured["intervals"]):
        part[extractor.result_key] = part.pop(judge.result_key)
    return measured | {"protocol": measured["protocol"] | extractor.protocol()}


def test_peers_are_rows_of_random_weights(checkpoints, tmp_path, monkeypatch):
    tiny = {"sample_size": 8, "block_out_channels": (4,), "norm_num_groups": 2, "attention_head_dim": 2}
    tiny |= {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "cross_attention_dim": 4}
    peer = eval.benchmark.peers.PeerConfig("owner/tiny", UNet2DConditionModel, tiny)
    monkeypatch.setattr(eval.benchmark.peers, "PEERS", {"sd-1.5-unet": peer})
    results = tmp_path / "results.json"
    arguments = ["--checkpoints", str(checkpoints), "--results", str(results), "--no-insert", "--only", "size,latency"]
    report([*arguments, "--models", "student-1step", "--peers", "sd-1.5-unet"])
    records = json.loads(results.read_text())["records"]
    assert records["sd-1.5-unet"]["peer"] == "owner/tiny" and "image" not in records["sd-1.5-unet"]["latency"]
    assert records["student-1step"]["latency"]["protocol"]["interleaved_with"] == ["student-1step", "sd-1.5-unet"]
    kept = read_results(results).records
    rows = table(kept)
    assert "| sd-1.5-unet (random weights) |" in rows and "configuration of owner/tiny" in rows
    assert figures(kept["sd-1.5-unet"])["quality"] == {}
    with monkeypatch.context() as patch:
        patch.setattr(eval.reporting.records, "measure_latency", lambda *args: pytest.fail("measured again"))
        report([*arguments, "--models", "student-1step", "--peers", "sd-1.5-unet"])


def test_latencies_of_another_machine_are_measured_again(checkpoints, tmp_path):
    results = tmp_path / "results.json"
    arguments = ["--checkpoints", str(checkpoints), "--results", str(results), "--no-insert", "--only", "size,latency"]
    report([*arguments, "--models", "student-1step"])
    content = json.loads(results.read_text())
    there = content["records"]["student-1step"]["latency"]["protocol"]
    here = there["device_name"]
    there["device_name"] = "another machine"
    results.write_text(json.dumps(content))
    report([*arguments, "--models", "student-1step"])
    latency = json.loads(results.read_text())["records"]["student-1step"]["latency"]
    assert latency["protocol"]["device_name"] == here


def test_throughput_is_of_every_batch_size_and_not_measured_twice(checkpoints, tmp_path, monkeypatch):
    results = tmp_path / "results.json"
    arguments = [
        "--checkpoints",
        str(checkpoints),
        "--results",
        str(results),
        "--no-insert",
        "--only",
        "size,throughput",
    ]
    arguments += ["--models", "student-1step"]
    report([*arguments, "--batch-sizes", "4", "2"])
    record = json.loads(results.read_text())["records"]["student-1step"]
    assert [batch["protocol"]["batch_size"] for batch in record["throughput"]["batches"]] == [2, 4]
    assert all(batch["image"]["peak_memory_bytes"] > 0 for batch in record["throughput"]["batches"])
    assert record["figures"]["cost"].keys() >= {"images/s, batch 4", "peak memory, batch 4 (MB)"}
    with monkeypatch.context() as patch:
        patch.setattr(
            eval.reporting.records, "measure_latency", lambda *args, **options: pytest.fail("measured again")
        )
        report([*arguments, "--batch-sizes", "2", "4"])
        with pytest.raises(pytest.fail.Exception, match="measured again"):
            report([*arguments, "--batch-sizes", "2"])
    with pytest.raises(ValueError, match="batch_size is 65"):
        report([*arguments, "--batch-sizes", "65"])
