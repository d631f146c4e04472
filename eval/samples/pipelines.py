"""Load checkpoints and diffusers pipelines, compile their networks, count their evaluations."""

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from safetensors import SafetensorError

from eval.protocol import HASHED_SUFFIXES, SAMPLING_LIBRARIES, folder_sha256, library_versions
from eval.samples.prompts import DEFAULT_TEMPLATE, SamplePlan
from eval.samples.settings import SamplingSettings
from mobilediff.checkpoints import INDEX_NAME, load_component, load_pipeline
from mobilediff.ondevice.exported import ExportedPipeline
from mobilediff.pipeline import MobileDiffusionPipeline

BATCH_ARGUMENTS = ("prompt", "batch_size", "class_labels")
RESERVED = ("prompt", "batch_size", "generator", "latents", "num_images_per_prompt", "output_type", "return_dict")
STATED = ("num_inference_steps", "guidance_scale")
NETWORKS = ("unet", "transformer")
# This project's checkpoints leave their code out, as it is versioned with the project.
PIPELINE_SUFFIXES = (*HASHED_SUFFIXES, ".model", ".py")


@dataclass(frozen=True, kw_only=True)
class PipelineSettings(SamplingSettings):
    """Describe the sampling of a diffusers pipeline.

    Attributes:
        revision: the commit on the hub, None for a folder.
        pipeline_class: name of its class.
        batch_arguments: the arguments that each batch gets, of "prompt", "batch_size" and "class_labels".
        call: further arguments of its call, steps and guidance among them where it takes them; of a list
            `class_labels`, image `i` takes number `i` modulo its length.
    """

    revision: str | None
    pipeline_class: str
    batch_arguments: list[str]
    call: dict

    def call_arguments(self, plan: SamplePlan, indices: list[int]) -> dict:
        arguments = dict(self.call)
        if "prompt" in self.batch_arguments:
            arguments["prompt"] = plan.prompts_of(indices)
        if "batch_size" in self.batch_arguments:
            arguments["batch_size"] = len(indices)
        if "class_labels" in self.batch_arguments:
            labels = self.call["class_labels"]
            arguments["class_labels"] = [labels[index % len(labels)] for index in indices]
        return arguments


def parse_call(text: str | None) -> dict:
    """Parse --call, a JSON object of arguments.

    Raises:
        ValueError: not a JSON object.
    """

    def refuse(constant: str):
        raise ValueError(f"it holds {constant}")

    try:
        call = json.loads(text or "{}", parse_constant=refuse)
    except ValueError as error:
        raise ValueError(f"--call {text!r} is not JSON: {error}") from error
    if not isinstance(call, dict):
        raise ValueError(f"--call {text!r}: accepted is a JSON object, as '{{\"num_inference_steps\": 50}}'")
    return call


def load_diffusers_pipeline(
    name: str, device: torch.device | str = "cpu", trust_remote_code: bool = False
) -> tuple[DiffusionPipeline, str | None]:
    """Load a pipeline in fp32, without its progress bar, and its revision on the hub.

    Args:
        name: a folder that `save_pretrained` wrote, or owner/name on the hub.
        device: of the pipeline.
        trust_remote_code: run code that comes with it.

    Raises:
        FileNotFoundError: there is no such pipeline, or the hub cannot be reached.
        ValueError: a file of it is missing or corrupt, its weights lack tensors or are not safetensors, or it needs
            code of its own.
    """
    folder, revision = Path(name), None
    options = {"use_safetensors": True, "trust_remote_code": trust_remote_code}
    if not folder.is_dir():
        folder = _downloaded(name, options)
        revision = folder.name
    if not (folder / INDEX_NAME).is_file():
        raise FileNotFoundError(f"--pipeline {name} is no diffusers pipeline: it has no {INDEX_NAME}")
    try:
        pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"--pipeline {name} cannot be loaded; weights must be safetensors, and code of its own runs only with "
            f"--trust-remote-code: {error}"
        ) from error
    for part, component in pipeline.components.items():
        if isinstance(component, torch.nn.Module):
            load_component(type(component), folder / part)  # again: a pipeline hides the tensors it lacked
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device), revision


def _downloaded(name: str, options: dict) -> Path:
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise FileNotFoundError(f"--pipeline {name} is neither a folder nor a name on the hub (owner/name)")
    try:
        return Path(DiffusionPipeline.download(name, **options))
    except Exception as error:  # diffusers, the hub's client and the network raise errors without a common parent
        raise FileNotFoundError(
            f"--pipeline {name} is no folder, and cannot be had from the hub with safetensors: {error}. "
            "--pipeline also takes a folder that was downloaded elsewhere"
        ) from error


