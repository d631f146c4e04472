"""Uploads of visitors: good ones are read, hostile ones are named and refused, and nothing is written."""

import io
import stat
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

import mobilediff.demo.service.uploads as uploads
from mobilediff.demo.service.uploads import Upload, check_files, read_upload


def pixels(seed: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def encoded(image: Image.Image, form: str = "png", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def png(seed: int = 0, size: int = 32) -> bytes:
    return encoded(Image.fromarray(pixels(seed, size)))


def film(form: str) -> bytes:
    frames = [Image.fromarray(pixels(seed)) for seed in (1, 2)]
    return encoded(frames[0], form, save_all=True, append_images=frames[1:])


def npz(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def read(tmp_path) -> Callable[..., Upload]:
    """Read files of these names and contents; the folder holds them alone afterwards, too."""

    def read_files(**files: bytes) -> Upload:
        folder = tmp_path / "uploads"
        folder.mkdir()
        names = {name.replace("__", "."): content for name, content in files.items()}
        for name, content in names.items():
            (folder / name).write_bytes(content)
        sent = [{"path": str(folder / name)} for name in names]
        steps = read_upload(check_files(sent, folder))
        try:
            while True:
                next(steps)
        except StopIteration as end:
            return end.value
        except ValueError as error:
            assert str(tmp_path) not in str(error)
            raise
        finally:
            assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(names)

    return read_files


def test_folders_named_like_classes_are_labels(read):
    members = [("cat/a.png", png(1)), ("set/Ship/b.png", png(2)), ("c.PNG", png(3)), ("cats/d.png", png(4))]
    upload = read(set__zip=zipped(("cat/", b""), *members))
    assert upload.labels == [3, 8, -1, -1] and upload.refused_count == 0
    assert upload.names == ["'cat/a.png'", "'set/Ship/b.png'", "'c.PNG'", "'cats/d.png'"]
    assert (upload.images.permute(0, 2, 3, 1).numpy() == np.stack([pixels(seed) for seed in (1, 2, 3, 4)])).all()


def test_single_files_and_other_sizes_are_read(read):
    upload = read(a__png=png(1), b__jpg=encoded(Image.fromarray(pixels(2, 64)), "jpeg"))
    assert upload.images.shape == (2, 3, 32, 32) and upload.resized == 1 and upload.labels == [-1, -1]


def test_an_npz_file_is_read_with_its_labels(read):
    images = np.stack([pixels(1, 16), pixels(2, 16)])
    upload = read(set__npz=npz(images=images, class_labels=np.array([9, 0])))
    assert upload.images.shape == (2, 3, 32, 32) and upload.resized == 2 and upload.labels == [9, 0]
    assert upload.names == ["image 0", "image 1"]


def link() -> zipfile.ZipInfo:
    member = zipfile.ZipInfo("cat/link.png")
    member.create_system, member.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return member


HOSTILE_MEMBERS = {
    "leads out of its folder": [
        ("../cat/x.png", png()),
        ("/etc/x.png", png()),
        ("C:/x.png", png()),
        ("..\\x.png", png()),
        ("a/../../x.png", png()),
    ],
    "is a link": [(link(), b"/etc/passwd")],
    "control characters": [("cat/\x1b[2J\n.png", png()), ("cat/\u202egnp.png", png())],
    "is of another kind": [
        ("inner.zip", zipped(("a.png", png()))),
        ("picture.svg", b"<svg/>"),
        ("a.gif", encoded(Image.fromarray(pixels(0)), "gif")),
    ],
    "is not a whole image in PNG or JPEG": [
        ("page.png", b"<html><script>alert(1)</script></html>"),
        ("vector.png", b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
        ("film.png", film("gif")),
        ("cut.png", png()[:-700]),
        ("empty.png", b""),
        ("null.jpg", b"\xff\xd8\xff" + b"\0" * 100),
    ],
    "has mode L;": [("gray.png", encoded(Image.new("L", (32, 32))))],
    "has mode RGBA": [("alpha.png", encoded(Image.new("RGBA", (32, 32))))],
    "has mode P;": [("palette.png", encoded(Image.new("P", (32, 32))))],
    "has mode CMYK": [("print.jpg", encoded(Image.new("CMYK", (32, 32)), "jpeg"))],
    "has mode I;16": [("deep.png", encoded(Image.fromarray(np.zeros((32, 32), dtype=np.uint16))))],
    "holds 2 frames": [("film.png", film("png"))],
    "is a progressive JPEG": [("scans.jpg", encoded(Image.fromarray(pixels(0)), "jpeg", progressive=True))],
    "accepted are square": [("wide.png", encoded(Image.new("RGB", (40, 32))))],
}  # fmt: skip
CASES = [(reason, member) for reason, members in HOSTILE_MEMBERS.items() for member in members]


@pytest.mark.parametrize(("reason", "member"), CASES, ids=[f"{reason} {ascii(member[0])}" for reason, member in CASES])
def test_a_hostile_member_is_left_out_by_name_and_its_neighbour_is_read(read, reason, member):
    upload = read(set__zip=zipped(member, ("cat/good.png", png(5))))
    assert upload.names == ["'cat/good.png'"] and (upload.pictures[0] == pixels(5)).all()
    name = ascii(member[0].filename if isinstance(member[0], zipfile.ZipInfo) else member[0])
    assert upload.refused_count == 1 and upload.refused[0].startswith(name) and reason in upload.refused[0]


def large_png(width: int, height: int) -> bytes:
    """A PNG of black pixels, packed without holding them."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * width)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_of_100_megapixels_is_refused_before_it_is_decoded(read, monkeypatch):
    decoded = []
    load = Image.Image.load
    monkeypatch.setattr(Image.Image, "load", lambda self: decoded.append(self.size) or load(self))
    upload = read(a__png=large_png(10_000, 10_000), b__png=png())
    assert "'a.png' is 10000x10000 pixels; accepted are up to 1024 a side" in upload.refused[0]
    assert upload.names == ["'b.png'"] and (10_000, 10_000) not in decoded


def test_twice_the_same_name_is_read_once(read):
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = zipped(("cat/a.png", png(1)), ("cat/a.png", png(2)))
    upload = read(set__zip=content)
    assert upload.names == ["'cat/a.png'"] and (upload.pictures[0] == pixels(1)).all()
    assert upload.refused == ["'cat/a.png' is there twice; the first one is read."]


def test_an_encrypted_member_is_named(read):
    content = bytearray(zipped(("cat/a.png", png(1)), ("b.png", png(2))))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    upload = read(set__zip=bytes(content))
    assert upload.names == ["'b.png'"] and "'cat/a.png' is encrypted" in upload.refused[0]


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_without_bounded_pieces_are_named(read, compression):
    with pytest.raises(ValueError, match="no picture that can be read. 'a.png' is packed by another method"):
        read(set__zip=zipped(("a.png", png()), compression=compression))


def test_what_unpacks_to_too_much_is_refused_whole(read, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_UNPACKED", 200_000)
    bomb = zipped(*[(f"{index}.png", bytes(50_000)) for index in range(5)])
    assert len(bomb) < 2000
    with pytest.raises(ValueError, match="The file 'set.zip' unpacks to more than 0 MiB"):
        read(set__zip=bomb)


def test_a_bomb_inside_a_zip_inside_a_zip_stays_packed(read):
    inner = zipped(("bomb.png", bytes(10_000_000)))
    upload = read(set__zip=zipped(("inner.zip", inner), ("inner.png", inner), ("a.png", png())))
    assert upload.names == ["'a.png'"] and upload.refused_count == 2


def stating(size: int, *members: tuple[str, bytes]) -> bytes:
    """A zip whose first member states another size than it has."""
    content = bytearray(zipped(*members))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = content.index(signature) + offset
        content[start : start + 4] = struct.pack("<I", size)
    return bytes(content)


def test_a_member_that_states_less_than_it_holds_is_named_and_not_unpacked_beyond(read):
    bomb = stating(10, ("a.png", bytes(60_000_000)), ("b.png", png(2)))
    tracemalloc.start()
    upload = read(set__zip=bomb)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert upload.names == ["'b.png'"] and upload.refused == ["'a.png' is damaged in the zip."]
    assert most < 20_000_000


def test_a_member_that_states_more_than_is_accepted_is_refused(read):
    with pytest.raises(ValueError, match="The file 'set.zip' unpacks to more than 100 MiB"):
        read(set__zip=stating(2**31, ("a.png", png(1))))


def test_a_damaged_member_is_named(read):
    content = bytearray(zipped(("a.png", png(1)), ("b.png", png(2)), compression=zipfile.ZIP_STORED))
    content[content.index(b"IDAT") + 50] ^= 255
    upload = read(set__zip=bytes(content))
    assert upload.names == ["'b.png'"] and upload.refused == ["'a.png' is damaged in the zip."]


@pytest.mark.parametrize("content", [zipped(("a.png", png()))[:-30], b"", png(), b"PK\x05\x06" + b"\xff" * 18])
def test_what_is_no_whole_zip_is_named(read, content):
    with pytest.raises(ValueError, match="The file 'set.zip' is no whole zip archive"):
        read(set__zip=content)


@pytest.mark.parametrize("content", [zipped(), zipped(("cat/", b"")), zipped(("cat/read.me", b""))])
def test_no_picture_is_named(read, content):
    with pytest.raises(ValueError, match="There is no picture that can be read"):
        read(set__zip=content)


def test_names_are_escaped_and_cut_and_only_some_are_kept(read):
    odd = [(f"{index}<img src=x onerror=alert(1)>\u00e9{'x' * 500}.gif", b"") for index in range(25)]
    upload = read(set__zip=zipped(*odd, ("a.png", png())))
    assert upload.refused_count == 25 and len(upload.refused) == 20
    assert all(text.isascii() and len(text) < 200 and "..." in text for text in upload.refused)


def test_limits_of_pictures_entries_and_pixels(read, monkeypatch, tmp_path):
    monkeypatch.setattr(uploads, "MAX_PICTURES", 2)
    with pytest.raises(ValueError, match="more than 2 pictures"):
        read(set__zip=zipped(*[(f"{index}.png", png(index)) for index in range(3)]))
    (tmp_path / "uploads").rename(tmp_path / "first")
    (tmp_path / "first" / "set.zip").unlink()
    monkeypatch.setattr(uploads, "MAX_ENTRIES", 2)
    with pytest.raises(ValueError, match="has 3 entries; accepted are up to 2"):
        read(set__zip=zipped(*[(f"{index}/", b"") for index in range(3)]))


def test_pixels_of_all_pictures_together_are_limited(read, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_PIXELS", 2 * 32 * 32)
    with pytest.raises(ValueError, match="more than 2,048 pixels together"):
        read(a__png=png(1), b__png=png(2), c__png=png(3))


def header(shape: tuple, dtype: str = "|u1") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"shape": shape, "fortran_order": False, "descr": dtype})
    return buffer.getvalue()


GOOD = np.stack([pixels(1), pixels(2)])
HOSTILE_NPZ = {
    "no whole zip archive": b"not an npz",
    "holds Python objects": npz(images=np.array([{"a": 1}], dtype=object)),
    "is no plain array": zipped(("images.npy", b"\x80\x04K\x01.")),
    "holds 10 bytes for the shape": zipped(("images.npy", header((2, 32, 32, 3)) + bytes(10))),
    "bytes for the shape": zipped(("images.npy", header((10**12, 32, 32, 3)))),
    "square pictures": npz(images=GOOD[:, :16]),
    "up to 5,000 square pictures": npz(images=np.zeros((5001, 2, 2, 3), np.uint8)),
    "accepted is uint8, or float32": npz(images=GOOD.astype(np.int64)),
    r"accepted is uint8, or float32 in 0..1, \[N, H, W, 3\]": npz(images=GOOD[..., 0]),
    "expected the images as": npz(pictures=np.zeros((1, 32, 32, 3), np.uint8)[:, :1, :1]),
    "holds nan in image 1": npz(images=np.stack([np.zeros((32, 32, 3)), np.full((32, 32, 3), np.nan)]).astype("f4")),
    "3 class_labels for 2 images": npz(images=GOOD, class_labels=np.array([1, 2, 3])),
    "class_labels holds 10 for image 0": npz(images=GOOD, class_labels=np.array([10, 2])),
    "values; accepted are up to": npz(images=GOOD, prompts=np.zeros(6000)),
    "is packed by another method": zipped(("images.npy", b""), compression=zipfile.ZIP_LZMA),
    "its protocol": npz(images=GOOD, protocol=np.array("<b>" + "x" * 5000)),
}


@pytest.mark.parametrize("reason", HOSTILE_NPZ)
def test_a_hostile_npz_file_is_refused(read, reason):
    with pytest.raises(ValueError, match=reason) as raised:
        read(set__npz=HOSTILE_NPZ[reason])
    assert "'set.npz'" in str(raised.value) and len(str(raised.value)) < 400


def test_an_npz_file_without_images_is_refused(read):
    with pytest.raises(ValueError, match=r"accepted is uint8|square"):
        read(set__npz=npz(images=np.zeros((0, 32, 32, 3), np.uint8)))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "There is no file"),
        ([], "There is no file"),
        (float("nan"), "The files are nan"),
        ("a.png", "The files are 'a.png'"),
        ({"path": "a.png"}, "accepted is a list of uploaded files"),
        ([None], "accepted is a list of uploaded files"),
        ([{"path": 3}], "accepted is a list of uploaded files"),
        ([{"path": "/etc/passwd"}], "The file 'passwd' was not uploaded"),
        ([{"path": "https://example.org/a.png"}], "The file 'a.png' was not uploaded"),
        ([{"path": "a\0.png"}], "was not uploaded"),
        ([{"path": "x" * 5000}], "was not uploaded"),
        ([{"path": "\udc80.png"}], "was not uploaded"),
        ([{"path": "a.png"}] * 5001, "There are 5,001 files"),
    ],
)
def test_what_a_program_sends_is_checked(tmp_path, files, message):
    with pytest.raises(ValueError, match=message):
        check_files(files, tmp_path)


def test_files_elsewhere_are_not_read(tmp_path):
    folder = tmp_path / "uploads"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(png())
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    for path in (tmp_path / "secret.png", folder / ".." / "secret.png", folder / "link.png", folder):
        with pytest.raises(ValueError, match="was not uploaded"):
            check_files([{"path": str(path)}], folder)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.gif"], "'a.gif' is of another kind"),
        (["a.zip", "b.png"], "There are 2 files, an archive among them"),
        (["a.npz", "b.npz"], "There are 2 files, an archive among them"),
        (["a.png", "b.png"], "The files have 0.0 MiB; accepted are up to 0 MiB"),
    ],
)
def test_files_of_other_kinds_or_too_large_are_refused(tmp_path, monkeypatch, names, message):
    monkeypatch.setattr(uploads, "MAX_BYTES", 100)
    for name in names:
        (tmp_path / name).write_bytes(png())
    with pytest.raises(ValueError, match=message):
        check_files([{"path": str(tmp_path / name)} for name in names], tmp_path)
