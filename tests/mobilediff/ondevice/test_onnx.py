"""Folders exported to ONNX: equal to PyTorch, whole or refused."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from eval.samples.pipelines import load_sampler
from mobilediff.files import read_json, write_json
from mobilediff.ondevice import export, parity
from mobilediff.ondevice.difference import ACCEPTED, measure_parity
from mobilediff.ondevice.exported import ExportedPipeline, load_exported
from mobilediff.ondevice.manifest import describe_file, read_manifest
from tests.tiny import MAX_TOKENS, tiny_checkpoint

onnx = pytest.importorskip("onnx", reason="the extra ondevice is not installed: pip install '.[ondevice]'")
pytest.importorskip("onnxruntime", reason="the extra ondevice is not installed: pip install '.[ondevice]'")
pytest.importorskip("onnxscript", reason="the extra ondevice is not installed: pip install '.[ondevice]'")

FORMS = {"one-step": ("student-1step", "fp16"), "loop": ("student-8step", "fp32")}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Checkpoints, and their exports by the names of `FORMS`."""
    root = tmp_path_factory.mktemp("ondevice")
    for kind in ("student-1step", "student-8step"):
        tiny_checkpoint(root / kind, kind)
    for name, (kind, precision) in FORMS.items():
        options = ["--format", "onnx", "--precision", precision, "--output", str(root / name)]
        batch = ["--batch-size", "2"] if name == "loop" else []
        export.main(["--model", str(root / kind), *options, *batch])
    return root


@pytest.fixture
def folder(root, tmp_path) -> Path:
    """An export that the test may damage."""
    return Path(shutil.copytree(root / "one-step", tmp_path / "one-step"))


@pytest.mark.parametrize("name", FORMS)
def test_pictures_are_the_pipelines(root, name):
    kind, precision = FORMS[name]
    prompts = ["a photo of a cat", "a ship", "a deer"]  # more than a batch, and not a multiple of it
    generators = [[torch.Generator().manual_seed(seed) for seed in range(3)] for _ in range(2)]
    expected = load_sampler(root / kind)(prompts, generator=generators[0], output_type="np").images
    images = load_exported(root / name, threads=1)(prompts, generators[1]).images
    np.testing.assert_allclose(images, expected, atol=ACCEPTED[precision] / 2)


def test_parity_passes_on_equal_pictures_and_states_the_difference(root, capsys):
    parity.main(["--model", str(root / "student-8step"), "--exported", str(root / "loop"), "--images", "4"])
    assert "largest with noun table" in capsys.readouterr().out


def test_the_manifest_states_shapes_parity_and_every_file(root):
    manifest = read_manifest(root / "loop")
    assert [entry.name for entry in manifest.graphs] == ["text_encoder", "network", "decoder"]
    assert manifest.graph("decoder").outputs[0].shape == [2, 3, 32, 32]
    assert manifest.parity.largest < 1e-4 and manifest.parity.images == 8
    there = {path.relative_to(root / "loop").as_posix() for path in (root / "loop").rglob("*") if path.is_file()}
    assert {file.path for file in manifest.files} | {"manifest.json", "README.md"} == there
    assert len(manifest.nouns.names) == 396


def test_half_precision_halves_the_weights(root):
    file = root / "one-step" / "image.onnx"
    checkpoint = load_sampler(root / "student-1step")
    parameters = [*checkpoint.unet.parameters(), *checkpoint.vae.decoder.parameters()]
    types = Counter(onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in onnx.load(file).graph.initializer)
    assert types["FLOAT16"] > 50
    assert file.stat().st_size < 3 * sum(parameter.numel() for parameter in parameters)


@pytest.mark.parametrize(("name", "tolerance"), [("loop", 1e-5), ("one-step", 0.5 / 127)])
def test_nouns_of_the_table_are_encoded_as_the_text_encoder_does(root, name, tolerance):
    exported = load_exported(root / name, threads=1)
    for noun, prompt in (("airbus", "a photo of an airbus"), ("trailer truck", "a photo of a trailer truck")):
        by_table, by_encoder = exported.noun_embeddings[noun], exported.encode(prompt)
        for found, expected in zip(by_table, by_encoder, strict=True):
            largest = np.abs(expected).max(axis=-1, keepdims=True)
            assert (np.abs(found - expected) <= 1.1 * tolerance * largest).all()