def resolve_pipeline_settings(
    pipeline: DiffusionPipeline,
    name: str,
    revision: str | None = None,
    call: dict | None = None,
    seed: int = 0,
    prompts: str = "class",
    dtype: str = "fp32",
    compiled: bool = False,
) -> PipelineSettings:
    """Resolve the settings of a pipeline: prompts where it takes some, else a batch size or labels.

    Raises:
        ValueError: `call` holds an argument that the pipeline does not take, or lacks one that it needs; or as in
            `SamplingSettings`.
    """
    call = _stated_defaults(pipeline) | (call or {})
    batch_arguments = _batch_arguments(pipeline, call)
    prompted = "prompt" in batch_arguments
    return PipelineSettings(
        model=name if revision else Path(name).resolve().name,
        model_sha256=None if revision else folder_sha256(name, PIPELINE_SUFFIXES),
        seed=seed,
        prompts=prompts if prompted else None,
        template=DEFAULT_TEMPLATE if prompted else None,
        dtype=dtype,
        compiled=compiled,
        versions=library_versions(SAMPLING_LIBRARIES),
        revision=revision,
        pipeline_class=type(pipeline).__name__,
        batch_arguments=batch_arguments,
        call=call,
    )


def _stated_defaults(pipeline: DiffusionPipeline) -> dict:
    """Return the call's default steps and guidance, for the protocol."""
    parameters = inspect.signature(pipeline.__call__).parameters
    defaults = {name: parameters[name].default for name in STATED if name in parameters}
    return {name: value for name, value in defaults.items() if isinstance(value, int | float)}


def _batch_arguments(pipeline: DiffusionPipeline, call: dict) -> list[str]:
    kind, parameters = type(pipeline).__name__, inspect.signature(pipeline.__call__).parameters
    if reserved := sorted(set(call) & set(RESERVED)):
        raise ValueError(f"--call holds {', '.join(reserved)}: not yours to say here, samples are planned and seeded")
    if unknown := sorted(set(call) - set(parameters)):
        raise ValueError(f"--call holds {', '.join(unknown)}; the call of {kind} takes {', '.join(parameters)}")
    if "generator" not in parameters:
        raise ValueError(f"{kind} takes no generator: its images could not be drawn again")
    given = [name for name in BATCH_ARGUMENTS if name in parameters]
    if "prompt" in given:
        given = ["prompt"]
    elif "class_labels" in given:
        labels = call.get("class_labels", [])
        if labels is None:
            given.remove("class_labels")
        elif not isinstance(labels, list) or not labels:
            raise ValueError(
                f"{kind} is class-conditional and its classes are its own: --call '{{\"class_labels\": [207, 360]}}' "
                "names them, in turn over the images, and null is for none"
            )
    if not given:
        raise ValueError(f"{kind} makes no images from prompts, class labels or noise alone")
    needed = [name for name, one in parameters.items() if one.default is one.empty and one.kind != one.VAR_KEYWORD]
    if missing := sorted(set(needed) - set(given) - set(call) - {"generator"}):
        raise ValueError(f"{kind} needs {', '.join(missing)}: --call has to say it")
    return given


def takes_generators(pipeline: DiffusionPipeline) -> bool:
    """Return whether the pipeline's call is annotated to take a list of generators."""
    return "list" in str(inspect.signature(pipeline.__call__).parameters["generator"].annotation).lower()


def networks_of(pipeline: DiffusionPipeline | ExportedPipeline) -> list[torch.nn.Module]:
    """List the components that every step calls: named unet or transformer, suffix or not."""
    parts = [part for name, part in pipeline.components.items() if name.split("_")[0] in NETWORKS]
    return list(dict.fromkeys(part for part in parts if isinstance(part, torch.nn.Module)))


@contextmanager
def compiled_networks(pipeline: DiffusionPipeline | ExportedPipeline) -> Iterator[None]:
    """Compile the networks for the block; the first call of a shape takes about a minute longer.

    Raises:
        ValueError: there is none.
    """
    networks = networks_of(pipeline)
    if not networks:
        raise ValueError(f"{type(pipeline).__name__} has no component named {' or '.join(NETWORKS)} to compile")
    for network in networks:
        network.forward = torch.compile(network.forward, dynamic=False)  # guided and unguided steps are two shapes
    try:
        yield
    finally:
        for network in networks:
            del network.forward  # the instance's own, which hid the class's


@contextmanager
def counted_evaluations(pipeline: DiffusionPipeline | ExportedPipeline) -> Iterator[list[int]]:
    """Count the rows of each call of the pipeline's networks, in the yielded list.

    Its sum over the images drawn is the NFE; a guided step has two rows an image. The list stays empty where there are
    no networks.
    """
    rows = []

    def count(module, arguments, named):
        sample, *_ = (*arguments, *named.values())  # the first argument of a network is its noisy input
        rows.append(len(sample))

    handles = [network.register_forward_pre_hook(count, with_kwargs=True) for network in networks_of(pipeline)]
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()


def load_sampler(
    folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> MobileDiffusionPipeline:
    """Load a checkpoint with its progress bar off; errors as in `mobilediff.checkpoints.load_pipeline`."""
    pipeline = load_pipeline(folder, dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


@contextmanager
def with_network(pipeline: MobileDiffusionPipeline, unet: torch.nn.Module) -> Iterator[None]:
    """Let a pipeline sample with another network of the same inputs and outputs within a `with` block."""
    before = pipeline.unet
    pipeline.register_modules(unet=unet)
    try:
        yield
    finally:
        pipeline.register_modules(unet=before)
