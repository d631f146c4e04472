"""A visitor's picture and mask are brought to the models' size, and whatever else is sent is refused by name."""

import io

import numpy as np
import pytest
from PIL import Image

from mobilediff.demo.service import pictures
from mobilediff.demo.service.pictures import MAX_SIDE, read_mask, read_picture
from mobilediff.images import resize_image

RNG = np.random.default_rng(0)


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), np.uint8))


def mask(width: int = 32, height: int = 32, box=(8, 4, 20, 24)) -> Image.Image:
    image = Image.new("L", (width, height))
    image.paste(255, box)
    return image


@pytest.fixture
def keep(tmp_path):
    """Keep a picture as gradio keeps an upload, and return it as gradio hands it on."""

    def write(image: Image.Image | bytes, name: str = "mine.png", **options) -> dict:
        file = tmp_path / name
        if isinstance(image, bytes):
            file.write_bytes(image)
        else:
            image.save(file, **options)
        return {"path": str(file), "meta": {"_type": "gradio.FileData"}}

    return write


def test_a_picture_of_the_models_size_keeps_every_byte(keep, tmp_path):
    image = picture(32, 32)
    read, size = read_picture(keep(image), tmp_path)
    assert (read.mode, read.tobytes(), size) == ("RGB", image.tobytes(), (32, 32))


@pytest.mark.parametrize(("width", "height", "left", "top"), [(80, 64, 8, 0), (48, 101, 0, 26), (7, 7, 0, 0)])
def test_the_middle_square_is_resized(keep, tmp_path, width, height, left, top):
    image = picture(width, height)
    read, size = read_picture(keep(image), tmp_path)
    side = min(width, height)
    square = np.asarray(image)[top : top + side, left : left + side]
    assert np.array_equal(np.asarray(read), resize_image(square, 32)) and size == (width, height)


def test_a_photograph_is_turned_as_it_says(keep, tmp_path):
    image, exif = Image.new("RGB", (64, 32), "red"), Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    _, size = read_picture(keep(image, "photo.jpg", exif=exif), tmp_path)
    assert size == (32, 64)


def encoded(image: Image.Image, kind: str = "png", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


PNG = encoded(picture(32, 32))
HUGE = encoded(Image.new("RGB", (MAX_SIDE + 1, 1)))
FRAMES = encoded(picture(32, 32), save_all=True, append_images=[picture(32, 32)])
NO_PICTURES = {
    "is not a whole image in PNG or JPEG": PNG[: len(PNG) // 2],
    "'mine.png' is not a whole image in PNG or JPEG": b"<svg/>",
    "has mode RGBA; accepted is RGB, 8 bits a channel": encoded(picture(32, 32).convert("RGBA")),
    "holds 2 frames; accepted is one image a file": FRAMES,
    f"is {MAX_SIDE + 1}x1 pixels; accepted are up to {MAX_SIDE} a side": HUGE,
    "is a progressive JPEG": encoded(picture(32, 32), "jpeg", progressive=True),
    "not a whole image": encoded(picture(32, 32), "gif"),
}


@pytest.mark.parametrize(("message", "content"), NO_PICTURES.items())
def test_what_is_no_still_opaque_picture_is_refused_by_name(keep, tmp_path, message, content):
    with pytest.raises(ValueError, match="^The picture 'mine.png'") as error:
        read_picture(keep(content), tmp_path)
    assert message in str(error.value) and str(tmp_path) not in str(error.value)


@pytest.mark.parametrize("read", [read_picture, lambda file, folder: read_mask(file, (32, 32), folder)])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "There is no (picture|mask)"),
        ("x.png", "The (picture|mask) is 'x.png'; accepted is an uploaded file"),
        ({"path": 3}, "accepted is an uploaded file"),
        ({"path": "/etc/passwd"}, "The file 'passwd' was not uploaded"),
        ([], r"is \[\]; accepted"),
    ],
)
def test_what_is_no_upload_is_refused(tmp_path, read, value, message):
    with pytest.raises(ValueError, match=message):
        read(value, tmp_path)


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_a_mask_is_white_where_the_picture_is_repainted(keep, tmp_path, mode):
    read = read_mask(keep(mask().convert(mode)), (32, 32), tmp_path)
    assert (read.mode, read.tobytes()) == ("L", mask().tobytes())