def test_a_prompt_over_the_limit_is_refused(root):
    with pytest.raises(ValueError, match=f"has 25 tokens; accepted are {MAX_TOKENS}, start and end included"):
        load_exported(root / "one-step", threads=1)("a photo of " + "a cat " * 10)


@pytest.mark.parametrize(
    ("typed", "read"), [("a cat<|endoftext|>a dog", "a cat a dog"), ("a c\u200bat", "a cat"), ("a cat", "a cat")]
)
def test_marks_of_the_tokenizer_and_invisible_characters_are_not_read(root, typed, read):
    exported = load_exported(root / "one-step", threads=1)
    for found, expected in zip(exported.encode(typed), exported.encode(read), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_half_of_a_surrogate_pair_is_refused(root):
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        load_exported(root / "one-step", threads=1).encode("a \ud83d")


@pytest.mark.parametrize("threads", [0, 100_000])
def test_no_thread_and_too_many_are_refused(root, threads):
    with pytest.raises(ValueError, match=f"threads is {threads}; accepted is 1 to 1024"):
        load_exported(root / "one-step", threads)


def test_a_truncated_file_is_refused(folder):
    file = folder / "image.onnx"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="image.onnx has .* bytes"):
        load_exported(folder, threads=1)


def test_a_changed_file_of_the_same_size_is_refused(folder):
    file = folder / "tokenizer" / "tokenizer.json"
    file.write_bytes(file.read_bytes()[:-1] + b" ")
    with pytest.raises(ValueError, match="tokenizer.json is not the file"):
        load_exported(folder, threads=1)


