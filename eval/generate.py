"""Samples of a checkpoint, or of any diffusers pipeline, into a folder of PNG files or an npz file, resumable.

python -m eval.generate --model checkpoints/student-1step --output outputs/one-step --n 10000
python -m eval.generate --pipeline OWNER/NAME --call '{"num_inference_steps": 100}' --output outputs/ddpm
accelerate launch -m eval.generate --model checkpoints/teacher --output outputs/teacher.npz --n 50000
ACCELERATE_USE_CPU=1 torchrun --nproc_per_node 2 -m -- eval.generate --model checkpoints/teacher --output outputs/it

Without the "--", torchrun takes --n for an abbreviation of an option of its own.
"""

import argparse
import json
import shutil
import sys
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from diffusers import DiffusionPipeline
from PIL import Image
from tqdm import tqdm

from eval.images import IMAGE_SUFFIXES, LABELS, MANIFEST
from eval.pipelines import (
    compiled_networks,
    counted_evaluations,
    load_diffusers_pipeline,
    parse_call,
    resolve_pipeline_settings,
    takes_generators,
)
from eval.protocol import device_description, read_json, write_json
from eval.sampling import (
    DTYPES,
    PROMPT_KINDS,
    SamplePlan,
    SamplingSettings,
    check_sample_count,
    draw_samples,
    load_sampler,
    plan_samples,
    resolve_settings,
)
from mobilediff.captions import caption
from mobilediff.files import atomic_path
from mobilediff.schedulers.choice import choose_scheduler


