"""Load checkpoint folders with the package's own classes, damaged files refused."""

import traceback
from collections import defaultdict
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_loading_utils import load_sub_model
from safetensors import SafetensorError, safe_open
from transformers import CLIPTokenizer

from mobilediff.downstream.control import MobileDiffusionControlPipeline
from mobilediff.downstream.inpaint import MobileDiffusionInpaintPipeline
from mobilediff.files import files_below, read_json
from mobilediff.pipeline import MobileDiffusionPipeline

INDEX_NAME = "model_index.json"
VAE = AutoencoderKL | AutoencoderTiny
VAE_CLASSES = {cls.__name__: cls for cls in (AutoencoderKL, AutoencoderTiny)}
# Pipelines that draw from more than a text.
DOWNSTREAM_PIPELINES = (MobileDiffusionControlPipeline, MobileDiffusionInpaintPipeline)
PIPELINE_CLASSES = {cls.__name__: cls for cls in (MobileDiffusionPipeline, *DOWNSTREAM_PIPELINES)}
PARTS = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
PICKLE_SUFFIXES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")


def checkpoint_names(root: str | Path) -> list[str]:
    """List the names of the checkpoint folders directly inside `root`, sorted.

    The list is empty if there is no such folder.
    """
    return sorted(index.parent.name for index in Path(root).glob(f"*/{INDEX_NAME}"))


def text_to_image_names(root: str | Path) -> list[str]:
    """List those of `checkpoint_names` that draw from a text alone; errors as in `read_index`."""
    names = checkpoint_names(root)
    return [name for name in names if pipeline_class(read_index(Path(root) / name)) not in DOWNSTREAM_PIPELINES]


def read_index(folder: str | Path) -> dict:
    """Read the index of a checkpoint: the classes of its parts, and the pipeline's config.

    Raises:
        FileNotFoundError: if there is no such checkpoint; names those beside it.
        ValueError: if it is no JSON object.
    """
    folder = Path(folder)
    if not (folder / INDEX_NAME).is_file():
        names = checkpoint_names(folder.parent)
        beside = f"{folder.parent} holds {', '.join(names)}" if names else f"{folder.parent} holds none"
        raise FileNotFoundError(f"no checkpoint at {folder}: it has no {INDEX_NAME}; {beside}")
    return _read_object(folder / INDEX_NAME)


def _read_object(file: Path) -> dict:
    content = read_json(file)
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__}; accepted is a JSON object")
    return content


def load_pipeline(folder: str | Path, dtype: torch.dtype = torch.float32) -> MobileDiffusionPipeline:
    """Load a checkpoint onto the CPU.

    No code and no pickle of the folder is run: classes come from this package, weights from safetensors. Network and
    VAE are in channels_last.

    Args:
        folder: written by `mobilediff.export.export_pipeline`.
        dtype: of the weights in memory; they are stored in float16.

    Raises:
        FileNotFoundError: if there is no such checkpoint; names those beside it.
        ValueError: if a file of it is damaged, lacks tensors or is a pickle; names the file.
        OSError: if a file of it is missing; names the file.
    """
    folder = Path(folder)
    index = read_index(folder)
    files = files_below(folder)
    for file in (file for file in files if file.suffix == ".json"):
        read_json(file)
    pickles = [file for file in files if file.suffix in PICKLE_SUFFIXES]
    if pickles:
        raise ValueError(f"{pickles[0]} may hold pickled code and is not loaded; weights must be .safetensors")
    for name in PARTS:
        if name in index and not isinstance(index[name], list):
            raise ValueError(f"{folder / INDEX_NAME}: {name} is {index[name]!r}; accepted is a library and a class")
    for name, value in index.items():
        if isinstance(value, list) and name != "_class_name":
            for file in (folder / name).glob("*.json"):
                _read_object(file)
            check_part_files(folder / name, str(value[-1]))
    tensor_names = defaultdict(set)
    for file in sorted(folder.glob("*/*.safetensors")):
        tensor_names[file.parent.name] |= _tensor_names(file)

    try:
        pipeline = pipeline_class(index).from_pretrained(folder, dtype=dtype, use_safetensors=True)
    except Exception as error:  # a damaged config makes the libraries raise any kind
        part = _part_that_raised(error)
        if part is None:
            raise
        raise ValueError(f"{folder / part} cannot be loaded: {type(error).__name__}: {error}") from error
    for name, component in pipeline.components.items():
        if isinstance(component, torch.nn.Module):
            # transformers fills a missing tensor with random numbers.
            missing = sorted(set(component.state_dict()) - tensor_names[name])
            if missing:
                raise ValueError(f"the weights in {folder / name} lack {missing[0]} ({len(missing)} tensors in all)")
    for component in pipeline.components.values():
        if isinstance(component, ModelMixin):  # the layout in which convolutions are the fastest
            component.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - it is decorated
    return pipeline