def test_a_missing_file_is_refused(folder):
    (folder / "nouns.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="nouns.safetensors is missing"):
        load_exported(folder, threads=1)


def test_a_folder_of_another_version_is_refused(folder):
    write_json(folder / "manifest.json", read_json(folder / "manifest.json") | {"version": 2})
    with pytest.raises(ValueError, match="is of version 2; accepted is 1"):
        load_exported(folder, threads=1)


def test_a_manifest_without_a_field_is_refused(folder):
    content = read_json(folder / "manifest.json")
    del content["steps"]
    write_json(folder / "manifest.json", content)
    with pytest.raises(ValueError, match="manifest.json: steps: Field required"):
        load_exported(folder, threads=1)


def without_image(content):
    content["graphs"].pop()


def with_a_further_step(content):
    content["steps"] *= 2


def of_two_steps(content):
    content["steps"] = [content["steps"][0] | {"noise_scale": 0.5}, *content["steps"]]
    content["num_inference_steps"] = 2


def of_batch_2(content):
    content["batch_size"] = 2


def of_longer_prompts(content):
    content["max_tokens"] += 1


def without_inputs(content):
    content["graphs"][1]["inputs"] = []


def with_another_name(content):
    content["graphs"][1]["inputs"][0]["name"] = "latents"


def with_another_dtype(content):
    content["graphs"][0]["inputs"][0]["dtype"] = "float32"


def in_another_order(content):
    content["graphs"][0]["outputs"].reverse()


def of_a_float_table(content):
    content["nouns"]["dtype"] = "float32"


def of_wider_text(content):
    content["graphs"][0]["outputs"][0]["shape"][-1] += 1
    content["graphs"][1]["inputs"][1]["shape"][-1] += 1


def of_another_text_encoder(content):
    content["graphs"][0]["outputs"][0]["shape"][-1] += 1


def of_flat_noise(content):
    content["graphs"][1]["inputs"][0]["shape"].pop()


def of_a_batch_in_words(content):
    content["batch_size"] = "1"


def of_a_version_that_is_true(content):
    content["version"] = True


def with_a_file_elsewhere(content):
    content["files"][0]["path"] = "../image.onnx"


def without_a_noun_in_the_template(content):
    content["nouns"]["template"] = "a photo of {name}"


def with_a_number_that_is_none(content):
    content["steps"][0]["sample_scale"] = "NaN"


def with_a_further_key(content):
    content["steps"][0]["sigma"] = 0.5


def of_smaller_pictures(content):
    content["graphs"][1]["outputs"][0]["shape"][-1] -= 1


def without_a_noun(content):
    content["nouns"]["names"].pop()


def with_a_noun_twice(content):
    content["nouns"]["names"][1] = content["nouns"]["names"][0]


def without_hash_of_the_table(content):
    content["files"] = [file for file in content["files"] if file["path"] != "nouns.safetensors"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_image, "the graphs are text_encoder; accepted are text_encoder, image"),
        (with_a_further_step, "there are 2 steps"),
        (of_two_steps, r"noise is of shape \[1, 4, 16, 16\]; its steps and batch take 2 latents"),
        (of_batch_2, r"noise is of shape \[1, 4, 16, 16\]; its steps and batch take 2 latents"),
        (of_longer_prompts, rf"input_ids is of shape \[1, {MAX_TOKENS}\]; max_tokens takes \[1, {MAX_TOKENS + 1}\]"),
        (without_inputs, r"graphs.1: the inputs of image are none; accepted are noise \(float32\), hidden_states"),
        (with_another_name, r"the inputs of image are latents \(float32\), .*; accepted are noise \(float32\)"),
        (
            with_another_dtype,
            r"the inputs of text_encoder are input_ids \(float32\); accepted are input_ids \(int32\)",
        ),
        (in_another_order, r"the outputs of text_encoder are pooled .*; accepted are hidden_states .*, pooled"),
        (of_another_text_encoder, rf"hidden_states is of shape \[1, {MAX_TOKENS}, 16\]; text encoder and batch give"),
        (of_flat_noise, r"noise is of shape \[1, 4, 16\]; its steps and batch take 1 latents"),
        (of_a_batch_in_words, "batch_size is '1': Input should be a valid integer"),
        (of_a_version_that_is_true, "is of version True; accepted is 1"),
        (with_a_file_elsewhere, "files.0.path is '../image.onnx': accepted is a path inside the folder"),
        (without_a_noun_in_the_template, "nouns.template is 'a photo of {name}': accepted is a sentence with {noun}"),
        (with_a_number_that_is_none, "steps.0.sample_scale is 'NaN': Input should be a valid number"),
        (with_a_further_key, "steps.0.sigma is 0.5: Extra inputs are not permitted"),
        (
            of_a_float_table,
            "nouns.safetensors cannot be loaded: it holds .*rows_scale; a table in float32 index, pooled, rows;",
        ),
        (of_wider_text, r"text_encoder.onnx has outputs of shapes \[.*, manifest.json states \["),
        (of_smaller_pictures, r"image.onnx has outputs of shapes \[.*, manifest.json states \["),
        (without_a_noun, "nouns.safetensors has 396 nouns, manifest.json names 395"),
        (with_a_noun_twice, "two nouns have one name"),
        (without_hash_of_the_table, "lists no size and hash of nouns.safetensors"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(folder, change, message):
    content = read_json(folder / "manifest.json")
    change(content)
    write_json(folder / "manifest.json", content)
    with pytest.raises(ValueError, match=message):
        load_exported(folder, threads=1)


def replace(folder, path, content):
    """Replace a file, and its size and hash in the manifest."""
    (folder / path).write_bytes(content)
    manifest = read_json(folder / "manifest.json")
    files = [describe_file(folder, file["path"]).model_dump() for file in manifest["files"]]
    write_json(folder / "manifest.json", manifest | {"files": files})


def test_a_loop_whose_steps_draw_fresh_noise_is_refused(root, tmp_path):
    folder = Path(shutil.copytree(root / "loop", tmp_path / "loop"))
    content = read_json(folder / "manifest.json")
    content["steps"][0]["noise_scale"] = 0.5
    write_json(folder / "manifest.json", content)
    with pytest.raises(ValueError, match="steps draw fresh noise outside of a fused graph"):
        load_exported(folder, threads=1)


def test_an_empty_file_is_refused(folder):
    (folder / "image.onnx").write_bytes(b"")
    with pytest.raises(ValueError, match="image.onnx has 0 bytes"):
        load_exported(folder, threads=1)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("pooled_scale", lambda values: values * np.nan, "cannot be loaded: its pooled are not finite"),
        ("rows", lambda values: values[:, :-1], r"has embeddings of shapes \[\[.*15\], .*, manifest.json states \[\["),
        ("rows", lambda values: values.half(), "cannot be loaded: its rows are float16, manifest.json states int8"),
        ("index", lambda values: values + len(values) * MAX_TOKENS, "cannot be loaded: index .* out of bounds"),
    ],
)
def test_a_noun_table_of_other_values_is_refused(folder, name, change, message):
    tensors = load_file(folder / "nouns.safetensors")
    changed = save(tensors | {name: change(tensors[name]).contiguous()})
    replace(folder, "nouns.safetensors", changed)
    with pytest.raises(ValueError, match=f"nouns.safetensors {message}"):
        load_exported(folder, threads=1)