class PngFolder:
    """Samples as <index>.png with manifest.json and labels.json beside them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.manifest = folder / MANIFEST

    def done(self) -> set[int]:
        """Indices of the samples that are there."""
        if not self.folder.is_dir():
            return set()
        files = [path for path in self.folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
        foreign = [path.name for path in files if not (path.stem.isdecimal() and path.suffix == ".png")]
        if foreign:
            raise ValueError(f"{self.folder} holds {foreign[0]}, no sample of this command: choose another --output")
        return {int(path.stem) for path in files}

    def write(self, indices: list[int], images: torch.Tensor) -> None:
        """Write a batch, uint8 [B, 3, H, W]."""
        for index, image in zip(indices, images.permute(0, 2, 3, 1).numpy(), strict=True):
            with atomic_path(self.folder / f"{index:06d}.png") as temporary:
                Image.fromarray(image).save(temporary, format="png")

    def finish(self, plan: SamplePlan, manifest: dict) -> None:
        """Write the labels; the images are in their place already."""
        labels = {"class_labels": plan.class_labels, "noun_ids": plan.noun_ids, "prompts": plan.prompts}
        with atomic_path(self.folder / LABELS) as temporary:
            temporary.write_text(json.dumps(labels), encoding="utf-8")


class NpzFile:
    """Samples as one npz file (`images` NHWC uint8, labels, protocol); batches wait as shards in <file>.parts."""

    def __init__(self, file: Path):
        self.file = file
        self.parts = file.with_name(file.name + ".parts")
        self.manifest = file.with_suffix(".json")

    def done(self) -> set[int]:
        """Indices of the samples that are there."""
        return {int(index) for indices, _ in self._read() for index in indices}

    def _read(self):
        for path in [self.file, *sorted(self.parts.glob("*.npz"))]:
            if path.exists():
                with np.load(path, allow_pickle=False) as part:
                    images = part["images"]
                    yield (part["indices"] if "indices" in part.files else np.arange(len(images))), images

    def write(self, indices: list[int], images: torch.Tensor) -> None:
        """Write a batch, uint8 [B, 3, H, W], as one shard."""
        shard = self.parts / f"{indices[0]:06d}-{indices[-1]:06d}.npz"
        with atomic_path(shard) as temporary, temporary.open("wb") as stream:
            np.savez(stream, indices=np.array(indices), images=images.permute(0, 2, 3, 1).numpy())

    def finish(self, plan: SamplePlan, manifest: dict) -> None:
        """Join the shards into the file and drop them."""
        shards = list(self._read())
        images = np.empty((plan.n, *shards[0][1].shape[1:]), dtype=np.uint8)
        for indices, part in shards:
            images[indices] = part
        labels = {"class_labels": plan.class_labels, "noun_ids": plan.noun_ids, "prompts": plan.prompts}
        arrays = {"images": images} | {name: np.array(one) for name, one in labels.items() if one is not None}
        with atomic_path(self.file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays, protocol=np.array(json.dumps(manifest)))
        shutil.rmtree(self.parts, ignore_errors=True)


def open_store(output: str | Path) -> PngFolder | NpzFile:
    """The store for an --output: an npz file by its suffix, else a folder of PNG files."""
    output = Path(output)
    if output.suffix == ".npz":
        return NpzFile(output)
    if output.is_file():
        raise ValueError(f"--output is {output}; accepted is a folder (for PNG files) or a file that ends in .npz")
    return PngFolder(output)


def check_resume(store: PngFolder | NpzFile, settings: SamplingSettings, n: int) -> set[int]:
    """What is there already, once it is known to be of the same protocol.

    A larger `n` continues a smaller set, because sample `i` does not depend on `n`.

    Raises:
        ValueError: the samples there were made under another protocol, are more than `n`, or have no manifest.
    """
    done = store.done()
    if not store.manifest.exists():
        if done:
            raise ValueError(f"samples without {store.manifest}: their protocol is not known, choose another --output")
        return done
    there, wanted = read_json(store.manifest), settings.protocol(n)
    # Where a sample was drawn and how many there are does not decide what sample i looks like.
    different = [key for key in asdict(settings) if key not in there or there[key] != wanted[key]]
    if different:
        detail = "; ".join(f"{key} is {there.get(key)!r} there, {wanted[key]!r} here" for key in different)
        raise ValueError(f"{store.manifest} is of another protocol ({detail}): choose another --output")
    if done and max(done) >= n:
        raise ValueError(
            f"{store.manifest} is of {max(done) + 1} samples or more, over n = {n}: choose another --output"
        )
    return done


def generate(
    pipeline: DiffusionPipeline, settings: SamplingSettings, output: str | Path, n: int, batch_size: int = 100
) -> dict:
    """Draw the samples that `output` lacks.

    Under `accelerate launch` each process draws its share of the same images.

    Args:
        pipeline: from `load_sampler` or `load_diffusers_pipeline`.
        settings: from `resolve_settings` or `resolve_pipeline_settings`.
        output: a folder, or a file that ends in .npz.
        n: samples in all.
        batch_size: samples drawn at once; the noise does not depend on it.

    Returns:
        The manifest: the protocol, device, `complete`, and `nfe`: the checkpoint's, else counted by the main process
        over its share, None where there is nothing to count.

    Raises:
        ValueError: as in `check_resume`, `plan_samples` and `draw_samples`.
    """
    state = PartialState()
    plan = plan_samples(n, settings.prompts, settings.template)
    store = open_store(output)
    done = check_resume(store, settings, n)
    there = read_json(store.manifest) if store.manifest.exists() else {"nfe": None, "complete": False}
    manifest = {"nfe": there["nfe"]} | settings.protocol(n) | device_description(pipeline.device) | {"complete": False}
    state.wait_for_everyone()  # nobody writes before everybody has looked
    if len(done) == n and there["complete"]:
        return there
    if state.is_main_process:
        write_json(store.manifest, manifest)
    missing = [index for index in range(state.process_index, n, state.num_processes) if index not in done]
    bar = tqdm(total=len(missing), desc=settings.model, unit="image", disable=not state.is_main_process)
    compiled = compiled_networks(pipeline) if settings.compiled else nullcontext()
    with bar, compiled, counted_evaluations(pipeline) as evaluations:
        for indices, images in draw_samples(pipeline, settings, plan, missing, batch_size):
            store.write(indices, images)
            bar.update(len(indices))
    state.wait_for_everyone()
    manifest["complete"] = True
    if manifest["nfe"] is None and evaluations:
        nfe = sum(evaluations) / len(missing)
        manifest["nfe"] = int(nfe) if nfe.is_integer() else nfe
    if state.is_main_process:
        store.finish(plan, manifest)
        write_json(store.manifest, manifest)
    state.wait_for_everyone()
    return manifest


def add_model_arguments(group) -> None:
    """What can be sampled, to an argument group: a checkpoint or a diffusers pipeline."""
    group.add_argument("--model", help="a checkpoint folder of this project")
    group.add_argument("--pipeline", help="a diffusers pipeline that makes images: a folder or a name on the hub")


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that every command that samples has in common."""
    parser.add_argument("--n", type=int, default=10000, help="number of samples, balanced over the classes")
    parser.add_argument("--steps", type=int, help="of --model: inference steps (default: the checkpoint's own)")
    parser.add_argument(
        "--guidance-scale", type=float, help="of --model: guidance scale (default: the checkpoint's own)"
    )
    parser.add_argument(
        "--interval",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="of --model: where guidance applies, as shares of the timesteps (default: the checkpoint's own)",
    )
    parser.add_argument("--scheduler", help="of --model: diffusers' class (default: the checkpoint's own)")
    parser.add_argument("--call", help="of --pipeline: arguments of its call, a JSON object")
    parser.add_argument("--trust-remote-code", action="store_true", help="of --pipeline: run code that comes with it")
    parser.add_argument("--seed", type=int, default=0, help="sample i is drawn with seed + i")
    parser.add_argument("--prompts", choices=PROMPT_KINDS, default="class", help="what the prompts name")
    parser.add_argument(
        "--template",
        type=checked_template,
        help='the sentence around it, such as "AN OLD {noun}!!" (default: the checkpoint\'s own)',
    )
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32", help="bf16 samples under autocast")
    parser.add_argument("--compile", action="store_true", help="sample under torch.compile; pays for many steps")
    parser.add_argument("--batch-size", type=int, default=100, help="samples drawn at once")


