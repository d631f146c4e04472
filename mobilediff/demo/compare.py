"""Draw one prompt from one noise with every checkpoint of a folder, the cheapest first."""

import base64
import io
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from eval.benchmark.size import measure_size
from eval.protocol import device_description, folder_sha256
from eval.samples.draw import draw as draw_images
from eval.samples.pipelines import load_sampler
from mobilediff.files import atomic_folder, read_json, write_json
from mobilediff.pipeline import MobileDiffusionPipeline

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINTS = Path(os.environ.get("MOBILEDIFF_CHECKPOINTS", ROOT / "checkpoints"))
EXAMPLES = Path(os.environ.get("MOBILEDIFF_EXAMPLES", ROOT / "examples"))
FAMILY = ("teacher", "student", "student-8step", "student-1step", "student-1step-pruned")
EXAMPLE_PROMPTS = ("a fire truck", "a stealth bomber", "a tabby", "a bullfrog", "a red deer", "a container ship")
EXAMPLE_SEED, EXAMPLE_IMAGES = 0, 4
MAX_IMAGES, MAX_CHARACTERS, MAX_SEED = 8, 200, 2**32 - 1
EXAMPLES_FILE = "examples.json"
PNG_URI = "data:image/png;base64,"


@dataclass(frozen=True)
class Model:
    """Hold a loaded checkpoint with its hash and figures.

    Attributes:
        name: of its folder.
        sha256: of the folder, by `folder_sha256`.
        pipeline: ready to draw.
        nfe: network evaluations an image.
        params: parameters in use, text encoder and decoder included.
        macs: multiply-accumulates of one network call.
    """

    name: str
    sha256: str
    pipeline: MobileDiffusionPipeline
    nfe: int
    params: int
    macs: int


def load_model(folder: Path, device: torch.device) -> Model:
    """Load a checkpoint, warm it up with one image, and count its figures."""
    pipeline = load_sampler(folder, device)
    pipeline(class_labels=0, generator=torch.Generator().manual_seed(0))
    size = measure_size(pipeline, folder)
    return Model(
        folder.name, folder_sha256(folder), pipeline, size["nfe"], size["params_total"], size["macs_network_call"]
    )


def load_models(folder: Path) -> tuple[list[Model], list[str]]:
    """Load every checkpoint of a folder, and name those that are missing or broken.

    Returns:
        The models, the cheapest image (NFE x MACs) first, and the problems as sentences.
    """
    found = sorted(path.name for path in folder.glob("[!.]*") if path.is_dir())
    problems = [f"{folder.name}/{name} is missing." for name in FAMILY if name not in found]
    models, device = [], torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    for name in found:
        try:
            models.append(load_model(folder / name, device))
        except Exception as error:  # a broken folder can raise anything
            problems.append(f"{folder.name}/{name} is left out: {error}")
    return sorted(models, key=lambda model: (model.nfe * model.macs, model.name)), problems


def check_inputs(models: list[Model], prompt: str, seed: float | None, count: float) -> None:
    """Refuse bad input before any work.

    Raises:
        ValueError: naming the value and the accepted ones.
    """
    if not models:
        raise ValueError("No model is chosen, or none could be loaded.")
    if not prompt.strip():
        raise ValueError("The prompt is empty. Say what the picture should show, for example: a fire truck.")
    if len(prompt) > MAX_CHARACTERS:
        raise ValueError(f"The prompt has {len(prompt)} characters; accepted are up to {MAX_CHARACTERS}.")
    tokenizer = models[0].pipeline.tokenizer
    tokens, most = len(tokenizer(prompt).input_ids), tokenizer.model_max_length
    if tokens > most:
        raise ValueError(f"The prompt has {tokens} tokens; accepted are up to {most}. Say it shorter.")
    if seed is None or not float(seed).is_integer() or not 0 <= seed <= MAX_SEED:
        raise ValueError(f"The seed is {seed}; accepted is a whole number from 0 to {MAX_SEED}.")
    if count is None or not float(count).is_integer() or not 1 <= count <= MAX_IMAGES:
        raise ValueError(f"The number of images is {count}; accepted is a whole number from 1 to {MAX_IMAGES}.")


def png_uri(image: Image.Image) -> str:
    """Encode an image as a lossless data URI."""
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return PNG_URI + base64.b64encode(buffer.getvalue()).decode()


