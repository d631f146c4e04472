"""Images on disk: read as they are meant, or refused by name, and what is left out is counted."""

import json
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from eval.samples.images import read_images
from mobilediff.captions import load_nouns
from tests.eval.stand_ins import random_images, write_png_folder

TURNED = 6  # EXIF: the picture is to be turned by a quarter clockwise
LAST_NOUN = len(load_nouns()) - 1


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(random_images(1, seed).images[0].permute(1, 2, 0).contiguous().numpy())


@pytest.fixture
def folder(tmp_path):
    """A folder of two images, into which a test puts a third."""
    return write_png_folder(tmp_path / "set", random_images(2).images)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_an_image_is_turned_as_its_orientation_says(folder, suffix):
    exif = Image.Exif()
    exif[0x0112] = TURNED
    picture().save(folder / f"turned{suffix}", exif=exif)
    with Image.open(folder / f"turned{suffix}") as stored:
        expected = np.rot90(np.asarray(stored.convert("RGB")), -1)
    assert (read_images(folder).images[2].permute(1, 2, 0).numpy() == expected).all()


def test_what_is_lossy_is_known_by_the_content(folder):
    assert "lossy" not in read_images(folder).protocol
    picture().save(folder / "named-otherwise.jpg", format="png")
    assert "lossy" not in read_images(folder).protocol
    picture().save(folder / "named-otherwise.png", format="jpeg")
    assert read_images(folder).protocol["lossy"] is True


