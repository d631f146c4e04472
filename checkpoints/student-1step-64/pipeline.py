"""Draw CIFAR-10-sized images from prompts with any checkpoint of the family."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from diffusers import AutoencoderKL
from diffusers import AutoencoderTiny
from diffusers import DiffusionPipeline
from diffusers import ImagePipelineOutput
from diffusers.callbacks import MultiPipelineCallbacks
from diffusers.callbacks import PipelineCallback
from diffusers.image_processor import VaeImageProcessor
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import DIFFUSERS_DYNAMIC_MODULE_NAME
from diffusers.utils import convert_state_dict_to_peft
from diffusers.utils import convert_unet_state_dict_to_peft
from diffusers.utils import logging
from diffusers.utils.peft_utils import recurse_remove_peft_layers
from diffusers.utils.torch_utils import randn_tensor
from functools import cache
from functools import lru_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from importlib.util import cache_from_source
from numbers import Integral
from numbers import Real
from pathlib import Path
from safetensors import SafetensorError
from transformers import CLIPTextModelWithProjection
from transformers import CLIPTokenizer
from typing import Any
import ast
import copy
import difflib
import hashlib
import importlib
import inspect
import json
import math
import os
import re
import sys
import tempfile
import threading
import torch
import unicodedata
import warnings


# --- mobilediff.sampling.calls
# Keep the state of a call apart from that of other calls, of other threads among them.


class Call:
    """Hold the state of one call of a pipeline, which callbacks read and set through the pipeline."""

    def __init__(self, guidance_scale: float, num_timesteps: int, one_prompt: bool):
        self.guidance_scale = guidance_scale
        self.one_prompt = one_prompt
        self.num_timesteps = num_timesteps
        self.interrupt = False


def embeddings_of_step(
    tensors: dict[str, torch.Tensor], batch_size: int, branches: int, one_prompt: bool
) -> list[torch.Tensor]:
    """Return the text's embeddings of a step, [branches * batch_size, L, D] and [branches * batch_size, P].

    Where all images have one prompt, a callback may leave one row for all of them.

    Raises:
        ValueError: a callback left another number of rows than the step needs.
    """
    embeddings = []
    for name in ("prompt_embeds", "pooled_prompt_embeds"):
        embeds = tensors[name]
        if len(embeds) == branches == 1 and one_prompt:
            embeds = embeds.expand(batch_size, *embeds.shape[1:])
        if len(embeds) not in (branches * batch_size, 2 * batch_size):
            raise ValueError(
                f"a callback left {len(embeds)} rows of {name}; this step of {batch_size} images "
                f"takes {branches * batch_size}"
            )
        embeddings.append(embeds)
    return embeddings


class CallStateMixin:
    """Let callbacks read and set the state of the call that they belong to, as in diffusers' pipelines."""

    _calls: set[Call]
    _thread: threading.local

    @property
    def _call(self) -> Call:
        """Return the call under way in this thread, or else its last one."""
        if not hasattr(self._thread, "call"):
            raise AttributeError("no call has been made in this thread")
        return self._thread.call

    @property
    def guidance_scale(self) -> float:
        """Return the scale that the call samples with; a callback may set `_guidance_scale`."""
        return self._call.guidance_scale

    @property
    def _guidance_scale(self) -> float:
        return self._call.guidance_scale

    @_guidance_scale.setter
    def _guidance_scale(self, value: float) -> None:
        self._call.guidance_scale = value

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Return whether the call's steps are guided within the interval."""
        return self.guidance_scale > 1

    @property
    def num_timesteps(self) -> int:
        """Return the number of the call's steps."""
        return self._call.num_timesteps

    @property
    def interrupt(self) -> bool:
        """Return whether the call stops before its next step.

        A callback or another thread may set `_interrupt`.
        """
        return self._call.interrupt

    @property
    def _interrupt(self) -> bool:
        return self._call.interrupt

    @_interrupt.setter
    def _interrupt(self, value: bool) -> None:
        calls, own = list(self._calls), getattr(self._thread, "call", None)
        for call in [call for call in calls if call is own] or calls:
            call.interrupt = value


# --- mobilediff.sampling.code
# Ship code inside checkpoints, and keep the code of loaded ones apart.


# Where the package keeps the classes that a checkpoint may carry a copy of.
PACKAGE_MODULES = {
    "MobileDiffusionPipeline": "mobilediff.pipeline",
    "MobileDiffusionControlPipeline": "mobilediff.downstream.control",
    "MobileDiffusionInpaintPipeline": "mobilediff.downstream.inpaint",
    "MobileControlNet": "mobilediff.models.mobile_controlnet",
    "MobileUNet": "mobilediff.models.mobile_unet",
    "UFOGenScheduler": "mobilediff.schedulers.ufogen",
    "DistilledDDIMScheduler": "mobilediff.schedulers.distilled_ddim",
}

PACKAGE = "mobilediff"

# Where diffusers copies the code of local folders to, and runs it under the files' bare names.
LOCAL_CODE = f"{DIFFUSERS_DYNAMIC_MODULE_NAME}.local"

CODE_HASH = re.compile(r"_[0-9a-f]{12}$")


def isolate_code(cls: type) -> None:
    """Rename the module of a class from a local folder after the hash of its code.

    diffusers runs the `pipeline.py` of every local folder in one module: another version's functions and constants
    would replace those that this version's methods call. Python tells bytecode apart by second and size alone, so
    that this version could also run as the other. The renamed module and its file stay as they were loaded.
    """
    shared = cls.__module__
    package, _, stem = shared.rpartition(".")
    module = sys.modules.get(shared)
    if package != LOCAL_CODE or CODE_HASH.search(stem) or module is None or vars(module).get(cls.__name__) is not cls:
        return
    source = Path(inspect.getfile(cls))
    content = source.read_bytes()
    stem = f"{stem}_{hashlib.sha256(content).hexdigest()[:12]}"
    own = source.with_name(f"{stem}.py")
    _replace_file(own, content)
    Path(cache_from_source(source)).unlink(missing_ok=True)
    for value in list(vars(module).values()):
        if getattr(value, "__module__", None) == shared:
            value.__module__ = f"{package}.{stem}"
    module.__name__, module.__file__ = f"{package}.{stem}", str(own)
    sys.modules[module.__name__] = sys.modules.pop(shared)


def _replace_file(file: Path, content: bytes) -> None:
    """Write a file that takes the place of an older one in one piece."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, file)


def bundled_source(file: Path) -> str:
    """Join the code of a file and of the package's modules that it imports.

    diffusers puts the code of all local folders into one package, copies direct relative imports alone, and never
    reloads these, so that a folder's second file would be mistaken for another folder's.

    Returns:
        Code that imports nothing of the package: all imports, then each module after those that it imports; a file
        without such imports as it is.
    """
    content = file.read_bytes().decode()
    imports, sections = set(), {}
    _collect(content, file.stem, imports, sections)
    if len(sections) == 1:
        return content
    head = "\n".join(content.splitlines()[: ast.parse(content).body[0].end_lineno])
    return "\n\n".join([head, "\n".join(sorted(imports)), *sections.values()]) + "\n"


def _collect(content: str, name: str, imports: set[str], sections: dict[str, str]) -> None:
    """Add a module's imports, and its other code after that of the package's modules that it imports."""
    lines: list[str | None] = list(content.splitlines())
    docstring, *statements = ast.parse(content).body
    removed = [docstring]
    for node in statements:
        if isinstance(node, ast.Import):
            imports |= {ast.unparse(ast.Import([alias])) for alias in node.names}
        elif not isinstance(node, ast.ImportFrom):
            continue
        elif (module := str(node.module)).split(".")[0] != PACKAGE:
            imports |= {ast.unparse(ast.ImportFrom(module, [alias], 0)) for alias in node.names}
        elif module not in sections:
            _collect(inspect.getsource(importlib.import_module(module)), module, imports, sections)
        removed.append(node)
    for node in removed:
        for index in range(node.lineno - 1, node.end_lineno or node.lineno):
            lines[index] = None
    body = "\n".join(line for line in lines if line is not None).strip()
    text = ast.literal_eval(ast.unparse(docstring))
    title = "\n".join(f"# {line}".rstrip() for line in text.splitlines())
    sections[name] = f"\n# --- {name}\n{title}\n\n\n{body}"


def copy_source(cls: type, folder: Path) -> list[str]:
    """Write the code of a class into a checkpoint, as one file.

    Returns:
        The class's entry in the index, such as ["mobile_unet", "MobileUNet"].

    Raises:
        ValueError: there is no file from which another process could load the class.
    """
    source = source_file(cls)
    module = CODE_HASH.sub("", source.stem)  # which the code of a checkpoint carries once it is loaded
    folder.mkdir(parents=True, exist_ok=True)
    _replace_file(folder / f"{module}.py", bundled_source(source).encode())
    return [module, cls.__name__]


def name_code(config: Path, entry: list[str]) -> None:
    """Write into a network's config which class diffusers' `AutoModel` takes from the file beside it.

    Args:
        config: the file, replaced in one piece if it names another class.
        entry: as `copy_source` returns.
    """
    content = json.loads(config.read_text(encoding="utf-8"))
    named = content | {"auto_map": {"AutoModel": ".".join(entry)}}
    if named != content:
        _replace_file(config, (json.dumps(named, indent=2, sort_keys=True) + "\n").encode())


def source_file(cls: type) -> Path:
    """Find the file that defines a class; raises as `copy_source` does."""
    module = sys.modules.get(cls.__module__)
    file = Path(getattr(module, "__file__", None) or "")
    if cls.__module__ == "__main__" or not file.is_file() or not hasattr(module, cls.__qualname__):
        raise ValueError(
            f"the class {cls.__module__}.{cls.__qualname__} cannot be saved; accepted are classes at the top of a "
            "module that is a file of its own, which can be copied into the checkpoint"
        )
    return file


# --- mobilediff.sampling.networks
# Run network and VAE: noise, predictions and pixels, in slices and in the precision that each takes.


# Images that network and VAE work on at once; more are drawn in slices. A guided call has twice as many rows.
MAX_SLICE = 256

# A VAE that decodes in another precision than it is kept in is changed for as long.
_UPCASTING = threading.Lock()


def compute_dtype(model: ModelMixin, first_layer: torch.nn.Conv2d) -> torch.dtype:
    """Return the precision that a model computes in."""
    # `model.dtype` looks through every module for casting hooks; where they are, the first layer has one.
    return model.dtype if hasattr(first_layer, "_diffusers_hook") else first_layer.weight.dtype


def compute_device(network: Any) -> torch.device:
    """Return the device that a network computes on: its weights', or where accelerate brings them."""
    for module in network.modules() if hasattr(network, "_hf_hook") else ():
        device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return torch.device(device)
    return network.device


