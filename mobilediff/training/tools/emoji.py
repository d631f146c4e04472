"""Make a folder of emoji of the ten classes, for the stage `lora`, from unpacked packages of `emoji-datasource`.

npm pack emoji-datasource-twitter@16.0.0 && tar xzf emoji-datasource-twitter-16.0.0.tgz package/img
python -m mobilediff.training.tools.emoji --images package/img/twitter/64 --output runs/emoji
"""

import argparse
from pathlib import Path

from PIL import Image

from mobilediff.command import run_command

SIZE = 32  # pixels
HELD_OUT = 4  # of as many emoji of a class one is for the test
CODES = {
    "airplane": "2708-fe0f 1f6e9-fe0f 1f6eb 1f6ec",
    "automobile": "1f697 1f698 1f699 1f695 1f696 1f693 1f694 1f3ce-fe0f 1f68c 1f68d",
    "bird": "1f426 1f424 1f425 1f423 1f414 1f413 1f985 1f986 1f989 1f99c 1f54a-fe0f 1f9a2 1f9a9 1f9a4 1f427",
    "cat": "1f431 1f408 1f408-200d-2b1b 1f638 1f639 1f63a 1f63b 1f63c 1f63d 1f63e 1f63f 1f640",
    "deer": "1f98c 1face",
    "dog": "1f436 1f415 1f9ae 1f415-200d-1f9ba 1f429",
    "frog": "1f438",
    "horse": "1f434 1f40e 1f984 1f3a0",
    "ship": "1f6a2 1f6f3-fe0f 26f4-fe0f 1f6a4 1f6e5-fe0f 26f5",
    "truck": "1f69a 1f69b 1f692 1f691 1f690 1f6fb",
}


def on_white(file: Path) -> Image.Image:
    """Draw a transparent image on white, 32 x 32 pixels."""
    image = Image.open(file).convert("RGBA")
    page = Image.new("RGBA", image.size, "white")
    page.alpha_composite(image)
    return page.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def make_folder(images: list[Path], output: Path) -> int:
    """Write the emoji into the folders train and test, a folder a class in each; returns their number.

    Args:
        images: folders of files named after code points, one a vendor.
        output: of the two folders; files of the same names are replaced.

    Raises:
        FileNotFoundError: a folder lacks an emoji.
    """
    count = 0
    for name, codes in CODES.items():
        for index, code in enumerate(codes.split()):
            split = output / ("test" if index % HELD_OUT == HELD_OUT - 1 else "train") / name
            split.mkdir(parents=True, exist_ok=True)
            for vendor, folder in enumerate(images):
                on_white(folder / f"{code}.png").save(split / f"{code}-{vendor}.png")
                count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="folders of emoji, one a vendor")
    parser.add_argument("--output", type=Path, required=True, help="the folder to write")
    args = parser.parse_args()
    print(f"{make_folder(args.images, args.output)} emoji in {args.output}")


if __name__ == "__main__":
    run_command(main)