def write_deep_png(file) -> None:
    """A 32x32 RGB PNG of 16 bits a channel, which Pillow does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + bytes(range(192)) for _ in range(32))
    header = struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def write_animation(file) -> None:
    picture().save(file, save_all=True, append_images=[picture(1)])


REFUSED = {
    "16 bits a channel": write_deep_png,
    "a transparent colour": lambda file: picture().save(file, transparency=(1, 2, 3)),
    "2 frames": write_animation,
    "mode P": lambda file: picture().quantize(16).save(file, transparency=b"\0\x80"),
    "mode RGBA": lambda file: picture().convert("RGBA").save(file),
    "mode CMYK": lambda file: picture().convert("CMYK").save(file, format="jpeg"),
    "mode L": lambda file: picture().convert("L").save(file),
    "is not a whole image": lambda file: picture().save(file, format="gif"),
}


@pytest.mark.parametrize("named", REFUSED)
def test_an_image_that_would_be_misread_is_refused(folder, named):
    REFUSED[named](folder / "odd.png")
    with pytest.raises(ValueError, match=f"odd.png .*{named}"):
        read_images(folder)


def test_what_is_left_out_is_counted_and_named(folder, capsys):
    whole = read_images(folder)
    assert capsys.readouterr().err == "" and "left_out" not in whole.protocol
    picture().save(folder / "UPPER.PNG")
    assert len(read_images(folder)) == 3 and capsys.readouterr().err == ""
    picture().save(folder / "a.webp")
    (folder / "cat").mkdir()
    picture().save(folder / "cat" / "000.png")
    (folder / "._000000.png").write_bytes(b"\0\5\26\7")  # as macOS leaves
    images = read_images(folder)
    assert len(images) == 3 and images.protocol["left_out"] == 3
    assert "3 entries are left out: ._000000.png, a.webp, cat/" in capsys.readouterr().err


def test_a_folder_of_class_folders_is_refused_with_their_names(tmp_path):
    for name in ("bird", "cat"):
        (tmp_path / name).mkdir()
    with pytest.raises(FileNotFoundError, match="holds no images: .*2 entries are left out: bird/, cat/"):
        read_images(tmp_path)


def test_the_manifest_of_another_tool_is_refused(folder):
    (folder / "manifest.json").write_text('{"files": []}')
    with pytest.raises(ValueError, match="manifest.json is no manifest of eval.generate"):
        read_images(folder)


def write_npz(tmp_path, **arrays):
    images = random_images(3).images.permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "set.npz", **({"images": images} | arrays))
    return tmp_path / "set.npz"


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_pictures_of_0_and_1_are_refused_as_8_bits(tmp_path, dtype):
    halves = (random_images(3).images.permute(0, 2, 3, 1).numpy() > 127).astype(np.uint8)
    images = halves if dtype == "uint8" else halves.astype(np.float32) / 255
    with pytest.raises(ValueError, match="set.npz: images holds no value but 0 and 1"):
        read_images(write_npz(tmp_path, images=images))
    assert read_images(write_npz(tmp_path, images=halves.astype(np.float32))).images.max() == 255
    assert read_images(write_npz(tmp_path, images=halves * 0)).images.max() == 0  # black is black


def test_a_folder_of_pictures_of_0_and_1_is_refused(tmp_path):
    folder = write_png_folder(tmp_path / "set", random_images(2).images % 2)
    with pytest.raises(ValueError, match="set holds no value but 0 and 1"):
        read_images(folder)


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        ({"class_labels": [1, 5, 10]}, "class_labels holds 10 for image 2; accepted are whole numbers from 0 to 9"),
        ({"class_labels": [0, -1, 2]}, "class_labels holds -1 for image 1"),
        ({"class_labels": np.eye(3, 10, dtype=np.int64)}, "class_labels holds \\[1, 0"),
        ({"class_labels": ["cat", "dog", "ship"]}, "class_labels holds 'cat'"),
        ({"class_labels": [0.0, 1.0, 2.5]}, "class_labels holds 0.0"),
        ({"class_labels": 3}, "1 class_labels for 3 images"),
        ({"class_labels": [1, 2]}, "2 class_labels for 3 images"),
        ({"noun_ids": [0, 9999, 2]}, f"noun_ids holds 9999 for image 1; .* from -1 to {LAST_NOUN}"),
        ({"noun_ids": [0, -2, 2]}, "noun_ids holds -2"),
        ({"prompts": [1, 2, 3]}, "a prompt is 1; accepted are texts"),
        ({"protocol": "[1]"}, "its protocol is \\[1\\]"),
        ({"protocol": "{"}, "its protocol is not valid JSON"),
    ],
)  # fmt: skip
def test_labels_of_another_kind_are_refused_by_the_files_name(tmp_path, labels, named):
    with pytest.raises(ValueError, match=f"set.npz: {named}"):
        read_images(write_npz(tmp_path, **{name: np.array(values) for name, values in labels.items()}))


def test_the_same_labels_in_a_folder_are_refused(folder):
    manifest, labels = {"n": 2, "complete": True}, {"class_labels": [1, 10], "noun_ids": None, "prompts": None}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "labels.json").write_text(json.dumps(labels))
    with pytest.raises(ValueError, match="set: class_labels holds 10"):
        read_images(folder)
    (folder / "labels.json").write_text(json.dumps(labels | {"class_labels": [1, 9], "noun_ids": [-1, LAST_NOUN]}))
    images = read_images(folder)
    assert images.class_labels.tolist() == [1, 9] and images.noun_ids.dtype == torch.int64


def test_an_npz_file_is_known_by_an_upper_case_suffix_too(tmp_path):
    file = write_npz(tmp_path)
    assert len(read_images(file.rename(tmp_path / "set.NPZ"))) == 3


def test_a_file_that_is_no_npz_inside_is_refused(tmp_path):
    file = tmp_path / "set.npz"
    with file.open("wb") as stream:
        np.save(stream, random_images(3).images.numpy())
    with pytest.raises(ValueError, match="set.npz is not a whole npz file of plain arrays: it is no zip archive"):
        read_images(file)
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="set.npz is not a whole npz file"):
        read_images(file)


@pytest.mark.parametrize("damaged", [b"\xff" * 64, b"\0" * 64])
def test_a_compressed_npz_with_damaged_data_is_refused(tmp_path, damaged):
    file = tmp_path / "set.npz"
    np.savez_compressed(file, images=random_images(3).images.permute(0, 2, 3, 1).numpy())
    content = bytearray(file.read_bytes())
    content[100:164] = damaged
    file.write_bytes(content)
    with pytest.raises(ValueError, match="set.npz is not a whole npz file"):
        read_images(file)


@pytest.mark.parametrize("shape", [(3, 0, 0, 3), (3, 0, 32, 3), (0, 32, 32, 3)])
def test_images_without_pixels_are_refused(tmp_path, shape):
    with pytest.raises(ValueError, match="set.npz: images is uint8 .*; accepted is uint8, or float32"):
        read_images(write_npz(tmp_path, images=np.zeros(shape, np.uint8)))


@pytest.mark.parametrize(
    ("n", "named"),
    [
        ("2", "manifest.json: n is '2'"),
        (None, "manifest.json: n is None"),
        (2.0, "manifest.json: n is 2.0"),
        (True, "manifest.json: n is True"),
        (10**12, "holds 2 images but its manifest.json speaks of 1000000000000"),
        (-1, "holds 2 images but its manifest.json speaks of -1"),
    ],
)
def test_a_manifest_that_counts_otherwise_is_refused(folder, n, named):
    (folder / "manifest.json").write_text(json.dumps({"n": n, "complete": True}))
    with pytest.raises(ValueError, match=named):
        read_images(folder)


@pytest.mark.parametrize("labels", [[1, 2], None, "cat"])
def test_labels_that_are_no_object_are_refused(folder, labels):
    (folder / "manifest.json").write_text(json.dumps({"n": 2, "complete": True}))
    (folder / "labels.json").write_text(json.dumps(labels))
    with pytest.raises(ValueError, match="labels.json holds a .*; accepted is a JSON object"):
        read_images(folder)