# What the methods of mixins are called on; not DiffusionPipeline, of which diffusers accepts one class a file.
PipelineBase: Any = object


class NetworksMixin(PipelineBase):
    """Run network and VAE on any number of images, some at once."""

    unet: Any
    vae: Any

    @property
    def _execution_device(self) -> torch.device:
        # diffusers looks through every module of every component for offloading hooks, which takes longer than a
        # fifth of a one-step network call; without an accelerator there is nothing to offload from.
        if not torch.accelerator.is_available():
            return torch.device("cpu")
        return super()._execution_device

    def _latent_shape(self, batch_size: int) -> tuple[int, int, int, int]:
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return batch_size, self.unet.config.in_channels, height, width

    def prepare_latents(
        self, batch_size: int, generator, latents: torch.Tensor | None, device: torch.device
    ) -> torch.Tensor:
        """Draw initial noise in float32, or take `latents`; [B, C, H, W] in the network's precision."""
        if latents is None:
            shape = self._latent_shape(batch_size)
            latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        return latents.to(device=device, dtype=compute_dtype(self.unet, self.unet.conv_in))

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode normalised latents [B, C, H, W] to images in [-1, 1], float32 [B, 3, H', W'].

        Raises:
            ValueError: a pixel is NaN or infinite.
        """
        config, latents = self.vae.config, latents.float()
        if "latents_mean" in config:
            mean = torch.tensor(config.latents_mean, device=latents.device).view(1, -1, 1, 1)
            std = torch.tensor(config.latents_std, device=latents.device).view(1, -1, 1, 1)
            latents = latents * std + mean
        else:  # AutoencoderTiny has one number for all channels
            latents = latents / config.scaling_factor + config.shift_factor
        images = torch.cat([self._decode(part) for part in latents.split(MAX_SLICE)])
        if not torch.isfinite(images).all():
            raise ValueError(
                f"decoding ended in NaN or infinite pixels, so there is no image; the VAE, {type(self.vae).__name__}, "
                f"is kept in {self.vae.dtype}"
            )
        return images

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        decoder = self.vae.decoder
        first_layer = decoder.layers[0] if hasattr(decoder, "layers") else decoder.conv_in
        with _UPCASTING:
            dtype = compute_dtype(self.vae, first_layer)
            # A VAE's activations may overflow in float16, which its config says by diffusers' `force_upcast`.
            if dtype == torch.float16 and self.vae.config.force_upcast:
                self.vae.to(torch.float32)
                try:
                    return self.vae.decode(latents, return_dict=False)[0]
                finally:
                    self.vae.to(dtype)
        return self.vae.decode(latents.to(dtype), return_dict=False)[0].float()

    def _predict(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        prompt_embeds: torch.Tensor,
        pooled_prompt_embeds: torch.Tensor,
        scale: float | None,
    ) -> torch.Tensor:
        """Compute the network's output for B latents, [B, C, H, W], guided where `scale` is given.

        Args:
            latents: x_t as the network takes it, [B, C, H, W].
            timestep: t of all of them.
            prompt_embeds, pooled_prompt_embeds: of B rows, or 2 B with those of the unconditional branch in front.
        """
        batch_size, branches = len(latents), 1 if scale is None else 2
        conditioning = [
            embeds.unflatten(0, (-1, batch_size))[-branches:] for embeds in (prompt_embeds, pooled_prompt_embeds)
        ]
        outputs = []
        for start in range(0, batch_size, MAX_SLICE):
            part = slice(start, start + MAX_SLICE)
            hidden_states, pooled = (embeds[:, part].flatten(0, 1) for embeds in conditioning)
            output = self._run_network(torch.cat([latents[part]] * branches), timestep, hidden_states, pooled, part)
            if scale is not None:
                null_output, text_output = output.chunk(2)
                output = null_output + scale * (text_output - null_output)
            outputs.append(output)
        return torch.cat(outputs)

    def _run_network(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        prompt_embeds: torch.Tensor,
        pooled_prompt_embeds: torch.Tensor,
        part: slice,
    ) -> torch.Tensor:
        """Call the network on one slice of the call's images; a pipeline with further inputs overrides this.

        Args:
            sample: latents of R rows, [R, C, H, W]: those of the slice, twice if guided.
            timestep: t of all of them.
            prompt_embeds, pooled_prompt_embeds: of R rows.
            part: which of the call's images these are.
        """
        return self.unet(
            sample,
            timestep,
            encoder_hidden_states=prompt_embeds,
            class_labels=pooled_prompt_embeds,
            return_dict=False,
        )[0]


# --- mobilediff.sampling.prompts
# Read prompts: tokens, embeddings, and warnings about what a checkpoint does not know.


# CIFAR-10's classes in the order of its labels.
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# Neighbouring words of a prompt that are compared with the known names.
MAX_COMPARED_PHRASES = 64

# Fast tokenizers keep padding and truncation from call to call, and raise if another thread changes them meanwhile.
_TOKENIZING = threading.Lock()


def is_unicode(text: str) -> bool:
    """Return whether a text can be encoded, which one with half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def readable(prompt: str, tokenizer: CLIPTokenizer) -> str:
    """Drop invisible characters (Unicode's category Cf) and the tokenizer's own marks, such as <|endoftext|>.

    Raises:
        ValueError: the prompt holds half of a surrogate pair, which no tokenizer takes.
    """
    if not prompt.isascii():
        if not is_unicode(prompt):
            raise ValueError(f"prompt is {prompt!r}, which holds half of a surrogate pair; accepted: whole characters")
        prompt = "".join(character for character in prompt if unicodedata.category(character) != "Cf")
    for mark in tokenizer.all_special_tokens:
        prompt = prompt.replace(mark, " ")
    return prompt


