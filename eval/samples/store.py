"""Keep samples on disk, as PNG files or an npz file, and draw missing ones."""

import hashlib
import json
import shutil
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from diffusers import DiffusionPipeline
from filelock import FileLock, Timeout
from PIL import Image
from tqdm import tqdm

from eval.protocol import device_description, tensor_sha256
from eval.samples.draw import batches_of, draw_samples
from eval.samples.images import LABELS, MANIFEST, ImageSet, image_files, read_images
from eval.samples.pipelines import compiled_networks, counted_evaluations
from eval.samples.prompts import SamplePlan, check_prompts_are_read, plan_samples
from eval.samples.settings import SamplingSettings
from mobilediff.files import atomic_path, read_json, writable_file, write_json
from mobilediff.ondevice.exported import ExportedPipeline

# What reading a file of samples raises where it is cut off, overwritten or of another kind.
DAMAGED = (zipfile.BadZipFile, ValueError, OSError, EOFError, KeyError, TypeError)


class PngFolder:
    """Keep samples as <index>.png with manifest.json and labels.json beside them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.manifest = folder / MANIFEST

    def done(self) -> set[int]:
        """List the indices of the samples on disk."""
        if not self.folder.is_dir():
            return set()
        files, _ = image_files(self.folder)
        foreign = [path.name for path in files if not (path.stem.isdecimal() and path.suffix == ".png")]
        if foreign:
            raise ValueError(f"{self.folder} holds {foreign[0]}, which is no sample: choose another folder")
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

    def paths(self) -> list[Path]:
        """List the files that hold samples: the file itself, if it is there, and its shards."""
        return [path for path in [self.file, *sorted(self.parts.glob("*.npz"))] if path.exists()]

    def _read(self):
        for path in self.paths():
            try:
                with np.load(path, allow_pickle=False) as part:
                    images = part["images"]
                    indices = part["indices"] if "indices" in part.files else np.arange(len(images))
            except DAMAGED as error:
                raise ValueError(f"{path} is damaged, delete it to draw its samples again: {error}") from error
            yield indices, images

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
    """Open the store of an --output: an npz file by its suffix, else a folder of PNG files.

    Raises:
        ValueError: an empty name, or a file of another suffix.
        OSError: it cannot be written.
    """
    accepted = "accepted is a folder (for PNG files) or a file that ends in .npz"
    if not str(output):
        raise ValueError(f"--output is empty; {accepted}")
    output = Path(output)
    if output.suffix.lower() == ".npz":
        writable_file(output)
        store = NpzFile(output)
    elif output.exists() and not output.is_dir():
        raise ValueError(f"--output is {output}; {accepted}")
    else:
        store = PngFolder(output)
    writable_file(store.manifest)
    return store


@contextmanager
def drawing_alone(output: str | Path) -> Iterator[None]:
    """Hold the lock of an --output in the main process, waiting for another command that draws into it.

    The lock is a hidden file beside the output; the processes of one `accelerate launch` share it.
    """
    state, output = PartialState(), Path(output).resolve()
    lock = FileLock(output.with_name(f".{output.name}.lock"))
    if state.is_main_process:
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"another command draws into {output}: waiting for it", file=sys.stderr)
            lock.acquire()
    state.wait_for_everyone()
    try:
        yield
    finally:
        lock.release()


def check_resume(store: PngFolder | NpzFile, settings: SamplingSettings, n: int) -> set[int]:
    """List the indices on disk, refusing samples of another protocol.

    A larger `n` continues a smaller set, because sample `i` does not depend on `n`.

    Raises:
        ValueError: the samples there were made under another protocol, are more than `n`, or have no manifest.
    """
    done = store.done()
    if not store.manifest.exists():
        if done:
            raise ValueError(f"samples without {store.manifest}: their protocol is not known, choose another place")
        return done
    there, wanted = read_json(store.manifest), settings.protocol(n)
    # Sample i depends neither on the device nor on the number of samples.
    different = [key for key in asdict(settings) if key not in there or there[key] != wanted[key]]
    if different:
        detail = "; ".join(f"{key} is {there.get(key)!r} there, {wanted[key]!r} here" for key in different)
        raise ValueError(f"{store.manifest} is of another protocol ({detail}): choose another place")
    if done and max(done) >= n:
        raise ValueError(f"{store.manifest} is of {max(done) + 1} samples or more, over n = {n}: choose another place")
    return done


def generate(
    pipeline: DiffusionPipeline | ExportedPipeline,
    settings: SamplingSettings,
    output: str | Path,
    n: int,
    batch_size: int = 100,
) -> dict:
    """Draw the samples that `output` lacks; one command at a time, and a second one waits.

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
        ValueError: as in `open_store`, `check_resume`, `plan_samples`, `check_prompts_are_read` and `draw_samples`.
        OSError: as in `open_store`.
    """
    plan = plan_samples(n, settings.prompts, settings.template)
    store = open_store(output)
    with drawing_alone(output):
        return _draw_missing(pipeline, settings, plan, store, batch_size)


def manifest_of(settings: SamplingSettings, n: int, device: torch.device, nfe: float | None = None) -> dict:
    """Describe `n` samples that are not all drawn: settings, device and, where `settings` do not say it, the NFE."""
    return {"nfe": nfe} | settings.protocol(n) | device_description(device) | {"complete": False}


def samples_in_memory(
    images: torch.Tensor, settings: SamplingSettings, plan: SamplePlan, device: torch.device
) -> ImageSet:
    """Hold the first samples of a plan as `kept_samples` reads them.

    Args:
        images: uint8 [N, 3, H, W], N at most that of the plan.
        device: that drew them.
    """
    n = len(images)
    protocol = manifest_of(settings, n, device) | {"complete": True, "images_sha256": tensor_sha256(images)}
    class_labels, noun_ids = (
        None if one is None else torch.tensor(one[:n]) for one in (plan.class_labels, plan.noun_ids)
    )
    return ImageSet(images, class_labels, noun_ids, None if plan.prompts is None else plan.prompts[:n], protocol)


def _draw_missing(
    pipeline: DiffusionPipeline | ExportedPipeline,
    settings: SamplingSettings,
    plan: SamplePlan,
    store: PngFolder | NpzFile,
    batch_size: int,
) -> dict:
    """Draw the samples that the store lacks, as `generate` does, with its lock held."""
    state, n = PartialState(), plan.n
    done = check_resume(store, settings, n)
    there = read_json(store.manifest) if store.manifest.exists() else {"nfe": None, "complete": False}
    manifest = manifest_of(settings, n, pipeline.device, there["nfe"])
    state.wait_for_everyone()  # nobody writes before everybody has looked
    if len(done) == n and there["complete"]:
        return there
    check_prompts_are_read(pipeline, plan, settings.model)
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
        nfe = sum(evaluations) / sum(map(len, batches_of(missing, batch_size, settings.compiled)))
        manifest["nfe"] = int(nfe) if nfe.is_integer() else nfe
    if state.is_main_process:
        store.finish(plan, manifest)
        write_json(store.manifest, manifest)
    state.wait_for_everyone()
    return manifest


DEFAULT_SAMPLES = Path("outputs/samples")


def kept_samples(pipeline, settings: SamplingSettings, n: int, batch_size: int, folder: str | Path) -> ImageSet:
    """Read the first `n` samples under `settings`, drawing those missing in `folder`.

    The file is named after the settings, so that samples of another protocol are never taken for these. A damaged file
    is drawn again, which a line on stderr says.
    """
    key = hashlib.sha256(json.dumps(settings.identity(), sort_keys=True).encode()).hexdigest()[:12]
    file = Path(folder) / f"{Path(settings.model).name}-{key}.npz"
    if (images := _read_kept(file, n)) is not None:
        return images
    store = NpzFile(file)
    for path in (file, store.manifest):
        writable_file(path)
    with drawing_alone(file):
        if PartialState().is_main_process:
            _drop_damaged(store)
        PartialState().wait_for_everyone()
        kept = read_json(store.manifest)["n"] if file.exists() and store.manifest.exists() else 0
        plan = plan_samples(max(n, kept), settings.prompts, settings.template)
        _draw_missing(pipeline, settings, plan, store, batch_size)
    return read_images(file).first(n)


def _read_kept(file: Path, n: int) -> ImageSet | None:
    """Read the first `n` samples; None where they are not all there, or damaged."""
    try:
        kept = read_json(NpzFile(file).manifest)
        return read_images(file).first(n) if kept["complete"] and kept["n"] >= n else None
    except DAMAGED:
        return None


def _drop_damaged(store: NpzFile) -> None:
    """Delete what is damaged of kept samples: the file and its shards, and all of them without a whole manifest."""
    if not store.paths():
        store.manifest.unlink(missing_ok=True)
        return
    try:
        manifest = read_json(store.manifest)
        _ = manifest["complete"], manifest["n"]
    except DAMAGED as error:
        print(f"{store.manifest} is damaged, its samples are drawn again: {error}", file=sys.stderr)
        for path in (store.manifest, *store.paths()):
            path.unlink(missing_ok=True)
    for path in store.paths():
        try:
            _check_arrays(path)
        except DAMAGED as error:
            print(f"{path} is damaged, its samples are drawn again: {error}", file=sys.stderr)
            path.unlink()


def _check_arrays(path: Path) -> None:
    with np.load(path, allow_pickle=False) as arrays:
        indices = arrays["indices"] if "indices" in arrays.files else arrays["images"]
        if len(indices) != len(arrays["images"]):
            raise ValueError("its images are not those of its indices")
