"""Write a pipeline as a folder that loads anywhere: float16 weights, configs and code.

    python -m mobilediff.export --model runs/one-step/export --output checkpoints/student-1step

makes a folder ready for the hub, with a model card;

    python -m mobilediff.export --code checkpoints/{student*,teacher}

brings the code inside checkpoints up to this package's.
"""

import argparse
import importlib
import json
import math
from collections.abc import Iterable
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES
from safetensors.torch import load_file, save_file
from torch.nn.functional import adaptive_avg_pool2d, mse_loss
from transformers import CLIPTextModelWithProjection

from mobilediff.checkpoints import (
    INDEX_NAME,
    VAE,
    encoder_tensors,
    load_component,
    load_pipeline,
    load_tokenizer,
    load_vae,
    read_index,
)
from mobilediff.command import run_command
from mobilediff.files import atomic_folder, write_json
from mobilediff.model_card import model_card
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.sampling.code import PACKAGE_MODULES, copy_source, name_code
from mobilediff.sampling.prompts import CLASS_NAMES
from mobilediff.sampling.saving import NETWORK_CONFIG
from mobilediff.schedulers.compatible import choose_scheduler

LEAST_LIKENESS = 20  # dB between two decoders of the same latents
LEAST_ERROR = 1e-12  # mean squared, of images in [-1, 1]: equal ones are 126 dB alike
# Files of a checkpoint's parts, which an export replaces; others are kept.
PART_SUFFIXES = (".safetensors", ".json", ".py", ".txt", ".bin")
# Keys that diffusers and transformers add to a config when they load a component from a folder.
ORIGIN_KEYS = ("_name_or_path", "is_local", "local_files_only")
# Keys that a class adds to its config, and warns about when a component is loaded from it.
DERIVED_KEYS = {"AutoencoderTiny": ("block_out_channels",)}