def test_pictures_that_are_not_finite_are_refused(root, monkeypatch):
    exported = load_exported(root / "one-step", threads=1)
    monkeypatch.setattr(ExportedPipeline, "draw", lambda *_: np.full((2, 3, 32, 32), np.nan, dtype=np.float32))
    with pytest.raises(ValueError, match="a picture of student-1step in onnx and fp16 is not finite"):
        measure_parity(load_sampler(root / "student-1step"), exported, 2)


def test_a_graph_of_another_export_is_refused(folder):
    replace(folder, "image.onnx", (folder / "text_encoder.onnx").read_bytes())
    with pytest.raises(ValueError, match=rf"image.onnx has inputs of shapes \[\[1, {MAX_TOKENS}\]\], manifest"):
        load_exported(folder, threads=1)


@pytest.mark.parametrize("path", ["image.onnx", "nouns.safetensors", "tokenizer/tokenizer.json"])
def test_a_damaged_file_that_the_manifest_describes_is_named(folder, path):
    replace(folder, path, (folder / path).read_bytes()[:100])
    with pytest.raises(ValueError, match=f"{path.split('/')[0]} cannot be loaded: .*; export it again"):
        load_exported(folder, threads=1)


def test_steps_that_the_checkpoint_is_not_for_are_refused_before_any_work(root, tmp_path):
    command = ["--model", str(root / "student-1step"), "--format", "onnx", "--output", str(tmp_path / "onnx")]
    with pytest.raises(ValueError, match="num_inference_steps is 3"):
        export.main([*command, "--steps", "3"])
    assert not list(tmp_path.iterdir())


def test_a_folder_without_manifest_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no exported folder"):
        load_exported(tmp_path, threads=1)


def test_another_checkpoint_than_the_exported_one_is_refused(root):
    with pytest.raises(ValueError, match="accepted is the checkpoint that was exported"):
        parity.main(["--model", str(root / "student-8step"), "--exported", str(root / "one-step")])


def test_parity_fails_where_the_pictures_differ(root, folder):
    # holds 8-bit text to fp32's 1e-4
    write_json(folder / "manifest.json", read_json(folder / "manifest.json") | {"precision": "fp32"})
    with pytest.raises(SystemExit, match="accepted in fp32 is 0.0001"):
        parity.main(["--model", str(root / "student-1step"), "--exported", str(folder), "--images", "4"])


def test_an_output_folder_with_other_files_stays(root, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="no exported folder"):
        export.main(["--model", str(root / "student-1step"), "--format", "onnx", "--output", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_output_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="onnx cannot be written"):
        export.main(["--model", "nowhere", "--format", "onnx", "--output", str(tmp_path / "file" / "onnx")])


def test_a_failed_export_leaves_the_older_one(root, folder, monkeypatch):
    before = read_manifest(folder)
    monkeypatch.setattr("mobilediff.ondevice.folder.measure_parity", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export.main(["--model", str(root / "student-1step"), "--format", "onnx", "--output", str(folder)])
    assert read_manifest(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