def encode_text(
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModelWithProjection,
    prompts: list[str],
    device: torch.device | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode prompts as the conditioning of all networks, in training and sampling alike.

    Args:
        tokenizer: pads and cuts every prompt to L = `tokenizer.model_max_length` tokens.
        text_encoder: hidden size D, projection size P.
        prompts: B strings, read as `readable` says.
        device: where the encoder computes; by default where its weights are.

    Returns:
        Hidden states for cross-attention, [B, L, D], and the projected embedding of the end token, [B, P].

    Raises:
        ValueError: as in `readable`.
    """
    texts = [readable(prompt, tokenizer) for prompt in prompts]
    with _TOKENIZING:
        tokens = tokenizer(
            texts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
        )
    output = text_encoder(tokens.input_ids.to(device or text_encoder.device))
    return output.last_hidden_state, output.text_embeds


def check_vocabulary(tokenizer: CLIPTokenizer, text_encoder: CLIPTextModelWithProjection) -> None:
    """Refuse a tokenizer that is not the text encoder's.

    Raises:
        ValueError: their numbers of tokens differ, as where the tokenizer's files are missing.
    """
    known, embedded = len(tokenizer), text_encoder.get_input_embeddings().num_embeddings
    if known != embedded:
        raise ValueError(
            f"the tokenizer knows {known} tokens, the text encoder embeds {embedded}; "
            "accepted: a checkpoint whose folder tokenizer holds tokenizer.json as it was exported"
        )


def _words(text: str) -> list[str]:
    """Split text into lower-case words without quotes, possessive endings and hyphens."""
    text = re.sub(r"'s?\b|'", " ", re.sub(r"['\u2018\u2019\u02bc]", "'", text.lower()))
    return re.findall(r"\w+", text)


def _phrases(words: Sequence[str], longest: int) -> list[str]:
    """List phrases of one to `longest` neighbouring words, from the prompt's start on."""
    return [
        " ".join(words[i : i + n]) for i in range(len(words)) for n in range(1, longest + 1) if i + n <= len(words)
    ]


@lru_cache(8)
def _forms(names: tuple[str, ...]) -> frozenset[str]:
    """List the names as `_words` reads them, singular and plural."""
    forms = set()
    for name in (" ".join(_words(name)) for name in names):
        forms |= {name, f"{name}s", f"{name}es"}
        if name.endswith("y"):
            forms.add(f"{name[:-1]}ies")
    return frozenset(forms)


def nearest_names(prompt: str, names: Sequence[str], count: int = 3) -> list[str]:
    """Find the `count` names nearest to phrases of the prompt, best first.

    A phrase is one to three neighbouring words; the first 64 are compared, by `difflib`'s ratio of at least 0.5.
    """
    phrases = list(dict.fromkeys(_phrases(_words(prompt), 3)))[:MAX_COMPARED_PHRASES]
    if not phrases:
        return []
    alphabet = sorted({character for text in (*phrases, *names) for character in text})
    ours, theirs = (
        torch.tensor([[text.count(character) for character in alphabet] for text in texts], dtype=torch.int16)
        for texts in (phrases, names)
    )
    # The ratio of two texts is at most what it would be if their common letters stood in one order.
    common = torch.minimum(ours[:, None], theirs[None]).sum(dim=-1).double()
    bounds = 2 * common / (ours.sum(dim=-1)[:, None] + theirs.sum(dim=-1)[None])
    scores, least = {}, 0.5
    for index in bounds.flatten().argsort(descending=True).tolist():
        phrase, name = phrases[index // len(names)], names[index % len(names)]
        if bounds[index // len(names), index % len(names)] < least:
            break
        ratio = difflib.SequenceMatcher(None, phrase, name).ratio()
        if ratio >= least:
            scores[name] = max(scores.get(name, 0.0), ratio)
            best = sorted(scores.values(), reverse=True)
            least = best[count - 1] if len(best) >= count else least
    return sorted(scores, key=lambda name: (-scores[name], name))[:count]


def find_prompt_warnings(prompt: str, nouns: tuple[str, ...] | None, tokenizer: CLIPTokenizer, most: int) -> list[str]:
    """Warn that a prompt's end is not read, or that it names no known noun.

    Args:
        nouns: known beside the classes; None for no warning about names.
        most: tokens that are read.
    """
    warnings, text = [], readable(prompt, tokenizer)
    with _TOKENIZING:
        tokens = tokenizer(text, return_offsets_mapping=True)
    if (count := len(tokens.input_ids)) > most:
        warnings.append(f"The prompt {prompt!r} has {count} tokens; what follows the first {most} is not read.")
        text = text[: tokens.offset_mapping[most - 2][1]]  # the last place is the end token's
    if nouns is None:
        return warnings
    names = sorted({*nouns, *CLASS_NAMES})
    words = _words(text)
    if _forms(tuple(names)).isdisjoint(_phrases(words, max(len(_words(name)) for name in names))):
        nearest = nearest_names(text, names) or list(CLASS_NAMES)
        warnings.append(
            f"The prompt {prompt!r} names nothing that the model was trained on, so the image may show anything. "
            f"Nearest known names: {', '.join(nearest)}."
        )
    return warnings


# --- mobilediff.sampling.conditioning
# Condition the network: prompts, classes or embeddings in, hidden states and pooled embeddings out.


# Prompts whose text embeddings a pipeline keeps: more than twice the known names, at most 20 MB.
MAX_CACHED_PROMPTS = 1024


def encode_one(prompt: str, tokenizer, text_encoder, device, *_) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode one prompt by `encode_text`, [1, L, D] and [1, P]; a cache tells calls apart by `_` too."""
    return encode_text(tokenizer, text_encoder, [prompt], device)


def _weights_state(network: torch.nn.Module) -> tuple | None:
    """Identify a network's weights, so that a change in place or of tensors shows.

    Returns:
        Where each tensor lies and how often it was written to; None if the output depends on more: hooks, adapters,
        dropout, or if changes cannot be seen. A write by way of `tensor.data` is not counted.
    """
    state = []
    for module in network.modules():
        if module.training or module._forward_hooks or module._forward_pre_hooks or "base_layer" in module._modules:
            return None
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None:
                if tensor.is_inference():  # whose changes are not counted
                    return None
                state.append((id(tensor), tensor.data_ptr(), tensor._version))
    return tuple(state)


def check_tensor(name: str, tensor: torch.Tensor, shape: tuple[int | None, ...]) -> None:
    """Refuse anything but a finite tensor of a shape, of which None stands for any length."""
    got = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
    fits = isinstance(got, tuple) and len(got) == len(shape)
    if not fits or any(length not in (None, found) for found, length in zip(got, shape, strict=True)):
        accepted = ", ".join("any" if length is None else str(length) for length in shape)
        raise ValueError(f"{name} is {got}, accepted: a tensor of shape ({accepted})")
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} holds NaN or infinite values")


class ConditioningMixin:
    """Turn prompts, classes and embeddings into the network's conditioning, and keep the embeddings of prompts."""

    config: Any
    unet: Any
    text_encoder: Any
    tokenizer: Any
    _execution_device: torch.device

    def _start_cache(self) -> None:
        self._encode_one = lru_cache(MAX_CACHED_PROMPTS)(encode_one)
        self._prompt_warnings = lru_cache(MAX_CACHED_PROMPTS)(find_prompt_warnings)

    def _check_conditioning(
        self, prompt, class_labels, prompt_embeds, pooled_prompt_embeds
    ) -> tuple[list[str] | None, int]:
        """Return the prompts, not yet repeated, or None for embeddings, and the rows' number.

        Raises:
            ValueError: not one of prompt, class_labels and prompt_embeds is given, or it is not what is accepted.
        """
        if (prompt_embeds is None) != (pooled_prompt_embeds is None):
            missing = "prompt_embeds" if prompt_embeds is None else "pooled_prompt_embeds"
            raise ValueError(f"{missing} is None; accepted: prompt_embeds and pooled_prompt_embeds together")
        given = [value for value in (prompt, class_labels, prompt_embeds) if value is not None]
        if len(given) != 1:
            raise ValueError(
                "pass either prompt or class_labels (or prompt_embeds with pooled_prompt_embeds), "
                f"not {('neither', '', 'both', 'all')[len(given)]}"
            )
        if prompt_embeds is not None:
            self._check_embeds(prompt_embeds, pooled_prompt_embeds, "")
            return None, len(prompt_embeds)
        prompts = self._check_prompt(prompt) if class_labels is None else self._prompts_of_classes(class_labels)
        return prompts, len(prompts)

    def _check_embeds(self, embeds, pooled, prefix: str, count: int | None = None) -> None:
        config = self.unet.config
        if count is None:
            count = len(embeds) if isinstance(embeds, torch.Tensor) and embeds.ndim > 0 else 1
        check_tensor(f"{prefix}prompt_embeds", embeds, (count, None, config.cross_attention_dim))
        pooled_shape = (count, config.projection_class_embeddings_input_dim)
        check_tensor(f"{prefix}pooled_prompt_embeds", pooled, pooled_shape)

    def _check_negative(self, negative_prompt, embeds, pooled, count: int) -> list[str] | None:
        """Return the unconditional branch's prompts, one or `count`; None for embeddings."""
        if (embeds is None) != (pooled is None):
            missing = "negative_prompt_embeds" if embeds is None else "negative_pooled_prompt_embeds"
            raise ValueError(f"{missing} is None; accepted: both negative embeddings together")
        if negative_prompt is not None and embeds is not None:
            raise ValueError("pass either negative_prompt or negative_prompt_embeds, not both")
        if self.config.guidance_distilled and (negative_prompt or embeds is not None):
            name = "negative_prompt" if embeds is None else "negative_prompt_embeds"
            value = f" is {negative_prompt!r}" if embeds is None else " is given"
            raise ValueError(f"{name}{value}, but guidance is distilled into this checkpoint: accepted is None")
        if embeds is not None:
            self._check_embeds(embeds, pooled, "negative_", count)
            return None
        prompts = [self.config.null_prompt] if negative_prompt is None else self._check_prompt(negative_prompt)
        if len(prompts) not in (1, count):
            raise ValueError(f"negative_prompt is a list of {len(prompts)}, accepted: one, or one for each of {count}")
        return prompts

    def _check_prompt(self, prompt: str | list[str]) -> list[str]:
        prompts = [prompt] if isinstance(prompt, str) else prompt
        if not isinstance(prompts, (list, tuple)) or not prompts or not all(isinstance(p, str) for p in prompts):
            raise ValueError(f"prompt is {prompt!r}, accepted: a string or a list of at least one string")
        return list(prompts)

    def _prompts_of_classes(self, class_labels) -> list[str]:
        if isinstance(class_labels, (str, Integral)):
            class_labels = [class_labels]
        elif hasattr(class_labels, "tolist"):  # a tensor or an array
            class_labels = class_labels.reshape(-1).tolist()
        if not isinstance(class_labels, (list, tuple)) or not class_labels:
            raise ValueError(f"class_labels is {class_labels!r}, accepted: a class or a list of at least one class")
        prompts = []
        for label in class_labels:
            if isinstance(label, str) and label.strip().lower() in CLASS_NAMES:
                name = label.strip().lower()
            elif isinstance(label, Integral) and not isinstance(label, bool) and 0 <= int(label) < len(CLASS_NAMES):
                name = CLASS_NAMES[int(label)]
            else:
                raise ValueError(
                    f"class_labels holds {label!r}, accepted: {', '.join(CLASS_NAMES)}, or 0 to {len(CLASS_NAMES) - 1}"
                )
            prompts.append(self._prompt_of(name))
        return prompts

    def _prompt_of(self, name: str) -> str:
        """Fill `class_template` with a name and its article."""
        article = "an" if name[0] in "aeiou" else "a"
        return self.config.class_template.format(name, noun=name, article=article)

    def prompt_warnings(self, prompt: str) -> list[str]:
        """List the warnings that a call with this prompt logs, without drawing anything.

        One says that the prompt has more tokens than are read; one, where the checkpoint knows its nouns, that the
        prompt names none of them and no class. The null prompt is not asked for a name.
        """
        nouns = self.config.nouns if prompt != self.config.null_prompt else None
        known = None if nouns is None else tuple(nouns)
        return list(self._prompt_warnings(prompt, known, self.tokenizer, self.tokenizer.model_max_length))

    def cache_prompts(self, prompts: Sequence[str] | None = None) -> None:
        """Encode prompts ahead of time, so that a call with one of them does without the text encoder.

        Every call keeps the embeddings of its prompts as well, the last 1,024 of all. They hold until text encoder,
        tokenizer, device, precision, autocast or weights change; only after a write to a weight's `data`, which torch
        does not count, call `forget_prompts`. A text encoder with hooks or adapters encodes at every call.

        Args:
            prompts: by default `class_template` with every class and known noun, and the null prompt.
        """
        if prompts is None:
            names = dict.fromkeys([*CLASS_NAMES, *(self.config.nouns or ())])
            prompts = [*map(self._prompt_of, names), self.config.null_prompt]
        with torch.no_grad():
            self._encode(list(prompts))

    def forget_prompts(self) -> None:
        """Drop all kept text embeddings and warnings."""
        self._encode_one.cache_clear()
        self._prompt_warnings.cache_clear()

    def _encode(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode each prompt alone, so that its embeddings do not depend on the others.

        Returns:
            Hidden states [B, L, D] and pooled embeddings [B, P].
        """
        device = compute_device(self.text_encoder)
        weights = _weights_state(self.text_encoder)
        autocast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
        length = self.tokenizer.model_max_length
        known_by = self.tokenizer, self.text_encoder, device, self.text_encoder.dtype, autocast, length, weights
        keeps = weights is not None and not torch.is_grad_enabled()  # what is kept has no gradient
        encode = self._encode_one if keeps else encode_one
        hidden_states, pooled = zip(*[encode(prompt, *known_by) for prompt in prompts], strict=True)
        return torch.cat(hidden_states), torch.cat(pooled)

    def encode_prompt(
        self,
        prompt: str | list[str] | None = None,
        device: torch.device | None = None,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        negative_prompt: str | list[str] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        pooled_prompt_embeds: torch.Tensor | None = None,
        negative_pooled_prompt_embeds: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor | None]:
        """Encode prompts for B = prompts * `num_images_per_prompt` images, those of a prompt side by side.

        Args:
            prompt: one or several; or `prompt_embeds` and `pooled_prompt_embeds`, a row each.
            device: where the result lies; by default where the pipeline computes.
            do_classifier_free_guidance: whether the unconditional branch is encoded as well.
            negative_prompt: one, or one for each prompt; by default the checkpoint's null prompt. Or
                `negative_prompt_embeds` and `negative_pooled_prompt_embeds`.

        Returns:
            prompt_embeds [B, L, D], negative_prompt_embeds, pooled_prompt_embeds [B, P],
            negative_pooled_prompt_embeds; the negative ones are None without guidance.

        Raises:
            ValueError: text and embeddings are both or neither given, or have the wrong type, shape or number.
        """
        prompts, count = self._check_conditioning(prompt, None, prompt_embeds, pooled_prompt_embeds)
        positive: Any = (prompt_embeds, pooled_prompt_embeds) if prompts is None else self._encode(prompts)
        negative = negative_prompt_embeds, negative_pooled_prompt_embeds
        negative_prompts = self._check_negative(negative_prompt, *negative, count)
        if do_classifier_free_guidance and negative_prompts is not None:
            negative = self._encode(negative_prompts)
        elif not do_classifier_free_guidance:
            negative = None, None
        device, dtype = device or self._execution_device, compute_dtype(self.unet, self.unet.conv_in)

        def arrange(embeds: torch.Tensor) -> torch.Tensor:
            embeds = embeds.to(device=device, dtype=dtype).expand(count, *embeds.shape[1:])
            return embeds.repeat_interleave(num_images_per_prompt, dim=0)

        hidden_states, pooled = map(arrange, positive)
        null_hidden_states, null_pooled = (None if embeds is None else arrange(embeds) for embeds in negative)
        return hidden_states, null_hidden_states, pooled, null_pooled


# --- mobilediff.sampling.loras
# Load LoRA adapters (arXiv 2106.09685), after a look at every tensor of the file.


LORA_MATRIX = re.compile(r"^(?P<layer>.+)\.lora_(?P<matrix>[AB])\.weight$")


class LorasMixin(PipelineBase):
    """Load adapters of a pipeline's network and text encoder whole or not at all."""

    unet: Any
    text_encoder: Any
    text_encoder_name: str

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: str | os.PathLike | dict[str, torch.Tensor],
        adapter_name: str | None = None,
        hotswap: bool = False,
        **kwargs,
    ) -> None:
        """Load a LoRA as diffusers does, from safetensors alone.

        Args:
            pretrained_model_name_or_path_or_dict: a file, a folder of one, a name on the hub, or tensors.
            adapter_name: for `set_adapters`; by default one that is not taken.
            hotswap: whether the LoRA takes the place of the one of that name.
            kwargs: as for `StableDiffusionLoraLoaderMixin.load_lora_weights`.

        Raises:
            ValueError: the name is taken or cannot be one, or the file is damaged, a pickle, of another network or of
                another rank than its index says; before any work.
            FileNotFoundError: there is no such file, or none in the folder.
        """
        source = pretrained_model_name_or_path_or_dict
        options: dict[str, Any] = kwargs | {"use_safetensors": True}
        self._check_adapter_name(adapter_name, hotswap)
        if not isinstance(source, dict):
            options["weight_name"] = _weight_name(Path(source), options.get("weight_name"))
            source = os.fspath(source)
        try:
            tensors, _, index = self.lora_state_dict(source, return_lora_metadata=True, **options)
        except (SafetensorError, UnicodeDecodeError, json.JSONDecodeError, KeyError) as error:
            raise ValueError(f"{source} is damaged, incomplete or no safetensors file: {error}") from error
        shown = "the given dictionary" if isinstance(source, dict) else str(source)
        check_lora(shown, tensors, index, {"unet": self.unet, "text_encoder": self.text_encoder})
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # of each adapter after the first
            super().load_lora_weights(source, adapter_name=adapter_name, hotswap=hotswap, **options)
        # peft computes in the precision of the file; diffusers' own `to` warns of every cast
        torch.nn.Module.to(self.unet, compute_dtype(self.unet, self.unet.conv_in))

    @classmethod
    def load_lora_into_text_encoder(cls, state_dict: dict[str, torch.Tensor], *args, **kwargs) -> None:
        """Load the text encoder's part, where there is one; diffusers would warn that there is none."""
        if any(key.startswith(f"{cls.text_encoder_name}.") for key in state_dict):
            super().load_lora_into_text_encoder(state_dict, *args, **kwargs)

    def _check_adapter_name(self, name: str | None, hotswap: bool) -> None:
        """Refuse a name that torch takes for no module's, or that another adapter has: ValueError."""
        taken = sorted({one for adapters in self.get_list_adapters().values() for one in adapters})
        if name is None or (hotswap and name in taken):
            return
        if not isinstance(name, str) or not name.isidentifier() or hasattr(torch.nn.ModuleDict(), name):
            raise ValueError(f"adapter_name is {name!r}; accepted are letters, digits and _, as in an identifier")
        if name in taken:
            raise ValueError(f"adapter_name is {name!r}, which is taken; loaded are {', '.join(taken)}")


def _weight_name(path: Path, name: str | None) -> str | None:
    """Choose the file of a local folder; None for a file, or where diffusers looks on the hub.

    Raises:
        ValueError: the file is no safetensors file, or the folder has several and `name` is None.
        FileNotFoundError: the folder has none, or there is nothing of that name, which is none on the hub either.
    """
    if not path.exists():
        try:
            validate_repo_id(path.as_posix())
        except HFValidationError as error:
            raise FileNotFoundError(f"{path} does not exist; accepted is a LoRA's file or folder") from error
    file = path if name is None or path.is_file() else path / name
    if path.is_dir() and name is None:
        found = sorted(path.glob("*.safetensors"))
        if not found:
            raise FileNotFoundError(f"{path} holds no .safetensors file; a LoRA in another format is not loaded")
        if len(found) > 1:
            names = ", ".join(one.name for one in found)
            raise ValueError(f"{path} holds {names}; give the weight_name of one")
        return found[0].name
    if path.exists() and not file.is_file():
        raise FileNotFoundError(f"{file} does not exist; accepted is a .safetensors file of a LoRA")
    if file.is_file() and file.suffix != ".safetensors":
        raise ValueError(f"{file} may hold pickled code and is not loaded; a LoRA must be .safetensors")
    return name


def check_lora(
    source: str, tensors: dict[str, torch.Tensor], index: Mapping[str, Any] | None, components: dict[str, Any]
) -> None:
    """Refuse a LoRA that does not fit.

    Args:
        source: its name in an error.
        tensors: by the keys that diffusers writes, such as "unet.conv_in.lora_A.weight".
        index: the adapter's config that the file holds, such as {"unet.r": 8}; None for none.
        components: network and text encoder, by the first word of the keys.

    Raises:
        ValueError: naming the layer, and what is accepted.
    """
    if index is not None and not isinstance(index, Mapping):
        raise ValueError(f"{source} has a {type(index).__name__} as its index; accepted is an object")
    for key in tensors:
        if key.split(".")[0] not in components:
            raise ValueError(f"{source} has {key}; accepted are tensors of {' and '.join(components)}")
    for name, component in components.items():
        own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        if own and not any(".lora_A." in key for key in own):
            own = (convert_unet_state_dict_to_peft if name == "unet" else convert_state_dict_to_peft)(own)
        own_index = {
            key.removeprefix(f"{name}."): value for key, value in (index or {}).items() if key.startswith(f"{name}.")
        }
        _check_index(source, own_index)
        _check_layers(source, own, own_index, component)
    if not tensors:
        raise ValueError(f"{source} holds no tensor; accepted is a LoRA")


def _check_index(source: str, index: dict[str, Any]) -> None:
    """Refuse an index that peft cannot read, or whose factors are no finite numbers: ValueError."""
    # not by an import statement, for which diffusers would warn of a checkpoint's code where the extra is missing
    peft = importlib.import_module("peft")
    try:
        config = peft.LoraConfig(**index)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{source} has an index that is no LoRA's: {error}") from error
    patterns = {"rank_pattern": config.rank_pattern, "alpha_pattern": config.alpha_pattern}
    for name, pattern in patterns.items():
        if not isinstance(pattern or {}, Mapping):
            raise ValueError(f"{source}: {name} of its index is {pattern!r}; accepted is an object")
    for name, alpha in {"lora_alpha": config.lora_alpha, **(config.alpha_pattern or {})}.items():
        if not isinstance(alpha, Real) or not math.isfinite(alpha):
            raise ValueError(f"{source}: {name} of its index is {alpha!r}; accepted is a finite number")


def _check_layers(source: str, tensors: dict[str, torch.Tensor], index: dict, component: Any) -> None:
    """Refuse matrices that do not fit a component's layers or the index: ValueError."""
    kind = type(component).__name__
    layers = dict(component.named_modules()) if component is not None else {}
    matrices: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        match = LORA_MATRIX.match(key)
        if match is None:
            raise ValueError(f"{source} has {key}, which is no matrix of a LoRA; accepted are lora_A and lora_B")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{source}: {key} has values that are NaN or infinite")
        matrices.setdefault(match["layer"], {})[match["matrix"]] = tensor
    for name, pair in matrices.items():
        layer = layers.get(name) or layers.get(name.removeprefix("text_model."))  # of an older version's text encoder
        weight = getattr(getattr(layer, "base_layer", layer), "weight", None)
        if weight is None or weight.ndim not in (2, 4):
            raise ValueError(f"{source} is of another network: {kind} has no layer {name} that takes a LoRA")
        if len(pair) < 2:
            raise ValueError(f"{source} lacks lora_{'B' if 'A' in pair else 'A'} of {name}; accepted is both")
        rank, expected = len(pair["A"]), tuple(weight.shape)
        fits = pair["A"].shape[1:] == weight.shape[1:] and pair["B"].shape[:2] == (len(weight), rank)
        if not fits:
            shapes = " and ".join(str(list(pair[matrix].shape)) for matrix in "AB")
            raise ValueError(
                f"{source} is of another network: its matrices of {name} are {shapes}, but the weights of {kind} "
                f"are {list(expected)}"
            )
        patterns = {re.sub(r"^\^", "", key): value for key, value in (index.get("rank_pattern") or {}).items()}
        said = patterns.get(name, index.get("r", rank))
        if said != rank:
            raise ValueError(f"{source} has rank {rank} at {name}, but its index says {said}; accepted is the same")


# --- mobilediff.sampling.saving
# Save and load pipelines with the code that they need, and make one of another's components.


# The file of a network's configuration, beside its weights.
NETWORK_CONFIG = "config.json"

# How the file begins that stands for one that Git LFS has not fetched.
LFS_POINTER = b"version https://git-lfs"

# The attribute by which a network remembers the options of its pipeline.
OPTIONS_OF_PIPELINE = "_options_of_pipeline"

# What a pipeline's options are where nothing else is said.
DEFAULTS = {
    "nouns": None,
    "null_prompt": "",
    "class_template": "a photo of {article} {noun}",
    "default_num_inference_steps": 50,
    "default_guidance_scale": 3.0,
    "default_guidance_low": 0.0,
    "default_guidance_high": 1.0,
    "guidance_distilled": False,
}


def _unwrapped(component: Any) -> Any:
    """Unwrap a network from torch.compile or peft; adapters are merged into a copy's weights."""
    component = getattr(component, "_orig_mod", component)
    peft = sys.modules.get("peft")
    if peft is None or not isinstance(component, torch.nn.Module):
        return component
    if isinstance(component, peft.PeftModel):
        return copy.deepcopy(component).merge_and_unload()  # pyright: ignore[reportCallIssue]
    layer_class = peft.tuners.tuners_utils.BaseTunerLayer
    if not any(isinstance(module, layer_class) for module in component.modules()):
        return component
    component = copy.deepcopy(component)
    for module in component.modules():
        if isinstance(module, layer_class) and not module.disable_adapters:
            module.merge()
    recurse_remove_peft_layers(component)
    component._hf_peft_config_loaded = False
    return component


def _shipped_classes(pipeline: Any) -> dict[str, type]:
    """Find the classes that no library has, by their keys in the index."""
    classes = {"_class_name": type(pipeline)}
    for name, component in pipeline.components.items():
        if component is not None and type(component).__module__.split(".")[0] not in LOADABLE_CLASSES:
            classes[name] = type(component)
    return classes


def _drop_infinite_defaults(file: Path, scheduler: SchedulerMixin) -> None:
    """Drop infinite defaults, which JSON does not have, from a scheduler's config; its own and another scheduler's."""
    defaults = {name: one.default for name, one in inspect.signature(type(scheduler)).parameters.items()}
    config = json.loads(file.read_text(encoding="utf-8"))
    for name, value in list(config.items()):
        if isinstance(value, float) and math.isinf(value) and value == defaults.get(name, value):
            del config[name]
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


class SavingMixin(PipelineBase):
    """Save, load and rebuild a pipeline together with its options and its code."""

    @property
    def components(self) -> dict:
        """Return the modules by name.

        The network remembers the options, so that a pipeline of these modules has the same.
        """
        components = super().components
        options = {name: self.config[name] for name in DEFAULTS}
        if getattr(self.unet, OPTIONS_OF_PIPELINE, None) != options:
            setattr(self.unet, OPTIONS_OF_PIPELINE, options)
        return components

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs):
        """Make a pipeline of another's components and options, of which `kwargs` replaces some.

        Args:
            kwargs: arguments of the class, or `dtype`, to which the shared components are then cast.
        """
        dtype = kwargs.pop("dtype", kwargs.pop("torch_dtype", None))
        known = {**pipeline.config, **pipeline.components}
        taken = {name: known[name] for name in inspect.signature(cls).parameters if name in known}
        new = cls(**(taken | kwargs))
        return new if dtype is None else new.to(dtype=dtype)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs) -> Any:
        """Load a checkpoint, as diffusers does, after a look at the files of a local folder.

        Raises:
            ValueError: a weights file is a Git LFS pointer, or there are no weights of the `variant`.
        """
        weights = sorted(Path(pretrained_model_name_or_path).glob("*/*.safetensors"))
        for file in weights:
            with file.open("rb") as stream:
                if stream.read(len(LFS_POINTER)) == LFS_POINTER:
                    raise ValueError(f"{file} is a Git LFS pointer, not the weights; run git lfs pull in its clone")
        variant = kwargs.get("variant")
        if weights and variant is not None and not any(f".{variant}." in file.name for file in weights):
            raise ValueError(
                f"variant is {variant!r}, but the weights in {pretrained_model_name_or_path} have no such "
                "variant; accepted is None: dtype says in which precision the weights are loaded"
            )
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def load_config(cls, *args, **kwargs):
        """Read the index of a checkpoint for `from_pretrained`.

        `DiffusionPipeline.from_pretrained(..., trust_remote_code=True)` runs the code inside the checkpoint. Called on
        this class of the installed package, the package's own classes stand in for that code, so nothing of the
        folder is executed and no trust is asked for.
        """
        config = super().load_config(*args, **kwargs)
        if __name__.split(".")[0] != PACKAGE:  # but a checkpoint's copy of this code
            return config
        index = config[0] if isinstance(config, tuple) else config
        if isinstance(index.get("_class_name"), (list, tuple)):
            index["_class_name"] = index["_class_name"][-1]
        for name, value in index.items():
            if isinstance(value, (list, tuple)) and value[-1] in PACKAGE_MODULES:
                module = PACKAGE_MODULES[value[-1]]
                importlib.import_module(module)  # diffusers takes component classes from loaded modules only
                index[name] = [module, value[-1]]
        return config

    @classmethod
    def extract_init_dict(cls, config_dict, **kwargs):
        """Sort the entries of an index, as diffusers does.

        Raises:
            ValueError: an entry is none of this class's, such as one of a newer version, which would be ignored.
        """
        known = inspect.signature(cls.__init__).parameters
        if unknown := [name for name in config_dict if name not in known and not name.startswith("_")]:
            raise ValueError(
                f"{cls.config_name} has {', '.join(unknown)}, which this code of {cls.__name__} does not know; "
                "accepted are checkpoints of this version or an older one"
            )
        return super().extract_init_dict(config_dict, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, *args, **kwargs) -> None:
        """Write a folder with its code, which loads where this package is not installed.

        Each file takes the place of an older one in one piece, the index last; other files stay. A network under
        `torch.compile` or peft is saved as the network that it is, its active adapters merged into the weights.

        Args:
            save_directory: a new or an older folder, that of this very pipeline too.
            args, kwargs: as for `DiffusionPipeline.save_pretrained`, `push_to_hub` among them.

        Raises:
            ValueError: the pipeline's class or a component's is of no file that could be shipped; before any work.
        """
        folder = Path(save_directory)
        plain = copy.copy(self)
        for name, component in self.components.items():
            setattr(plain, name, _unwrapped(component))
        for cls in _shipped_classes(plain).values():
            source_file(cls)
        folder.mkdir(parents=True, exist_ok=True)
        kwargs.setdefault("repo_id", folder.resolve().name)
        # Weights in memory may be views of the files there, so these are replaced and not written to.
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as scratch:
            super(SavingMixin, plain).save_pretrained(scratch, *args, **kwargs)
            # safetensors' files are for their owner alone, the index for whom it may be
            mode = Path(scratch, self.config_name).stat().st_mode
            files = [file for file in Path(scratch).rglob("*") if file.is_file()]
            for file in sorted(files, key=lambda file: file.name == self.config_name):
                target = folder / file.relative_to(scratch)
                target.parent.mkdir(parents=True, exist_ok=True)
                file.chmod(mode & 0o777)
                os.replace(file, target)

    def save_config(self, save_directory: str | os.PathLike, **kwargs) -> None:
        """Write the index, and the code that it names."""
        super().save_config(save_directory, **kwargs)
        file = Path(save_directory, self.config_name)
        index = json.loads(file.read_text(encoding="utf-8"))
        index.pop("_name_or_path", None)
        for name, cls in _shipped_classes(self).items():
            index[name] = copy_source(cls, file.parent if name == "_class_name" else file.parent / name)
            if issubclass(cls, torch.nn.Module):
                name_code(file.parent / name / NETWORK_CONFIG, index[name])
        file.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        scheduler_config = Path(save_directory, "scheduler", self.scheduler.config_name)
        if scheduler_config.is_file():
            _drop_infinite_defaults(scheduler_config, self.scheduler)


# --- mobilediff.sampling.scheduling
# Choose timesteps and guidance: which a checkpoint is for, and which a scheduler can take.


def checked_interval(interval: Sequence[float]) -> tuple[float, float]:
    """Check a guidance interval and return it as two floats.

    Raises:
        ValueError: not two numbers of which 0 <= first < second <= 1.
    """
    bounds = tuple(interval) if isinstance(interval, (list, tuple)) else (interval,)
    numbers = all(isinstance(bound, Real) and not isinstance(bound, bool) for bound in bounds)
    if len(bounds) != 2 or not numbers or not 0 <= bounds[0] < bounds[1] <= 1:
        raise ValueError(f"guidance_interval is {interval!r}, accepted: two numbers from 0 to 1, the lower one first")
    return float(bounds[0]), float(bounds[1])


def distilled_steps(scheduler: Any) -> list[int] | None:
    """Return the numbers of steps that the network was distilled for; None if it was not."""
    return scheduler.config.get("distilled_num_inference_steps")


@cache
def takes_generator(scheduler_class: Any) -> bool:
    """Return whether the scheduler's steps draw noise."""
    return "generator" in inspect.signature(scheduler_class.step).parameters


def own_state(scheduler: Any) -> Any:
    """Copy a scheduler; steps of the copy, which shares its tensors, leave it unchanged."""
    own = copy.copy(scheduler)
    for name, value in vars(scheduler).items():
        if isinstance(value, list):
            setattr(own, name, list(value))
        elif isinstance(value, SchedulerMixin):
            setattr(own, name, own_state(value))
    return own


def check_scheduler(scheduler_class: Any, config: dict) -> None:
    """Refuse a scheduler that cannot sample with a network that `config` was written for.

    Raises:
        ValueError: it calls the network more than once a step, or does not know the noise that the network was
            trained with.
    """
    name = scheduler_class.__name__
    known = inspect.signature(scheduler_class).parameters
    if scheduler_class.order != 1 or "skip_prk_steps" in known:  # PNDM's Runge-Kutta steps
        raise ValueError(f"{name} calls the network more than once a step; accepted are schedulers that do not")
    for key in ("beta_schedule", "prediction_type"):
        if key in config and key not in known:
            raise ValueError(f"{name} takes no {key}, but the network was trained with {config[key]}")
    if config.get("prediction_type") == "flow_prediction" and "use_flow_sigmas" not in known:
        raise ValueError(f"{name} takes no use_flow_sigmas, but the network was trained by flow matching")


def lay_out(scheduler: Any, num_inference_steps: int, device: torch.device) -> torch.Tensor:
    """Set and return the scheduler's timesteps, [num_inference_steps].

    Raises:
        ValueError: as in `check_scheduler`, or the scheduler lays out another number.
    """
    check_scheduler(type(scheduler), scheduler.config)
    scheduler.set_timesteps(num_inference_steps, device=device)
    # diffusers lays out one timestep too many, the last below 0, for a few counts that do not divide 1000.
    if len(scheduler.timesteps) != num_inference_steps:
        raise ValueError(
            f"num_inference_steps is {num_inference_steps}, for which {type(scheduler).__name__} lays out "
            f"{len(scheduler.timesteps)} timesteps; take a number near it"
        )
    return scheduler.timesteps


class StepsMixin:
    """Resolve steps, guidance and interval of a call from its arguments and the checkpoint's defaults."""

    config: Any
    scheduler: Any

    def nfe(
        self,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_interval: Sequence[float] | None = None,
    ) -> int:
        """Count the network evaluations of an image; a guided step counts as two.

        Raises:
            ValueError: for steps or guidance that this checkpoint was not made for.
        """
        steps, scale = self._resolve_steps(num_inference_steps), self._resolve_guidance(guidance_scale)
        interval = self._resolve_interval(guidance_interval)
        timesteps = lay_out(own_state(self.scheduler), steps, torch.device("cpu"))
        return steps + sum(self._guided_steps(timesteps, scale, interval))

    def _resolve_steps(self, num_inference_steps: int | None) -> int:
        if num_inference_steps is None:
            return self.config.default_num_inference_steps
        is_count = isinstance(num_inference_steps, Integral) and not isinstance(num_inference_steps, bool)
        distilled_for = distilled_steps(self.scheduler)
        if distilled_for is not None:
            if not is_count or num_inference_steps not in distilled_for:
                raise ValueError(
                    f"num_inference_steps is {num_inference_steps!r}, this checkpoint was distilled for "
                    f"{' or '.join(map(str, distilled_for))}"
                )
        elif not is_count or not 1 <= num_inference_steps <= self.scheduler.config.num_train_timesteps:
            raise ValueError(
                f"num_inference_steps is {num_inference_steps!r}, accepted: whole numbers from 1 to "
                f"{self.scheduler.config.num_train_timesteps}"
            )
        return int(num_inference_steps)

    def _resolve_guidance(self, guidance_scale: float | None) -> float:
        if guidance_scale is None:
            return 1.0 if self.config.guidance_distilled else self.config.default_guidance_scale
        is_number = isinstance(guidance_scale, Real) and not isinstance(guidance_scale, bool)
        if not is_number or not math.isfinite(guidance_scale) or guidance_scale < 0:
            raise ValueError(
                f"guidance_scale is {guidance_scale!r}, accepted: finite numbers from 0; up to 1 means no guidance"
            )
        if self.config.guidance_distilled and guidance_scale > 1:
            raise ValueError(
                f"guidance_scale is {guidance_scale!r}, but guidance is distilled into this checkpoint: "
                "accepted are None and numbers from 0 to 1"
            )
        return float(guidance_scale)

    def _resolve_interval(self, guidance_interval: Sequence[float] | None) -> tuple[float, float]:
        if guidance_interval is None:
            return self.config.default_guidance_low, self.config.default_guidance_high
        if self.config.guidance_distilled:
            raise ValueError(
                f"guidance_interval is {guidance_interval!r}, but guidance is distilled into this checkpoint: "
                "accepted is None"
            )
        return checked_interval(guidance_interval)

    def _check_start(self, scheduler: Any, timesteps: torch.Tensor) -> None:
        """Refuse timesteps from which a distilled network was not taught to start."""
        last = scheduler.config.num_train_timesteps - 1
        if self.config.guidance_distilled and abs(float(timesteps[0]) - last) >= 1:
            raise ValueError(
                f"{type(scheduler).__name__} starts at timestep {float(timesteps[0]):g}, but this checkpoint was "
                f"distilled to start at {last}; accepted are schedulers with timestep_spacing='trailing'"
            )

    def _guided_steps(self, timesteps: torch.Tensor, scale: float, interval: tuple[float, float]) -> list[bool]:
        """Return of each step whether it is guided."""
        if scale <= 1:
            return [False] * len(timesteps)
        low, high = (bound * self.scheduler.config.num_train_timesteps for bound in interval)
        return [low <= timestep <= high for timestep in timesteps.tolist()]


# --- pipeline
# Draw CIFAR-10-sized images from prompts with any checkpoint of the family.


logger = logging.get_logger(__name__)

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


class MobileDiffusionPipeline(
    SavingMixin,
    ConditioningMixin,
    StepsMixin,
    CallStateMixin,
    NetworksMixin,
    LorasMixin,
    DiffusionPipeline,
    StableDiffusionLoraLoaderMixin,
):
    """Generate images from prompts or classes in the latent space of a small VAE.

    Args:
        vae: `AutoencoderKL` whose config holds `latents_mean` and `latents_std`, one number a latent channel, or
            `AutoencoderTiny`; None for `output_type="latent"` alone.
        text_encoder: frozen `CLIPTextModelWithProjection`; None, as the tokenizer, for `prompt_embeds` alone.
        tokenizer: its tokenizer.
        unet: `UNet2DConditionModel` or `MobileUNet`; takes the text's hidden states as `encoder_hidden_states` and
            its pooled embedding as `class_labels`.
        scheduler: one of diffusers', or one with `distilled_num_inference_steps` in its config.
        nouns: the nouns of the training captions and their class index; without them there is no warning about
            unknown prompts.
        null_prompt: the prompt of the unconditional branch of classifier-free guidance.
        class_template: makes a prompt of a class name; `{noun}` (or `{}`) and, if wanted, `{article}`.
        default_num_inference_steps: steps this checkpoint was made for.
        default_guidance_scale: guidance this checkpoint was made for; not used if `guidance_distilled`.
        default_guidance_low, default_guidance_high: interval in which that guidance applies; see `__call__`.
        guidance_distilled: whether guidance is folded into the weights, so that none may be asked for.

    An option that is not given is that of the pipeline whose `components` these are, or else of `DEFAULTS`.

    Raises:
        ValueError: an option, a pair of components or a component's config does not fit.
    """

    config: Any  # a FrozenDict, whose keys are attributes too
    model_cpu_offload_seq = "text_encoder->unet->vae"
    _callback_tensor_inputs = ["latents", "prompt_embeds", "pooled_prompt_embeds"]
    _optional_components = ["vae", "text_encoder", "tokenizer"]

    def __init__(
        self,
        vae: AutoencoderKL | AutoencoderTiny,
        text_encoder: CLIPTextModelWithProjection,
        tokenizer: CLIPTokenizer,
        unet: ModelMixin,
        scheduler: SchedulerMixin,
        nouns: dict[str, int] | None = None,
        null_prompt: str | None = None,
        class_template: str | None = None,
        default_num_inference_steps: int | None = None,
        default_guidance_scale: float | None = None,
        default_guidance_low: float | None = None,
        default_guidance_high: float | None = None,
        guidance_distilled: bool | None = None,
    ):
        super().__init__()
        for cls in (MobileDiffusionPipeline, *map(type, (vae, text_encoder, tokenizer, unet, scheduler))):
            isolate_code(cls)
        given = {
            "nouns": nouns,
            "null_prompt": null_prompt,
            "class_template": class_template,
            "default_num_inference_steps": default_num_inference_steps,
            "default_guidance_scale": default_guidance_scale,
            "default_guidance_low": default_guidance_low,  # a list would be taken for a component
            "default_guidance_high": default_guidance_high,
            "guidance_distilled": guidance_distilled,
        }
        given = {name: value for name, value in given.items() if value is not None}
        options = DEFAULTS | getattr(unet, OPTIONS_OF_PIPELINE, {}) | given
        for name in ("default_guidance_scale", "default_guidance_low", "default_guidance_high"):
            options[name] = float(options[name])
        checked_interval((options["default_guidance_low"], options["default_guidance_high"]))
        if isinstance(vae, AutoencoderKL) and None in (vae.config["latents_mean"], vae.config["latents_std"]):
            raise ValueError("the VAE's config holds no latents_mean and latents_std; both are needed to decode")
        if (text_encoder is None) != (tokenizer is None):
            missing = "tokenizer" if tokenizer is None else "text_encoder"
            raise ValueError(f"{missing} is None; accepted: text_encoder and tokenizer together, or neither")
        if text_encoder is not None:
            check_vocabulary(tokenizer, text_encoder)
        steps, distilled_for = options["default_num_inference_steps"], distilled_steps(scheduler)
        if distilled_for is not None and steps not in distilled_for:
            raise ValueError(
                f"default_num_inference_steps is {steps}, the scheduler is for {' or '.join(map(str, distilled_for))}"
            )
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler)
        self.register_to_config(**options)
        self.image_processor = VaeImageProcessor()
        self._start_afresh()

    def _start_afresh(self) -> None:
        """Make the state that no copy shares: kept embeddings and warnings, and the calls under way."""
        self._start_cache()
        self._calls: set[Call] = set()
        self._thread = threading.local()

    def __getstate__(self) -> dict:
        left_out = ("_encode_one", "_prompt_warnings", "_calls", "_thread")
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._start_afresh()

    def __repr__(self) -> str:
        shown = copy.copy(self)
        shown.register_to_config(nouns=f"{len(self.config.nouns or ())} nouns")
        return f"{type(self).__name__} {shown.to_json_string()}"

    def check_inputs(
        self,
        prompts: list[str] | None,
        batch_size: int,
        negative_prompts: list[str] | None,
        generator,
        latents,
        output_type,
        callback_on_step_end_tensor_inputs,
    ) -> None:
        """Refuse bad arguments of `__call__`, and a network that they are too few for, before any work.

        Raises:
            ValueError: naming the argument, its value and what is accepted.
        """
        if self.text_encoder is None and (prompts or negative_prompts):
            raise ValueError("this pipeline has no text encoder, so it takes no text; accepted are embeddings")
        for text in (*(prompts or ()), *(negative_prompts or ())):
            readable(text, self.tokenizer)
        if isinstance(generator, (list, tuple)):
            if len(generator) != batch_size:
                raise ValueError(f"generator is a list of {len(generator)}, but {batch_size} images are asked for")
        generators = generator if isinstance(generator, (list, tuple)) else [generator]
        if not all(isinstance(g, torch.Generator) for g in generators if generator is not None):
            raise ValueError(f"generator is {generator!r}, accepted: a torch.Generator, or a list of one an image")
        if latents is not None:
            check_tensor("latents", latents, self._latent_shape(batch_size))
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type is {output_type!r}, accepted: {', '.join(OUTPUT_TYPES)}")
        channels, own = self._latent_shape(batch_size)[1], self.unet.config.out_channels
        if channels != own:
            raise ValueError(
                f"the network takes {channels} channels and returns {own}: it sees an image and a mask beside the "
                "latents; accepted is MobileDiffusionInpaintPipeline"
            )
        if self.vae is None and output_type != "latent":
            raise ValueError(f"output_type is {output_type!r}, but this pipeline has no VAE; accepted is latent")
        unknown = [k for k in callback_on_step_end_tensor_inputs if k not in self._callback_tensor_inputs]
        if unknown:
            raise ValueError(
                f"callback_on_step_end_tensor_inputs holds {unknown}, accepted: {self._callback_tensor_inputs}"
            )

    def _sample(
        self,
        scheduler: Any,
        timesteps: torch.Tensor,
        inside: list[bool],
        call: Call,
        tensors: dict[str, torch.Tensor],
        generator: torch.Generator | list[torch.Generator] | None,
        callback: Callable | None,
        tensor_inputs: Sequence[str],
    ) -> torch.Tensor:
        """Sample latents [B, C, H, W] from noise; `inside` says which steps may be guided."""
        step_kwargs = {"generator": generator} if takes_generator(type(scheduler)) else {}
        batch_size = len(tensors["latents"])
        with self.progress_bar(total=len(timesteps)) as progress_bar:  # pyright: ignore[reportCallIssue]
            for i, (t, within) in enumerate(zip(timesteps, inside, strict=True)):
                if call.interrupt:
                    break
                guided = within and call.guidance_scale > 1
                text, pooled = embeddings_of_step(tensors, batch_size, 2 if guided else 1, call.one_prompt)
                latents = tensors["latents"]
                sample = scheduler.scale_model_input(latents, t)
                model_output = self._predict(sample, t, text, pooled, call.guidance_scale if guided else None)
                latents = scheduler.step(model_output, t, latents, return_dict=False, **step_kwargs)[0]
                tensors["latents"] = latents
                if callback is not None:
                    outputs = callback(self, i, t, {name: tensors[name] for name in tensor_inputs}) or {}
                    tensors |= {name: value for name, value in outputs.items() if name in tensors}
                progress_bar.update()
        return tensors["latents"]

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        class_labels: str | int | Sequence[str | int] | torch.Tensor | None = None,
        num_images_per_prompt: int = 1,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_interval: Sequence[float] | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[
            ["MobileDiffusionPipeline", int, torch.Tensor, dict], dict[str, torch.Tensor] | None
        ]
        | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] | None = ("latents",),
        negative_prompt: str | list[str] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        pooled_prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        negative_pooled_prompt_embeds: torch.Tensor | None = None,
    ) -> Any:
        """Generate images, any number; network and VAE work on 256 at once.

        Threads may share a pipeline: a call leaves `scheduler` as it is.

        Args:
            prompt: one or several descriptions; give this, `class_labels` or `prompt_embeds`.
            class_labels: class names ("airplane", ...) or indices 0..9, one or several.
            num_images_per_prompt: images for each of them; they stand side by side in the result.
            num_inference_steps: defaults to what the checkpoint was made for.
            guidance_scale: weight of classifier-free guidance (arXiv 2207.12598), each guided step costing one network
                call at twice the batch; up to 1 means none. Defaults to what the checkpoint was made for.
            guidance_interval: interval in which guidance applies (arXiv 2404.07724), as fractions of the timesteps: 0
                is the clean end, 1 pure noise. A step outside costs one evaluation. Defaults to what the checkpoint
                was made for.
            generator: one for the whole batch, or a list of one an image: then, but for rounding, an image does not
                depend on the batch that it is drawn in.
            latents: initial noise instead of drawing it, standard normal, [B, C, H, W].
            output_type: "pil", "np" (float [B, H, W, 3] in [0, 1]), "pt" (float [B, 3, H, W] in [0, 1]) or "latent"
                (normalised, [B, C, H, W]).
            return_dict: whether to return an `ImagePipelineOutput` or a tuple of the images.
            callback_on_step_end: called as (pipeline, step index, timestep, tensors); may return new tensors, and set
                `_guidance_scale` or `_interrupt` of the pipeline for this call.
            callback_on_step_end_tensor_inputs: names of the tensors that it gets: "latents", "prompt_embeds" and
                "pooled_prompt_embeds", in which the unconditional branch's rows stand in front if any step is guided.
            negative_prompt: what guidance leads away from, one or one for each prompt; by default the null prompt.
            prompt_embeds, pooled_prompt_embeds: as `encode_prompt` returns them, instead of `prompt`.
            negative_prompt_embeds, negative_pooled_prompt_embeds: the same instead of `negative_prompt`.

        Returns:
            An `ImagePipelineOutput` or a tuple, as `return_dict` says, of the images, as `output_type` says.

        Raises:
            ValueError: for bad arguments, before any work; or if sampling or decoding ends in NaN.
        """
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        tensor_inputs = (
            ("latents",) if callback_on_step_end_tensor_inputs is None else callback_on_step_end_tensor_inputs
        )
        prompts, count = self._check_conditioning(prompt, class_labels, prompt_embeds, pooled_prompt_embeds)
        is_count = isinstance(num_images_per_prompt, Integral) and not isinstance(num_images_per_prompt, bool)
        if not is_count or num_images_per_prompt < 1:
            raise ValueError(f"num_images_per_prompt is {num_images_per_prompt!r}, accepted: whole numbers from 1")
        batch_size = count * num_images_per_prompt
        steps, scale = self._resolve_steps(num_inference_steps), self._resolve_guidance(guidance_scale)
        interval = self._resolve_interval(guidance_interval)
        negative = negative_prompt_embeds, negative_pooled_prompt_embeds
        negative_prompts = self._check_negative(negative_prompt, *negative, count)
        if scale <= 1 and (negative_prompt or negative_prompt_embeds is not None):
            logger.warning("A negative prompt changes nothing without guidance.")
        if scale <= 1:
            negative_prompts = None  # not read
        self.check_inputs(prompts, batch_size, negative_prompts, generator, latents, output_type, tensor_inputs)
        device = self._execution_device
        scheduler = own_state(self.scheduler)
        timesteps = lay_out(scheduler, steps, device)
        self._check_start(scheduler, timesteps)
        inside = self._guided_steps(timesteps, math.inf, interval)

        for warning in (warning for text in dict.fromkeys(prompts or ()) for warning in self.prompt_warnings(text)):
            logger.warning(warning)
        generator = list(generator) if isinstance(generator, tuple) else generator
        latents = self.prepare_latents(batch_size, generator, latents, device) * scheduler.init_noise_sigma
        text, null, pooled, null_pooled = self.encode_prompt(
            prompts,
            device,
            num_images_per_prompt,
            scale > 1 and any(inside),
            negative_prompt,
            prompt_embeds,
            negative_prompt_embeds,
            pooled_prompt_embeds,
            negative_pooled_prompt_embeds,
        )
        tensors = {"latents": latents, "prompt_embeds": text, "pooled_prompt_embeds": pooled}
        if null is not None and null_pooled is not None:
            tensors |= {
                "prompt_embeds": torch.cat([null, text]),
                "pooled_prompt_embeds": torch.cat([null_pooled, pooled]),
            }

        call, outer = Call(scale, len(timesteps), count == 1), getattr(self._thread, "call", None)
        self._thread.call = call
        self._calls.add(call)
        try:
            latents = self._sample(
                scheduler, timesteps, inside, call, tensors, generator, callback_on_step_end, tensor_inputs
            )
        finally:
            self._calls.discard(call)
            if outer in self._calls:  # which this one was made in a callback of
                self._thread.call = outer
        if not torch.isfinite(latents).all():  # as after an overflow in half precision
            raise ValueError(
                f"sampling ended in NaN or infinite latents, so there is no image; the network ran in {latents.dtype}"
            )
        images = latents
        if output_type != "latent":
            images = self.image_processor.postprocess(self.decode_latents(latents), output_type=output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)  # pyright: ignore[reportArgumentType]