def export_pipeline(
    pipeline: MobileDiffusionPipeline,
    folder: str | Path,
    card: str | None = None,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write `pipeline` to `folder`, which replaces an older one once it is complete.

    The folder loads with `DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)` where this package is
    not installed, and with `MobileDiffusionPipeline.from_pretrained(folder)` where it is.

    Args:
        pipeline: stays as it is, in its own precision.
        folder: a checkpoint there is replaced, and what else lies in it is kept, such as a clone's `.git`; another
            non-empty folder is refused.
        card: text of README.md; None for the generated card.
        dtype: of the floating-point weights in the files.

    Returns:
        The folder.

    Raises:
        ValueError: if a weight is not finite in `dtype`, naming the tensor; a class is neither this package's nor a
            library's; or what was written cannot be loaded. An older checkpoint stays.
        FileExistsError: if the folder holds something that is not a checkpoint.
    """
    folder = Path(folder).absolute()
    if folder.exists() and not (folder / INDEX_NAME).is_file() and (folder.is_file() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not a checkpoint (no {INDEX_NAME}); take another folder")
    with atomic_folder(folder, keep=_foreign_entries(folder)) as new:
        pipeline.save_pretrained(new, safe_serialization=True)
        for file in new.glob("*/*.safetensors"):
            _cast_weights(file, dtype)
        for file in new.glob("*/*.json"):
            _tidy_config(file)
        card = model_card(folder.name, pipeline) if card is None else card
        (new / "README.md").write_text(card, encoding="utf-8")
        load_pipeline(new)
    return folder


def _foreign_entries(folder: Path) -> list[Path]:
    """List what is no part of the checkpoint in a folder, such as a clone's `.git`, by the paths from there."""
    if not (folder / INDEX_NAME).is_file():
        return []
    parts = [name for name, value in read_index(folder).items() if isinstance(value, list)]
    own = [folder / INDEX_NAME, folder / "README.md", *folder.glob("*.py"), folder / "__pycache__"]
    own += [file for part in parts for file in (folder / part).glob("*") if file.suffix in PART_SUFFIXES]
    own += [folder / part / "__pycache__" for part in parts]
    entries = [entry for entry in folder.iterdir() if entry.name not in parts]
    entries += [entry for part in parts if (folder / part).is_dir() for entry in (folder / part).iterdir()]
    return [entry.relative_to(folder) for entry in set(entries) - set(own)]


def _cast_weights(file: Path, dtype: torch.dtype) -> None:
    tensors = {}
    for name, tensor in load_file(file).items():
        tensors[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
        if not torch.isfinite(tensors[name]).all():
            raise ValueError(f"{name} of {file.parent.name} is not finite in {dtype}; nothing was written")
    save_file(tensors, file, metadata={"format": "pt"})


def _tidy_config(file: Path) -> None:
    """Drop a config's `ORIGIN_KEYS` and the `DERIVED_KEYS` of its class.

    Raises:
        ValueError: it holds an infinity, of which `save_pretrained` leaves out those that are defaults.
    """
    content = json.loads(file.read_text(encoding="utf-8"))
    dropped = (*ORIGIN_KEYS, *DERIVED_KEYS.get(content.get("_class_name"), ()))
    for key, value in content.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{key} in {file.parent.name}/{file.name} is {value}, which JSON does not have")
    kept = {key: value for key, value in content.items() if key not in dropped}
    if kept != content:
        write_json(file, kept)


def refresh_code(folders: Iterable[str | Path]) -> None:
    """Replace the code inside checkpoints by this package's, named as in an export.

    Each file is replaced in one piece, and code under another name is deleted last: a kill in between leaves
    checkpoints that load. Weights, cards and other files stay as they are, configs but for the name of the code.

    Raises:
        FileNotFoundError: one of `folders` is no checkpoint; none has been changed.
        ValueError: an index is not valid JSON, or names a class that neither this package nor a library has; no
            checkpoint has been changed.
    """
    shipped = {folder: _shipped_classes(folder) for folder in map(Path, folders)}
    for folder, classes in shipped.items():
        before = read_index(folder)
        index = before | {name: copy_source(cls, _code_folder(folder, name)) for name, cls in classes.items()}
        for name, cls in classes.items():
            if issubclass(cls, torch.nn.Module):
                name_code(folder / name / NETWORK_CONFIG, index[name])
        if index != before:
            write_json(folder / INDEX_NAME, index)
        for name in classes:
            if isinstance(before[name], list) and before[name] != index[name]:
                (_code_folder(folder, name) / f"{Path(before[name][0]).name}.py").unlink(missing_ok=True)


def _shipped_classes(folder: Path) -> dict[str, type]:
    """Look up the classes of this package that a checkpoint's index names, by key."""
    index, classes = read_index(folder), {}
    for name, value in ({"_class_name": None} | index).items():
        if not isinstance(value, list) and name != "_class_name":
            continue  # an option of the pipeline
        library, class_name = value if isinstance(value, list) else (None, str(value))
        if library in LOADABLE_CLASSES:
            continue
        if class_name not in PACKAGE_MODULES:
            known = ", ".join(sorted(PACKAGE_MODULES))
            raise ValueError(f"{folder}: {name} is {value}; this package has code for {known}")
        classes[name] = getattr(importlib.import_module(PACKAGE_MODULES[class_name]), class_name)
    return classes


def _code_folder(folder: Path, name: str) -> Path:
    return folder if name == "_class_name" else folder / name


def replace_text_encoder(pipeline: MobileDiffusionPipeline, folder: str | Path) -> None:
    """Replace the pipeline's text encoder and tokenizer by those of a folder.

    The new text encoder is one that was trained to keep the old one's outputs (`lambda_keep` of the stage `clip`).

    Raises:
        FileNotFoundError: `folder` holds no `text_encoder`, or no whole `tokenizer`.
        ValueError: its weights are damaged, or its widths differ from the old one's.
    """
    text_encoder = load_component(CLIPTextModelWithProjection, Path(folder, "text_encoder"))
    for name in ("hidden_size", "projection_dim", "max_position_embeddings"):
        before, now = getattr(pipeline.text_encoder.config, name), getattr(text_encoder.config, name)
        if now != before:
            raise ValueError(f"{folder}: {name} of the text encoder is {now}, the model's is {before}")
    tokenizer = load_tokenizer(Path(folder, "tokenizer"))
    pipeline.register_modules(text_encoder=text_encoder, tokenizer=tokenizer)


def replace_vae(pipeline: MobileDiffusionPipeline, folder: str | Path) -> None:
    """Replace the pipeline's VAE by one for the same latents.

    The stages `decoder` and `tiny_vae` train such VAEs.

    Raises:
        FileNotFoundError: `folder` holds no VAE.
        ValueError: its weights are damaged, or it is for other latents.
    """
    vae = load_vae(folder)
    if isinstance(vae, AutoencoderTiny) or isinstance(pipeline.vae, AutoencoderTiny):
        check_decoded_alike(pipeline, vae, folder)
    else:
        _check_same_encoder(pipeline.vae, vae, folder)
    pipeline.register_modules(vae=vae)


def _check_same_encoder(known: AutoencoderKL, vae: AutoencoderKL, folder: str | Path) -> None:
    for name in ("latents_mean", "latents_std"):
        before, now = known.config[name], vae.config[name]
        if now != before:
            raise ValueError(f"{folder}: {name} is {now}, but the network was trained with {before}")
    before, now = encoder_tensors(known), encoder_tensors(vae)
    if before.keys() != now.keys() or any(not torch.equal(now[name], before[name]) for name in before):
        raise ValueError(f"{folder}: its encoder is not the one whose latents the network was trained on")


def check_decoded_alike(pipeline: MobileDiffusionPipeline, vae: VAE, folder: str | Path) -> None:
    """Refuse two VAEs for different latents, by the images that both decode of the pipeline's samples.

    Encoders of two classes have no weights to compare. Larger images are compared by the means of their blocks.

    Args:
        pipeline: with the one VAE.
        vae: the other.
        folder: that the error names.

    Raises:
        ValueError: the images have a PSNR below `LEAST_LIKENESS`, or a side is no multiple of the other's.
    """
    generator = torch.Generator().manual_seed(0)
    latents = pipeline(class_labels=list(CLASS_NAMES), generator=generator, output_type="latent").images
    known = pipeline.vae
    before = pipeline.decode_latents(latents)
    pipeline.register_modules(vae=vae)
    now = pipeline.decode_latents(latents)
    pipeline.register_modules(vae=known)
    sizes = [images.shape[-1] for images in (before, now)]
    if max(sizes) % min(sizes):
        raise ValueError(
            f"{folder}: one VAE decodes to {sizes[0]} pixels a side, the other to {sizes[1]}; accepted is a multiple"
        )
    before, now = (adaptive_avg_pool2d(images, min(sizes)) for images in (before, now))
    decibels = 10 * math.log10(4 / max(mse_loss(now, before).item(), LEAST_ERROR))
    if decibels < LEAST_LIKENESS:
        raise ValueError(
            f"{folder}: the images that two VAEs decode of the network's samples have a PSNR of {decibels:.1f} dB; "
            f"accepted is {LEAST_LIKENESS} dB or more: they are for other latents"
        )


def _export_with(args: argparse.Namespace) -> Path:
    """Load `args.model`, change it as the options say, and write it to `args.output`."""
    pipeline = load_pipeline(args.model)
    if args.text is not None:
        replace_text_encoder(pipeline, args.text)
    if args.vae is not None:
        replace_vae(pipeline, args.vae)
    if args.scheduler is not None:
        choose_scheduler(pipeline, args.scheduler)
    if args.steps is not None:
        pipeline.nfe(args.steps)  # refuses a number that it cannot sample with
        pipeline.register_to_config(default_num_inference_steps=args.steps)
    if args.guidance_scale is not None:
        pipeline.nfe(guidance_scale=args.guidance_scale)  # refuses as well
        pipeline.register_to_config(default_guidance_scale=args.guidance_scale)
    if args.interval is not None:
        pipeline.nfe(guidance_interval=args.interval)
        low, high = args.interval
        pipeline.register_to_config(default_guidance_low=low, default_guidance_high=high)
    name = args.name or Path(args.output).resolve().name
    if args.card is not None:
        card = Path(args.card).read_text(encoding="utf-8")
    else:
        card = model_card(name, pipeline)
    pipeline.nfe()  # refuses a scheduler that cannot take the default steps
    return export_pipeline(pipeline, args.output, card)


def main(argv: list[str] | None = None) -> None:
    """Export a checkpoint, or refresh the code inside checkpoints, as the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m mobilediff.export",
        description="Make a checkpoint ready for the hub, or refresh the code inside checkpoints.",
    )
    parser.add_argument("--model", help="checkpoint folder, such as checkpoints/student-8step")
    parser.add_argument("--output", help="folder to write; a checkpoint there is replaced")
    parser.add_argument(
        "--code", nargs="+", metavar="FOLDER", help="checkpoints whose code is replaced by this package's, alone"
    )
    parser.add_argument("--name", help="of the model, on its card (default: the output folder's)")
    parser.add_argument(
        "--text", help="a folder of the stage clip's export, whose text encoder takes the model's place"
    )
    parser.add_argument("--vae", help="an export of the stage decoder or tiny_vae, instead of the model's")
    parser.add_argument("--scheduler", help="another of diffusers' classes to sample with")
    parser.add_argument("--steps", type=int, help="to sample with by default")
    parser.add_argument("--guidance-scale", type=float, help="to sample with by default, such as eval.guidance's best")
    parser.add_argument("--interval", nargs=2, type=float, metavar=("LOW", "HIGH"), help="where that guidance applies")
    parser.add_argument("--card", help="file to use as README.md instead of the generated model card")
    args = parser.parse_args(argv)
    if args.code is not None:
        if others := [name for name, value in vars(args).items() if value is not None and name != "code"]:
            parser.error(f"--code takes no other option, but --{others[0].replace('_', '-')} is given")
    elif args.model is None or args.output is None:
        parser.error("required are --model and --output, or --code")
    if args.code is not None:
        refresh_code(args.code)
        print(*args.code, sep="\n")
    else:
        print(_export_with(args))


if __name__ == "__main__":
    run_command(main)