def checked_template(text: str) -> str:
    """A template that can be filled, and not without the noun."""
    try:
        filled = {noun: caption(noun, text) for noun in ("zebra", "ostrich")}
    except (KeyError, IndexError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be filled: {error!r}") from error
    if any(noun not in one for noun, one in filled.items()):
        raise argparse.ArgumentTypeError(f"{text!r} has no place for the noun; accepted is a text with {{noun}} in it")
    return text


def sampler_from_arguments(args: argparse.Namespace) -> tuple[DiffusionPipeline, SamplingSettings]:
    """The model that --model or --pipeline names, and its settings from the options of `add_sampling_arguments`.

    Raises:
        ValueError: an option of the other kind of model, or as in the functions that load and resolve.
    """
    pipeline, settings = _loaded_sampler(args)
    if args.template is None:
        return pipeline, settings
    if settings.prompts is None:
        raise ValueError(f"--template is {args.template!r}, but {settings.model} takes no prompts")
    return pipeline, replace(settings, template=args.template)


def _loaded_sampler(args: argparse.Namespace) -> tuple[DiffusionPipeline, SamplingSettings]:
    device = PartialState().device
    if args.model:
        if args.call or args.trust_remote_code:
            raise ValueError("--call and --trust-remote-code are options of --pipeline; --model takes --steps")
        pipeline = load_sampler(args.model, device)
        if args.scheduler:
            choose_scheduler(pipeline, args.scheduler)
        sampling = args.steps, args.guidance_scale, args.interval
        return pipeline, resolve_settings(
            pipeline, args.model, args.seed, args.prompts, *sampling, args.dtype, args.compile
        )
    for name in ("steps", "guidance_scale", "interval", "scheduler"):
        if getattr(args, name) is not None:
            option = "--" + name.replace("_", "-")
            raise ValueError(f"{option} is an option of --model; of --pipeline it is part of --call, if it takes it")
    call = parse_call(args.call)
    pipeline, revision = load_diffusers_pipeline(args.pipeline, device, args.trust_remote_code)
    options = revision, call, args.seed, args.prompts, args.dtype, args.compile
    settings = resolve_pipeline_settings(pipeline, args.pipeline, *options)
    if args.batch_size > 1 and not takes_generators(pipeline):
        raise ValueError(f"{settings.pipeline_class} takes one generator a call: --batch-size 1 is needed")
    return pipeline, settings


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m eval.generate", description=__doc__.splitlines()[0])
    add_model_arguments(parser.add_mutually_exclusive_group(required=True))
    parser.add_argument("--output", required=True, help="a folder for PNG files, or a file that ends in .npz")
    add_sampling_arguments(parser)
    args = parser.parse_args(argv)
    open_store(args.output)
    check_sample_count(args.n)
    manifest = generate(*sampler_from_arguments(args), args.output, args.n, args.batch_size)
    print(f"{manifest['n']} samples of {manifest['model']} in {args.output} (NFE {manifest['nfe'] or 'not known'})")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
