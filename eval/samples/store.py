"""Keep samples on disk, as PNG files or an npz file, and draw missing ones."""

import hashlib
import json
import shutil
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from diffusers import DiffusionPipeline
from PIL import Image
from tqdm import tqdm

from eval.protocol import device_description
from eval.samples.draw import draw_samples
from eval.samples.images import IMAGE_SUFFIXES, LABELS, MANIFEST, ImageSet, read_images
from eval.samples.pipelines import compiled_networks, counted_evaluations
from eval.samples.prompts import SamplePlan, plan_samples
from eval.samples.settings import SamplingSettings
from mobilediff.files import atomic_path, read_json, write_json
from mobilediff.ondevice.exported import ExportedPipeline


class PngFolder:
    """Keep samples as <index>.png with manifest.json and labels.json beside them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.manifest = folder / MANIFEST

    def done(self) -> set[int]:
        """List the indices of the samples on disk."""
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
        """Write the labels beside the images."""
        labels = {"class_labels": plan.class_labels, "noun_ids": plan.noun_ids, "prompts": plan.prompts}
        with atomic_path(self.folder / LABELS) as temporary:
            temporary.write_text(json.dumps(labels), encoding="utf-8")


class NpzFile:
    """Keep samples as one npz file: `images`, uint8 [N, H, W, 3], labels and protocol.

    Batches wait as shards in <file>.parts.
    """

    def __init__(self, file: Path):
        self.file = file
        self.parts = file.with_name(file.name + ".parts")
        self.manifest = file.with_suffix(".json")

    def done(self) -> set[int]:
        """List the indices of the samples on disk."""
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
        arrays: dict[str, Any] = {"images": images} | {
            name: np.array(one) for name, one in labels.items() if one is not None
        }
        with atomic_path(self.file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays, protocol=np.array(json.dumps(manifest)))
        shutil.rmtree(self.parts, ignore_errors=True)


def open_store(output: str | Path) -> PngFolder | NpzFile:
    """Open the store of an --output: an npz file by its suffix, else a folder of PNG files."""
    output = Path(output)
    if output.suffix == ".npz":
        return NpzFile(output)
    if output.is_file():
        raise ValueError(f"--output is {output}; accepted is a folder (for PNG files) or a file that ends in .npz")
    return PngFolder(output)


def check_resume(store: PngFolder | NpzFile, settings: SamplingSettings, n: int) -> set[int]:
    """List the indices on disk, refusing samples of another protocol.

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
    # Sample i depends neither on the device nor on the number of samples.
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
    pipeline: DiffusionPipeline | ExportedPipeline,
    settings: SamplingSettings,
    output: str | Path,
    n: int,
    batch_size: int = 100,
) -> dict:
    """Draw the samples that `output` lacks.

    Under `accelerate launch` each process draws a part of the same images.

    Args:
        pipeline: from `load_sampler`, `load_exported_sampler` or `load_diffusers_pipeline`.
        settings: from `resolve_settings`, `load_exported_sampler` or `resolve_pipeline_settings`.
        output: a folder, or a file that ends in .npz.
        n: samples in all.
        batch_size: samples drawn at once; the noise does not depend on it.

    Returns:
        The manifest: the protocol, device, `complete`, and `nfe`: the checkpoint's, else counted by the main process
        over its part, None where there is nothing to count.

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


DEFAULT_SAMPLES = Path("outputs/samples")


def kept_samples(pipeline, settings: SamplingSettings, n: int, batch_size: int, folder: str | Path) -> ImageSet:
    """Read the first `n` samples under `settings`, drawing those missing in `folder`.

    The file is named after the settings, so that samples of another protocol are never taken for these.
    """
    key = hashlib.sha256(json.dumps(settings.identity(), sort_keys=True).encode()).hexdigest()[:12]
    file = Path(folder) / f"{Path(settings.model).name}-{key}.npz"
    manifest = file.with_suffix(".json")
    kept = read_json(manifest) if file.exists() and manifest.exists() else {"complete": False}
    if not kept["complete"] or kept["n"] < n:
        generate(pipeline, settings, file, max(n, kept.get("n", 0)), batch_size)
    return read_images(file).first(n)