def test_a_mask_is_cut_as_its_picture_and_covers_what_is_half_covered(keep, tmp_path):
    wide = mask(160, 128, (16 + 4, 0, 16 + 42, 128))  # of pixels of 4 x 4 the columns 1 to 9, and half of 10
    expected = mask(box=(1, 0, 11, 32))
    assert read_mask(keep(wide), (160, 128), tmp_path).tobytes() == expected.tobytes()
    grey = wide.point(lambda value: value // 255 * 127)
    with pytest.raises(ValueError, match="Nothing is masked"):
        read_mask(keep(grey), (160, 128), tmp_path)


def layer(alpha: Image.Image) -> Image.Image:
    image = Image.new("RGBA", alpha.size, (255, 0, 255, 0))
    image.putalpha(alpha)
    return image


def test_what_is_painted_in_the_editor_is_the_mask(keep, tmp_path):
    painted = mask(384, 384, (96, 48, 240, 288)).point(lambda value: value // 255 * 178)
    editor = {"background": None, "layers": [keep(layer(painted))], "composite": None, "id": None}
    assert read_mask(editor, (500, 400), tmp_path).tobytes() == mask(box=(8, 4, 20, 24)).tobytes()


BAD_MASKS = {
    "is 64x32 pixels, but its picture 32x32; accepted are masks of the picture's size": mask(64, 32),
    "has mode RGBA and 1 frame(s); accepted is one frame of mode 1 or L or RGB": mask().convert("RGBA"),
    "has mode RGB and 2 frame(s)": FRAMES,
    f"is {MAX_SIDE + 1}x1 pixels": HUGE,
    "'mine.png' is not a whole image in PNG or JPEG": PNG[: len(PNG) // 2],
    "is a progressive JPEG": NO_PICTURES["is a progressive JPEG"],
    "Nothing is masked; paint over the part": Image.new("L", (32, 32)),
    "The whole picture is masked": Image.new("L", (32, 32), 255),
}


@pytest.mark.parametrize(("message", "content"), BAD_MASKS.items())
def test_a_bad_mask_is_refused_by_name(keep, tmp_path, message, content):
    with pytest.raises(ValueError, match=r"masked|^The mask 'mine.png'") as error:
        read_mask(keep(content), (32, 32), tmp_path)
    assert message in str(error.value)


def test_bad_layers_of_the_editor_are_refused(keep, tmp_path):
    file = keep(layer(mask()))
    with pytest.raises(ValueError, match="The layers of the mask are 3; accepted is a list of one"):
        read_mask({"layers": 3}, (32, 32), tmp_path)
    with pytest.raises(ValueError, match="accepted is a list of one"):
        read_mask({"layers": [file, file]}, (32, 32), tmp_path)
    with pytest.raises(ValueError, match="Nothing is masked"):
        read_mask({"layers": [], "id": "of strokes on their way"}, (32, 32), tmp_path)
    with pytest.raises(ValueError, match="has mode L and 1 frame"):
        read_mask({"layers": [keep(mask())]}, (32, 32), tmp_path)
    with pytest.raises(ValueError, match="64x32 pixels; accepted are square ones"):
        read_mask({"layers": [keep(layer(mask(64, 32)))]}, (32, 32), tmp_path)


def test_a_picture_and_a_mask_are_decoded_in_turns_of_long_work(keep, tmp_path, monkeypatch):
    turns = []
    monkeypatch.setattr(
        pictures.TURNS, "of_batch", lambda of_batch=pictures.TURNS.of_batch: turns.append(1) or of_batch()
    )
    read_picture(keep(picture(32, 32)), tmp_path)
    read_mask(keep(mask()), (32, 32), tmp_path)
    assert len(turns) == 2
