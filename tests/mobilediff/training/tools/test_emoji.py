"""Folders of emoji."""

from PIL import Image

from mobilediff.downstream.image_folder import load_image_folder
from mobilediff.training.tools.emoji import CODES, make_folder


def test_each_class_has_its_emoji_on_white_and_every_fourth_is_for_the_test(tmp_path):
    for code in " ".join(CODES.values()).split():
        image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
        image.paste((0, 0, 255, 255), (0, 0, 32, 64))
        image.save(tmp_path / f"{code}.png")
    count = make_folder([tmp_path, tmp_path], tmp_path / "out")
    train, test = (load_image_folder(tmp_path / "out" / split, 32) for split in ("train", "test"))
    assert len(train) + len(test) == count == 2 * len(" ".join(CODES.values()).split())
    assert set(train.labels.tolist()) == set(range(10))
    assert train.images[0, :, 0, 0].tolist() == [0, 0, 255] and train.images[0, :, 0, -1].tolist() == [255] * 3
    airplanes = CODES["airplane"].split()
    assert sorted({file.stem[:-2] for file in (tmp_path / "out/test/airplane").iterdir()}) == airplanes[3:4]
