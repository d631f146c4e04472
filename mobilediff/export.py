"""Write a pipeline as a folder that loads anywhere: weights in float16, configs, and the code that they need.

    python -m mobilediff.export --model runs/one-step/export --output checkpoints/student-1step

makes a folder ready for the hub, with a model card.
"""

import argparse
import hashlib
import inspect
import json
import math
import os
import re
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from mobilediff.checkpoints import INDEX_NAME, encoder_tensors, load_component, load_pipeline, load_vae
from mobilediff.model_card import model_card
from mobilediff.pipeline import CLASS_NAMES, MobileDiffusionPipeline
from mobilediff.schedulers.compatible import choose_scheduler

CODE_HASH_LENGTH = 12
LEAST_LIKENESS = 20  # dB between two decoders of the same latents
# What diffusers and transformers note in a config when a component is loaded from a folder.
ORIGIN_KEYS = ("_name_or_path", "is_local", "local_files_only")


def export_pipeline(
    pipeline: MobileDiffusionPipeline,
    folder: str | Path,
    card: str | None = None,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write `pipeline` to `folder`, which takes the place of an older one once it is complete.

    A kill between the last two renames leaves no folder, never half of one.

    The folder loads with `DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)` where this package is
    not installed, and with `MobileDiffusionPipeline.from_pretrained(folder)` where it is.

    diffusers copies the code of all local folders into one module namespace, by file name. So each code file carries
    a hash of its content in its name: checkpoints whose code differs can live in one process.

    Args:
        pipeline: stays as it is, in its own precision.
        folder: a checkpoint there is replaced; another non-empty folder is refused.
        card: text of README.md; None for the generated card.
        dtype: of the floating-point weights in the files.

    Returns:
        The folder.

    Raises:
        ValueError: if a weight is not finite in `dtype`; names the tensor.
        FileExistsError: if the folder holds something that is not a checkpoint.
    """
    folder = Path(folder).absolute()
    if folder.exists() and not (folder / INDEX_NAME).is_file() and (folder.is_file() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not a checkpoint (no {INDEX_NAME}); take another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        new = Path(scratch) / "new"
        pipeline.save_pretrained(new, safe_serialization=True)
        for file in new.glob("*/*.safetensors"):
            _cast_weights(file, dtype)
        for file in new.glob("*/*.json"):
            _forget_origin(file)
        _ship_code(pipeline, new)
        card = model_card(folder.name, pipeline) if card is None else card
        (new / "README.md").write_text(card, encoding="utf-8")
        if folder.exists():
            os.replace(folder, Path(scratch) / "old")
        os.replace(new, folder)
    return folder


def _cast_weights(file: Path, dtype: torch.dtype) -> None:
    tensors = {}
    for name, tensor in load_file(file).items():
        tensors[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
        if not torch.isfinite(tensors[name]).all():
            raise ValueError(f"{name} of {file.parent.name} is not finite in {dtype}; nothing was written")
    save_file(tensors, file, metadata={"format": "pt"})


def _forget_origin(file: Path) -> None:
    """Take out of a config where its component was once loaded from."""
    content = json.loads(file.read_text(encoding="utf-8"))
    kept = {key: value for key, value in content.items() if key not in ORIGIN_KEYS}
    if kept != content:
        _write_json(file, kept)


def _ship_code(pipeline: MobileDiffusionPipeline, folder: Path) -> None:
    """Copy the source of the classes that no library has, and name the copies in the index."""
    index = json.loads((folder / INDEX_NAME).read_text(encoding="utf-8"))
    index.pop("_name_or_path", None)
    index["_class_name"] = [_copy_source(type(pipeline), folder), type(pipeline).__name__]
    for name, component in pipeline.components.items():
        if type(component).__module__.split(".")[0] not in LOADABLE_CLASSES:
            index[name] = [_copy_source(type(component), folder / name), type(component).__name__]
    _write_json(folder / INDEX_NAME, index)


def _copy_source(cls: type, folder: Path) -> str:
    """Copy the file that defines `cls` and return the copy's module name, such as "mobile_unet_0123456789ab"."""
    source = Path(inspect.getsourcefile(cls))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:CODE_HASH_LENGTH]
    # A class that came from a checkpoint has the hash in its file's name already.
    stem = re.sub(rf"_[0-9a-f]{{{CODE_HASH_LENGTH}}}$", "", source.stem)
    module = f"{stem}_{digest}"
    shutil.copyfile(source, folder / f"{module}.py")
    return module


def _write_json(file: Path, content: dict) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def replace_text_encoder(pipeline: MobileDiffusionPipeline, folder: str | Path) -> None:
    """Condition the network on another text encoder of the same widths, which was trained to keep what it learnt from.

    Raises:
        FileNotFoundError: `folder` holds no `text_encoder`.
        ValueError: its weights are damaged, or its widths are others.
    """
    text_encoder = load_component(CLIPTextModelWithProjection, Path(folder, "text_encoder"))
    for name in ("hidden_size", "projection_dim", "max_position_embeddings"):
        before, now = getattr(pipeline.text_encoder.config, name), getattr(text_encoder.config, name)
        if now != before:
            raise ValueError(f"{folder}: {name} of the text encoder is {now}, the model's is {before}")
    tokenizer = CLIPTokenizer.from_pretrained(Path(folder, "tokenizer"))
    pipeline.register_modules(text_encoder=text_encoder, tokenizer=tokenizer)


def replace_vae(pipeline: MobileDiffusionPipeline, folder: str | Path) -> None:
    """Decode with another VAE for the same latents, such as the stages `decoder` and `tiny_vae` train.

    Raises:
        FileNotFoundError: `folder` holds no VAE.
        ValueError: its weights are damaged, or it is for other latents.
    """
    vae = load_vae(folder)
    if isinstance(vae, AutoencoderTiny) or isinstance(pipeline.vae, AutoencoderTiny):
        _check_decoded_alike(pipeline, vae, folder)
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


def _check_decoded_alike(pipeline: MobileDiffusionPipeline, vae: torch.nn.Module, folder: str | Path) -> None:
    """An encoder of another class has no weights to compare, so samples of the classes are decoded by both."""
    generator = torch.Generator().manual_seed(0)
    latents = pipeline(class_labels=list(CLASS_NAMES), generator=generator, output_type="latent").images
    known = pipeline.vae
    before = pipeline.decode_latents(latents)
    pipeline.register_modules(vae=vae)
    now = pipeline.decode_latents(latents)
    pipeline.register_modules(vae=known)
    if before.shape != now.shape:
        raise ValueError(f"{folder}: decodes to {tuple(now.shape[1:])}, the model's VAE to {tuple(before.shape[1:])}")
    decibels = 10 * math.log10(4 / torch.nn.functional.mse_loss(now, before).item())
    if decibels < LEAST_LIKENESS:
        raise ValueError(
            f"{folder}: what the network draws is decoded {decibels:.1f} dB near to the model's VAE; accepted is "
            f"{LEAST_LIKENESS} dB or more: it is for other latents"
        )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m mobilediff.export", description="Make a checkpoint ready for the hub."
    )
    parser.add_argument("--model", required=True, help="checkpoint folder, such as checkpoints/student-8step")
    parser.add_argument("--output", required=True, help="folder to write; a checkpoint there is replaced")
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
    try:
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
        print(export_pipeline(pipeline, args.output, card))
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
