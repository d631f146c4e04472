"""Draw a grid of samples as a PNG or a lossless WebP file: rows are prompts, columns are seeds.

    python -m eval.grid --model checkpoints/student-8step --output docs/grid.png
    python -m eval.grid --model checkpoints/student-8step --output nouns.png --prompts "a fire truck" --seeds 0 1 2
    python -m eval.grid --model checkpoints/teacher checkpoints/student --nouns 20 --output both.png

Pixels are enlarged without smoothing; smaller pictures are brought to the largest's size by Lanczos first. With
several models a prompt has a row for each, in their order. --blocks 2 lays the second half of the prompts out beside
the first.
"""

from itertools import pairwise
from pathlib import Path

import matplotlib
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from eval.cli.output import check_picture_output
from eval.protocol import default_device
from eval.samples.draw import draw
from eval.samples.exported import check_no_sampling_options, load_exported_sampler
from eval.samples.pipelines import load_sampler
from eval.samples.prompts import commonest_nouns
from mobilediff.captions import CLASS_NAMES, caption
from mobilediff.command import command_parser, run_command
from mobilediff.files import atomic_path
from mobilediff.ondevice.exported import ExportedPipeline, is_exported
from mobilediff.pipeline import MobileDiffusionPipeline

MARGIN = 4  # pixels
FORMATS = {".png": {"format": "png"}, ".webp": {"format": "webp", "lossless": True, "quality": 100, "method": 6}}
FONT_FILE, FONT_SIZE = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), 16


def draw_grid(
    pipeline: MobileDiffusionPipeline | ExportedPipeline, name: str, prompts: list[str], seeds: list[int], **call
) -> list[list[Image.Image]]:
    """Draw a row of images for each prompt; a seed is the same noise in every row."""
    rows = [draw(pipeline, name, seeds, prompt=[prompt] * len(seeds), **call) for prompt in prompts]
    return [[Image.fromarray(image) for image in row.permute(0, 2, 3, 1).contiguous().numpy()] for row in rows]


def load_model(
    folder: str, num_inference_steps: int | None, guidance_scale: float | None
) -> tuple[MobileDiffusionPipeline | ExportedPipeline, str, dict]:
    """Load a checkpoint or an export of one, with its template and the arguments of its call.

    Raises:
        ValueError: steps or guidance of an export, or as in the functions that load.
    """
    if is_exported(folder):
        check_no_sampling_options(folder, {"--steps": num_inference_steps, "--guidance-scale": guidance_scale})
        pipeline, _ = load_exported_sampler(folder)
        return pipeline, pipeline.plan.nouns.template, {}
    pipeline = load_sampler(folder, default_device())
    call = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}
    return pipeline, pipeline.config.class_template, call


def check_scale(scale: int) -> None:
    """Refuse a scale below 1.

    Raises:
        ValueError: it is below 1.
    """
    if scale < 1:
        raise ValueError(f"--scale is {scale}; accepted is 1 or more")


