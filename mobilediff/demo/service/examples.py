"""Draw examples ahead of time, keep them in a folder, and load them, so that the app shows them without a model."""

import base64
import threading
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from eval.protocol import device_description
from mobilediff.demo.service.comparison import compare
from mobilediff.demo.service.drawing import PNG_URI
from mobilediff.demo.service.inputs import is_whole, quoted
from mobilediff.demo.service.models import Model, Models
from mobilediff.files import atomic_path, read_json, write_json

EXAMPLE_PROMPTS = ("a fire truck", "a stealth bomber", "a tabby", "a bullfrog", "a red deer", "a container ship")
EXAMPLE_SEED, EXAMPLE_IMAGES = 0, 4
EXAMPLES_FILE = "examples.json"
VOLUME_FOLDERS = ("lost+found",)  # in every fresh volume of some file systems


def check_examples_folder(folder: Path) -> None:
    """Refuse a folder that examples cannot be written to, before any work.

    Raises:
        FileExistsError: it holds something else, or is a file.
        OSError: it cannot be made or written to.
    """
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is no folder; take a folder for examples")
    folder.mkdir(parents=True, exist_ok=True)
    others = [path for path in folder.iterdir() if path.name not in VOLUME_FOLDERS]
    if others and not (folder / EXAMPLES_FILE).exists():
        raise FileExistsError(f"{folder} holds no {EXAMPLES_FILE} but other files; take another folder for examples")
    with TemporaryFile(dir=folder):
        pass


def precompute(models: Models, folder: Path) -> None:
    """Draw the examples into PNG files and `examples.json`.

    Nothing is written before all are drawn. A picture's name holds the hash of the weights that drew it, and
    `examples.json` comes last: until then the old examples are whole. The folder itself stays, which may be a link or
    the mount point of a volume, and so do files in it that are not of the examples.

    Raises:
        OSError: as in `check_examples_folder`.
    """
    check_examples_folder(folder)
    names = [model.name for model in models.all()]
    examples, pngs = [], {}
    for prompt in EXAMPLE_PROMPTS:
        *_, (records, _) = compare(models, names, prompt, EXAMPLE_SEED, EXAMPLE_IMAGES, threading.Event())
        for record in records:
            stem = f"{prompt.replace(' ', '-')}/{record['name']}-{record['model_sha256'][:8]}"
            files = {f"{stem}-{i}.png": uri for i, uri in enumerate(record["images"])}
            pngs |= {file: base64.b64decode(uri.removeprefix(PNG_URI)) for file, uri in files.items()}
            record["images"] = list(files)
        examples.append({"prompt": prompt, "seed": EXAMPLE_SEED, "count": EXAMPLE_IMAGES, "records": records})
    old = _pictures(folder)
    for file, png in pngs.items():
        with atomic_path(folder / file) as temporary:
            temporary.write_bytes(png)
    machine = device_description(models.drawing_device)
    write_json(folder / EXAMPLES_FILE, {"machine": machine, "examples": examples})
    for file in old - set(pngs):
        (folder / file).unlink(missing_ok=True)
        with suppress(OSError):  # the prompt's folder still holds pictures
            (folder / file).parent.rmdir()


def _pictures(folder: Path) -> set[str]:
    """Name the pictures of the examples in a folder; none where they are damaged, or lie outside."""
    try:
        examples = read_json(folder / EXAMPLES_FILE)["examples"]
        files = {file for example in examples for record in example["records"] for file in record["images"]}
        return {file for file in files if (folder / file).resolve().is_relative_to(folder.resolve())}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


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


def choose_example(examples: list[dict], index: int) -> dict:
    """Choose an example by its index.

    Raises:
        ValueError: there is none of this index.
    """
    if not is_whole(index, 0, len(examples) - 1):
        raise ValueError(f"The example is {quoted(index)}; accepted is a whole number from 0 to {len(examples) - 1}.")
    return examples[int(index)]


def stale_examples(examples: list[dict], models: list[Model]) -> list[str]:
    """Name the loaded models whose example pictures were drawn with other weights."""
    current = {model.name: model.sha256 for model in models}
    records = [record for example in examples for record in example["records"]]
    return sorted({r["name"] for r in records if current.get(r["name"], r["model_sha256"]) != r["model_sha256"]})