def draw(model: Model, prompt: str, seed: int, count: int) -> dict:
    """Draw `count` images, and time the call from text to images.

    Image i has a generator of its own, seeded with `seed` + i, for its latents and the scheduler's noise. So all
    models start from the same latents, and the number of images changes none of them by more than rounding.

    Returns:
        `status` ("done" or "failed"), `time` as a sentence, and once done `latency_ms` and `images`, PNG data URIs.
    """
    seeds = list(range(seed, seed + count))
    start = time.perf_counter()
    try:
        drawn = draw_images(model.pipeline, model.name, seeds, prompt=prompt, num_images_per_prompt=count)
        images = [Image.fromarray(image) for image in drawn.permute(0, 2, 3, 1).contiguous().numpy()]
    except ValueError as error:  # NaN latents: the other models still draw
        return {"status": "failed", "time": str(error)}
    latency = (time.perf_counter() - start) * 1000
    text = f"{latency:,.0f} ms for {count} image{'s' if count > 1 else ''}"
    return {"status": "done", "time": text, "latency_ms": latency, "images": [png_uri(image) for image in images]}


def compare(models: list[Model], prompt: str, seed: float, count: float) -> Iterator[tuple[list[dict], str]]:
    """Draw one prompt with each model in turn.

    Yields:
        One record a model (figures, status, latency and images as data URIs once done), and the pipelines' warnings
        about the prompt, one a line; each time a model starts, and at the end.

    Raises:
        ValueError: as in `check_inputs`.
    """
    check_inputs(models, prompt, seed, count)
    records = [
        {
            "name": model.name,
            "model_sha256": model.sha256,
            "status": "waiting",
            "time": "waiting",
            "latency_ms": None,
            "batch_size": int(count),
            "nfe": model.nfe,
            "params": model.params,
            "macs": model.macs,
            "figures": [f"NFE {model.nfe}", f"{model.params / 1e6:.3g} M params", f"{model.macs / 1e9:.3g} GMACs"],
            "images": [],
        }
        for model in models
    ]
    note = "\n".join(dict.fromkeys(warning for model in models for warning in model.pipeline.prompt_warnings(prompt)))
    for index, model in enumerate(models):
        records[index] |= {"status": "running", "time": "running …"}
        yield json.loads(json.dumps(records)), note  # a copy: records go on changing
        records[index] |= draw(model, prompt, int(seed), int(count))
    yield records, note


def precompute(models: list[Model], folder: Path) -> None:
    """Draw the examples into PNG files and `examples.json`, which replace the folder together.

    Raises:
        FileExistsError: the folder holds something else.
    """
    if folder.exists() and not (folder / EXAMPLES_FILE).exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds no {EXAMPLES_FILE} but other files; take another folder for examples")
    with atomic_folder(folder) as new:
        examples = []
        for prompt in EXAMPLE_PROMPTS:
            *_, (records, _) = compare(models, prompt, EXAMPLE_SEED, EXAMPLE_IMAGES)
            for record in records:
                files = [f"{prompt.replace(' ', '-')}/{record['name']}-{i}.png" for i in range(len(record["images"]))]
                for file, uri in zip(files, record["images"], strict=True):
                    (new / file).parent.mkdir(parents=True, exist_ok=True)
                    (new / file).write_bytes(base64.b64decode(uri.removeprefix(PNG_URI)))
                record["images"] = files
            examples.append({"prompt": prompt, "seed": EXAMPLE_SEED, "count": EXAMPLE_IMAGES, "records": records})
        machine = device_description(models[0].pipeline.device)
        write_json(new / EXAMPLES_FILE, {"machine": machine, "examples": examples})


def load_examples(folder: Path) -> list[dict]:
    """Load the precomputed examples, images as data URIs; none give an empty list.

    Raises:
        ValueError: the file is damaged, or a picture that it names is missing.
    """
    if not (folder / EXAMPLES_FILE).exists():
        return []
    try:
        return _read_examples(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} holds damaged examples: {error}") from error


def _read_examples(folder: Path) -> list[dict]:
    """Read `examples.json` and the pictures that it names; errors are wrapped by `load_examples`."""
    content = read_json(folder / EXAMPLES_FILE)
    for example in content["examples"]:
        for record in example["records"]:
            pngs = [(folder / file).read_bytes() for file in record["images"]]
            record["images"] = [PNG_URI + base64.b64encode(png).decode() for png in pngs]
            record["figures"].append(f"precomputed on {content['machine']['device_name']}")
    return content["examples"]


def stale_examples(examples: list[dict], models: list[Model]) -> list[str]:
    """Name the loaded models whose example pictures were drawn with other weights."""
    current = {model.name: model.sha256 for model in models}
    records = [record for example in examples for record in example["records"]]
    return sorted({r["name"] for r in records if current.get(r["name"], r["model_sha256"]) != r["model_sha256"]})