def compose_grid(rows: list[list[Image.Image]], scale: int = 4, labels: list[str] | None = None) -> Image.Image:
    """Lay images out, enlarged `scale` times by nearest neighbour, with a label left of each row.

    Smaller images than the largest are brought to its size by Lanczos first.

    Raises:
        ValueError: `scale` is below 1, rows of unequal length, or another number of labels than rows.
    """
    check_scale(scale)
    if not rows or not rows[0] or len({len(row) for row in rows}) != 1:
        raise ValueError(f"rows of {[len(row) for row in rows]} images; accepted are one or more rows of one length")
    if labels is not None and len(labels) != len(rows):
        raise ValueError(f"{len(labels)} labels for {len(rows)} rows")
    font = ImageFont.truetype(FONT_FILE, FONT_SIZE)
    labels = labels and [drawable(label) for label in labels]
    left = MARGIN + (int(max(font.getlength(label) for label in labels)) + 2 * MARGIN if labels else 0)
    images = [image for row in rows for image in row]
    largest = max(image.width for image in images), max(image.height for image in images)
    width, height = (scale * side + MARGIN for side in largest)
    grid = Image.new("RGB", (left + width * len(rows[0]), MARGIN + height * len(rows)), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            image = image.resize(largest, Image.Resampling.LANCZOS)
            image = image.resize((width - MARGIN, height - MARGIN), Image.Resampling.NEAREST)
            grid.paste(image, (left + x * width, MARGIN + y * height))
    if labels:
        draw = ImageDraw.Draw(grid)
        for y, label in enumerate(labels):
            draw.text((left - 2 * MARGIN, MARGIN + y * height + height // 2), label, "black", font, anchor="rm")
    return grid


def drawable(label: str) -> str:
    """Write each character that the font lacks as its escape in Python, such as \\u732b, in place of a box."""
    known = FT2Font(FONT_FILE).get_charmap()
    return "".join(
        one if ord(one) in known and one.isprintable() else one.encode("unicode_escape").decode() for one in label
    )


def side_by_side(blocks: list[Image.Image]) -> Image.Image:
    """Join images from left to right, aligned at the top, on white."""
    row = Image.new("RGB", (sum(block.width for block in blocks), max(block.height for block in blocks)), "white")
    left = 0
    for block in blocks:
        row.paste(block, (left, 0))
        left += block.width
    return row


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = command_parser("python -m eval.grid", __doc__)
    parser.add_argument(
        "--model", nargs="+", required=True, help="checkpoints or exports, a row each for every prompt"
    )
    parser.add_argument("--output", required=True, help="a file that ends in .png or .webp")
    parser.add_argument("--prompts", nargs="+", help="one row each (default: the ten classes)")
    parser.add_argument("--nouns", type=int, default=0, help="further rows, the commonest nouns of each class in turn")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(8)), help="one column each")
    parser.add_argument("--steps", type=int, help="inference steps (default: the checkpoint's own)")
    parser.add_argument("--guidance-scale", type=float, help="guidance scale (default: the checkpoint's own)")
    parser.add_argument("--scale", type=int, default=4, help="how many times the pixels are enlarged")
    parser.add_argument("--no-labels", action="store_true", help="images alone")
    parser.add_argument("--blocks", type=int, default=1, help="lay the prompts out in so many blocks side by side")
    args = parser.parse_args(argv)
    check_picture_output("--output", args.output, FORMATS)
    check_scale(args.scale)
    names = [] if args.prompts else list(CLASS_NAMES)
    names += commonest_nouns(args.nouns)
    count = len(names) + len(args.prompts or [])
    if not 1 <= args.blocks <= count:
        raise ValueError(f"--blocks is {args.blocks}; accepted are 1 to the number of prompts, {count}")
    loaded = [load_model(folder, args.steps, args.guidance_scale) for folder in args.model]
    grids = []
    for model, (pipeline, template, call) in zip(args.model, loaded, strict=True):
        prompts = [*(args.prompts or []), *(caption(name, template) for name in names)]
        grids.append(draw_grid(pipeline, model, prompts, args.seeds, **call))
    rows = [row for rows_of_prompt in zip(*grids, strict=True) for row in rows_of_prompt]
    shown = [*(args.prompts or []), *names]
    if len(args.model) > 1:
        models = [Path(folder).resolve().name for folder in args.model]
        shown = [f"{name}, {model}" for name in shown for model in models]
    ends = [block * count // args.blocks * len(args.model) for block in range(args.blocks + 1)]
    blocks = [
        compose_grid(rows[start:end], args.scale, None if args.no_labels else shown[start:end])
        for start, end in pairwise(ends)
    ]
    with atomic_path(args.output) as temporary:
        side_by_side(blocks).save(temporary, **FORMATS[Path(args.output).suffix])
    print(f"{args.output}: {len(rows)} rows, {len(args.seeds)} seeds")


if __name__ == "__main__":
    run_command(main)