def pipeline_class(index: dict) -> type[MobileDiffusionPipeline]:
    """Look up the class of the package that an index names; another class's parts are those of the family."""
    name = index.get("_class_name")
    return PIPELINE_CLASSES.get(name[-1] if isinstance(name, list) else str(name), MobileDiffusionPipeline)


def _part_that_raised(error: Exception) -> str | None:
    """Find the part that diffusers was loading; None if the error is from elsewhere."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is load_sub_model.__code__:
            return frame.f_locals["name"]
    return None


def check_part_files(folder: Path, class_name: str) -> None:
    """Refuse a part of a checkpoint that lacks a file: the libraries fill in for some, and name none of others.

    Raises:
        FileNotFoundError: a file is missing; names it.
    """
    needed = [("config.json",), ("*.safetensors",)]
    if class_name.endswith("Scheduler"):
        needed = [("scheduler_config.json",)]
    elif "Tokenizer" in class_name:
        needed = [("tokenizer_config.json",), ("tokenizer.json", "vocab.json")]
    for patterns in needed:
        if not any(any(folder.glob(pattern)) for pattern in patterns):
            raise FileNotFoundError(f"{folder / patterns[0]} is missing; get it again, or export the checkpoint again")


def load_tokenizer(folder: str | Path) -> CLIPTokenizer:
    """Load a CLIP tokenizer.

    Raises:
        FileNotFoundError: a file of it is missing, without which it would know no word.
    """
    check_part_files(Path(folder), CLIPTokenizer.__name__)
    return CLIPTokenizer.from_pretrained(folder)


def component_class(component: object) -> type:
    """Return the class of a pipeline's component; of a compiled network, that of the network itself."""
    return type(getattr(component, "_orig_mod", component))


def load_component(cls: type, folder: str | Path):
    """Load a network of the class `cls` from its folder, in evaluation mode.

    Args:
        cls: a model class of diffusers, transformers or this package.
        folder: written by its `save_pretrained`.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a file of it is missing or damaged, or lacks tensors, which the libraries fill with random numbers.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(
            f"{folder} does not exist: expected a folder that {cls.__name__}.save_pretrained wrote"
        )
    try:
        network, loading = cls.from_pretrained(folder, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder} cannot be loaded, a file is missing, corrupt or truncated: {error}") from error
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(f"the weights in {folder} lack {missing[0]} ({len(missing)} tensors in all)")
    return network.eval()


def load_vae(folder: str | Path) -> VAE:
    """Load a VAE of the class that its config names.

    Raises:
        FileNotFoundError: there is no such folder, or no config in it.
        ValueError: the config names no class of `VAE_CLASSES`, or as in `load_component`.
    """
    config = Path(folder, "config.json")
    if not config.is_file():
        missing = config if Path(folder).is_dir() else folder
        raise FileNotFoundError(f"{missing} does not exist: expected a folder that a VAE's save_pretrained wrote")
    name = read_json(config).get("_class_name")
    if name not in VAE_CLASSES:
        raise ValueError(f"{config}: _class_name is {name!r}; accepted are {', '.join(VAE_CLASSES)}")
    return load_component(VAE_CLASSES[name], folder)


def encoder_tensors(vae: VAE) -> dict[str, torch.Tensor]:
    """Collect the weights that encode images, by name, of any shape: all but the decoder's."""
    decoding = ("decoder.", "post_quant_conv.")
    return {name: tensor for name, tensor in vae.state_dict().items() if not name.startswith(decoding)}


def _tensor_names(file: Path) -> set[str]:
    try:
        # Opening reads the header and compares its offsets with the length of the file.
        with safe_open(file, framework="pt") as tensors:
            return set(tensors.keys())
    except SafetensorError as error:
        raise ValueError(
            f"{file} ({file.stat().st_size} bytes) is damaged, incomplete, or a Git LFS pointer: {error}; "
            "get it again, or export the checkpoint again"
        ) from error
