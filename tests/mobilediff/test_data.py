"""CIFAR-10 from parquet shards and python batches, and what is refused."""

import io
import pickle

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from mobilediff.captions import CLASS_NAMES, TEMPLATES, CaptionBank, caption, load_nouns
from mobilediff.data import load_cifar10
from tests.shards import write_shard

NOUNS = list(load_nouns())


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def parquet_folder(tmp_path, pixels):
    names = ["fire_truck_s_000123.png", "ostrich_s_000001.png", "unheard_of_s_000002.png"] * 2
    for shard in range(2):
        rows = slice(3 * shard, 3 * shard + 3)
        write_shard(tmp_path / f"train-0000{shard}-of-00002.parquet", pixels[rows], [9, 2, 0], names[rows])
    return tmp_path


def test_parquet_keeps_pixels_labels_and_nouns(parquet_folder, pixels):
    dataset = load_cifar10(parquet_folder)
    assert torch.equal(dataset.images, torch.from_numpy(pixels).permute(0, 3, 1, 2))
    assert dataset.labels.tolist() == [9, 2, 0] * 2
    assert dataset.noun_ids.tolist() == [NOUNS.index("fire truck"), NOUNS.index("ostrich"), -1] * 2


def test_python_batches_keep_pixels_labels_and_nouns(tmp_path, pixels):
    batch = {
        b"data": pixels.transpose(0, 3, 1, 2).reshape(6, -1),
        b"labels": [9] * 6,
        b"filenames": [b"fire_truck_s_000123.png"] * 6,
    }
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))
    dataset = load_cifar10(tmp_path, "test")
    assert torch.equal(dataset.images, torch.from_numpy(pixels).permute(0, 3, 1, 2))
    assert dataset.noun_ids.tolist() == [NOUNS.index("fire truck")] * 6


def test_python_batches_that_name_other_code_are_refused(tmp_path):
    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": io.BytesIO}))
    with pytest.raises(ValueError, match="test_batch is no CIFAR-10 batch: .*io.BytesIO"):
        load_cifar10(tmp_path, "test")


def test_a_split_that_is_not_whole_is_refused(parquet_folder, tmp_path):
    (parquet_folder / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(ValueError, match="holds 1 of 2 files of the split: train-00000-of-00002.parquet"):
        load_cifar10(parquet_folder)
    folder = tmp_path / "batches"
    folder.mkdir()
    (folder / "data_batch_3").touch()
    with pytest.raises(ValueError, match="holds 1 of 5 files of the split: data_batch_3"):
        load_cifar10(folder)


def test_a_damaged_image_is_named_by_its_row(parquet_folder):
    file = parquet_folder / "train-00001-of-00002.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[1]["img"]["bytes"] = rows[1]["img"]["bytes"][:40]
    pq.write_table(pa.Table.from_pylist(rows), file)
    with pytest.raises(ValueError, match="image 4 of the parquet shards is damaged"):
        load_cifar10(parquet_folder)


def test_resolution_64_is_lanczos(parquet_folder, pixels):
    dataset = load_cifar10(parquet_folder, resolution=64)
    expected = np.asarray(Image.fromarray(pixels[0]).resize((64, 64), Image.LANCZOS))
    assert torch.equal(dataset.images[0], torch.from_numpy(expected).permute(2, 0, 1))


def test_data_folder_from_the_environment(parquet_folder, monkeypatch):
    monkeypatch.setenv("MOBILEDIFF_DATA", str(parquet_folder))
    assert len(load_cifar10(None)) == 6


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"split": "validation"}, ValueError, "validation"),
        ({"resolution": 48}, ValueError, "48"),
        ({"source": None}, ValueError, "MOBILEDIFF_DATA"),
        ({"source": "/no/such/folder"}, FileNotFoundError, "/no/such/folder"),
        ({"split": "test"}, FileNotFoundError, r"test-\*-of-\*\.parquet"),
    ],
)
def test_bad_sources_are_named(parquet_folder, monkeypatch, arguments, error, named):
    monkeypatch.delenv("MOBILEDIFF_DATA", raising=False)
    with pytest.raises(error, match=named):
        load_cifar10(**{"source": parquet_folder, **arguments})


def test_the_hub_is_read_by_name_and_lacking_columns_are_named(monkeypatch, pixels):
    table = datasets.Dataset.from_dict(
        {"img": [Image.fromarray(image) for image in pixels[:2]], "label": [9, 3]},
        features=datasets.Features({"img": datasets.Image(), "label": datasets.Value("int64")}),
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: table)
    loaded = load_cifar10("uoft-cs/cifar10")
    np.testing.assert_array_equal(loaded.images.permute(0, 2, 3, 1).numpy(), pixels[:2])
    assert loaded.labels.tolist() == [9, 3] and loaded.noun_ids.tolist() == [-1, -1]
    table = table.rename_column("label", "class")
    with pytest.raises(ValueError, match=r"uoft-cs/cifar10 lacks the columns \['label'\]"):
        load_cifar10("uoft-cs/cifar10")


def test_nouns_ship_with_the_package():
    assert len(NOUNS) == 396
    assert set(load_nouns().values()) == set(range(10))


def test_captions_use_the_right_article():
    assert caption("fire truck", TEMPLATES[0]) == "a photo of a fire truck"
    assert caption("ostrich", TEMPLATES[0]) == "a photo of an ostrich"


def test_caption_bank_draws_nouns_classes_and_nulls():
    bank = CaptionBank()
    labels, nouns = torch.tensor([9, 2] * 500), torch.tensor([NOUNS.index("fire truck"), -1] * 500)
    generator = torch.Generator().manual_seed(0)
    texts = [bank.texts[row] for row in bank.draw(labels, nouns, generator).tolist()]
    assert set(texts[::2]) == {caption("fire truck", template) for template in TEMPLATES}
    assert set(texts[1::2]) == {caption("bird", template) for template in TEMPLATES}
    rows = bank.draw(labels, nouns, generator, class_probability=1.0, null_probability=0.25)
    dropped = (rows == bank.null_index).float().mean().item()
    assert 0.2 < dropped < 0.3
    kept = {bank.texts[row] for row in rows[::2].tolist()} - {""}
    assert kept == {caption(CLASS_NAMES[9], template) for template in TEMPLATES}


def test_phrasings_hold_their_noun_and_are_drawn_as_often_as_asked():
    bank = CaptionBank(num_phrasings=20)
    again = CaptionBank(num_phrasings=20)
    assert bank.texts == again.texts and bank.texts[-1] == ""
    names = torch.tensor([NOUNS.index("fire truck"), bank.num_nouns + 2] * 500)
    generator = torch.Generator().manual_seed(0)
    texts = [bank.texts[row] for row in bank.phrase(names, generator, phrasing_probability=0.5).tolist()]
    assert all("fire truck" in text for text in texts[::2]) and all("bird" in text for text in texts[1::2])
    plain = {caption("fire truck", template) for template in TEMPLATES}
    assert 0.4 < sum(text in plain for text in texts[::2]) / 500 < 0.6
    first = names[0] * (20 + len(TEMPLATES))
    assert set(texts[::2]) == set(bank.texts[first : first + 20 + len(TEMPLATES)])
    with pytest.raises(ValueError, match="phrasing_probability is 0.5, but num_phrasings is 0"):
        CaptionBank().phrase(names, generator, phrasing_probability=0.5)
