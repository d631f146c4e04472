"""From a prompt to CIFAR-10-sized images with any checkpoint of the family: teacher, students, pruned ones.

This file ships inside every checkpoint, so it imports nothing of the package it is part of.
"""

import difflib
import hashlib
import importlib
import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from importlib.util import cache_from_source
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DiffusionPipeline, ImagePipelineOutput
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.modeling_utils import ModelMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import DIFFUSERS_DYNAMIC_MODULE_NAME, logging
from diffusers.utils.torch_utils import randn_tensor
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

logger = logging.get_logger(__name__)

# CIFAR-10's classes in the order of its labels.
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# Prompts whose text embeddings a pipeline keeps: more than twice the known names, at most 20 MB.
MAX_CACHED_PROMPTS = 1024

OUTPUT_TYPES = ("pil", "np", "pt", "latent")

# Where the package keeps the classes that a checkpoint may carry a copy of.
PACKAGE_MODULES = {
    "MobileUNet": "mobilediff.models.mobile_unet",
    "UFOGenScheduler": "mobilediff.schedulers.ufogen",
    "DistilledDDIMScheduler": "mobilediff.schedulers.distilled_ddim",
}

# Where diffusers copies the code of local folders to, and runs it under the files' bare names.
LOCAL_CODE = f"{DIFFUSERS_DYNAMIC_MODULE_NAME}.local"
CODE_HASH = re.compile(r"_[0-9a-f]{12}$")


def encode_text(
    tokenizer: CLIPTokenizer, text_encoder: CLIPTextModelWithProjection, prompts: list[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The conditioning of all networks, in training and sampling alike.

    Args:
        tokenizer: pads and cuts every prompt to L = `tokenizer.model_max_length` tokens.
        text_encoder: hidden size D, projection size P.
        prompts: B strings.

    Returns:
        hidden_states: for cross-attention, [B, L, D].
        pooled: the projected embedding of the end token, [B, P].
    """
    tokens = tokenizer(
        prompts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    )
    output = text_encoder(tokens.input_ids.to(text_encoder.device))
    return output.last_hidden_state, output.text_embeds


def _encode_one(prompt: str, tokenizer, text_encoder, *_) -> tuple[torch.Tensor, torch.Tensor]:
    """`encode_text` of one prompt; what else its outcome depends on is there for a cache to tell calls apart."""
    return encode_text(tokenizer, text_encoder, [prompt])


def _compute_dtype(model: ModelMixin, first_layer: torch.nn.Conv2d) -> torch.dtype:
    # `model.dtype` looks through every module for casting hooks; where they are, the first layer has one.
    return model.dtype if hasattr(first_layer, "_diffusers_hook") else first_layer.weight.dtype


def _words(prompt: str) -> list[str]:
    return re.findall(r"[\w'-]+", prompt.lower())


def nearest_names(prompt: str, names: Sequence[str], count: int = 3) -> list[str]:
    """The `count` names most like any one to three neighbouring words of the prompt, best first."""
    words = _words(prompt)
    phrases = {" ".join(words[i : i + n]) for n in (1, 2, 3) for i in range(len(words) - n + 1)}
    scores = {}
    for phrase in phrases:
        # get_close_matches discards hopeless candidates early, which makes 396 nouns quick enough.
        for name in difflib.get_close_matches(phrase, names, n=count, cutoff=0.5):
            scores[name] = max(scores.get(name, 0.0), difflib.SequenceMatcher(None, phrase, name).ratio())
    return sorted(scores, key=lambda name: (-scores[name], name))[:count]


def _prompt_warnings(prompt: str, nouns: tuple[str, ...] | None, tokenizer: CLIPTokenizer) -> list[str]:
    """What to say about a prompt: that its end is not read; where nouns are given, that it names none and no class."""
    warnings, most = [], tokenizer.model_max_length
    if (count := len(tokenizer(prompt).input_ids)) > most:
        warnings.append(f"The prompt {prompt!r} has {count} tokens; what follows the first {most} is not read.")
    if nouns is None:
        return warnings
    names, words = sorted({*nouns, *CLASS_NAMES}), " ".join(["", *_words(prompt), ""])
    if not any(f" {name} " in words or f" {name}s " in words for name in names):
        nearest = nearest_names(prompt, names) or list(CLASS_NAMES)
        warnings.append(
            f"The prompt {prompt!r} names nothing that the model was trained on, so the image may show anything. "
            f"Nearest known names: {', '.join(nearest)}."
        )
    return warnings


def _isolate_code(cls: type) -> None:
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
    own, temporary = source.with_name(f"{stem}.py"), source.with_name(f".{stem}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, own)
    Path(cache_from_source(source)).unlink(missing_ok=True)
    for value in list(vars(module).values()):
        if getattr(value, "__module__", None) == shared:
            value.__module__ = f"{package}.{stem}"
    module.__name__, module.__file__ = f"{package}.{stem}", str(own)
    sys.modules[module.__name__] = sys.modules.pop(shared)


def checked_interval(interval: Sequence[float]) -> tuple[float, float]:
    """Where guidance applies, as two floats.

    Raises:
        ValueError: not two numbers of which 0 <= first < second <= 1.
    """
    bounds = tuple(interval) if isinstance(interval, (list, tuple)) else (interval,)
    numbers = all(isinstance(bound, Real) and not isinstance(bound, bool) for bound in bounds)
    if len(bounds) != 2 or not numbers or not 0 <= bounds[0] < bounds[1] <= 1:
        raise ValueError(f"guidance_interval is {interval!r}, accepted: two numbers from 0 to 1, the lower one first")
    return float(bounds[0]), float(bounds[1])


@cache
def _takes_generator(scheduler_class: Any) -> bool:
    """Whether the scheduler's steps draw noise."""
    return "generator" in inspect.signature(scheduler_class.step).parameters


def _lay_out(scheduler: Any, num_inference_steps: int, device: torch.device) -> torch.Tensor:
    """The scheduler's timesteps, [num_inference_steps].

    Raises:
        ValueError: the scheduler lays out another number.
    """
    scheduler.set_timesteps(num_inference_steps, device=device)
    # diffusers lays out one timestep too many, the last below 0, for a few counts that do not divide 1000.
    if len(scheduler.timesteps) != num_inference_steps:
        raise ValueError(
            f"num_inference_steps is {num_inference_steps}, for which {type(scheduler).__name__} lays out "
            f"{len(scheduler.timesteps)} timesteps; take a number near it"
        )
    return scheduler.timesteps


class MobileDiffusionPipeline(DiffusionPipeline):
    """Text-to-image and class-to-image generation in the latent space of a small VAE.

    Args:
        vae: `AutoencoderKL` whose config holds `latents_mean` and `latents_std`, one number a latent channel, or
            `AutoencoderTiny`.
        text_encoder: frozen `CLIPTextModelWithProjection`.
        tokenizer: its tokenizer.
        unet: `UNet2DConditionModel` or `MobileUNet`; takes the text's hidden states as `encoder_hidden_states` and
            its pooled embedding as `class_labels`.
        scheduler: one of diffusers', or one with `distilled_num_inference_steps` in its config.
        nouns: the nouns of the training captions and their class index; None switches the warning about unknown
            prompts off.
        null_prompt: the prompt of the unconditional branch of classifier-free guidance.
        class_template: makes a prompt of a class name; `{noun}` (or `{}`) and, if wanted, `{article}`.
        default_num_inference_steps: steps this checkpoint was made for.
        default_guidance_scale: guidance this checkpoint was made for; not used if `guidance_distilled`.
        default_guidance_low, default_guidance_high: from where to where that guidance applies; see `__call__`.
        guidance_distilled: whether guidance is folded into the weights, so that none may be asked for.
    """

    config: Any  # a FrozenDict, whose keys are attributes too
    model_cpu_offload_seq = "text_encoder->unet->vae"
    _callback_tensor_inputs = ("latents",)

    def __init__(
        self,
        vae: AutoencoderKL | AutoencoderTiny,
        text_encoder: CLIPTextModelWithProjection,
        tokenizer: CLIPTokenizer,
        unet: ModelMixin,
        scheduler: SchedulerMixin,
        nouns: dict[str, int] | None = None,
        null_prompt: str = "",
        class_template: str = "a photo of {article} {noun}",
        default_num_inference_steps: int = 50,
        default_guidance_scale: float = 3.0,
        default_guidance_low: float = 0.0,
        default_guidance_high: float = 1.0,
        guidance_distilled: bool = False,
    ):
        super().__init__()
        for cls in (MobileDiffusionPipeline, *map(type, (vae, text_encoder, tokenizer, unet, scheduler))):
            _isolate_code(cls)
        checked_interval((default_guidance_low, default_guidance_high))
        if isinstance(vae, AutoencoderKL) and None in (vae.config["latents_mean"], vae.config["latents_std"]):
            raise ValueError("the VAE's config holds no latents_mean and latents_std; both are needed to decode")
        distilled_for = scheduler.config.get("distilled_num_inference_steps")  # pyright: ignore[reportAttributeAccessIssue]
        if distilled_for is not None and default_num_inference_steps not in distilled_for:
            raise ValueError(
                f"default_num_inference_steps is {default_num_inference_steps}, the scheduler is for "
                f"{' or '.join(map(str, distilled_for))}"
            )
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler)
        self.register_to_config(
            nouns=nouns,
            null_prompt=null_prompt,
            class_template=class_template,
            default_num_inference_steps=default_num_inference_steps,
            default_guidance_scale=float(default_guidance_scale),
            default_guidance_low=float(default_guidance_low),  # a list would be taken for a component
            default_guidance_high=float(default_guidance_high),
            guidance_distilled=guidance_distilled,
        )
        self._encode_one = lru_cache(MAX_CACHED_PROMPTS)(_encode_one)
        self._prompt_warnings = lru_cache(MAX_CACHED_PROMPTS)(_prompt_warnings)
        self.image_processor = VaeImageProcessor(vae_scale_factor=2 ** (len(vae.config["block_out_channels"]) - 1))

    @classmethod
    def load_config(cls, *args, **kwargs):
        """The index of a checkpoint, as `from_pretrained` reads it.

        `DiffusionPipeline.from_pretrained(..., trust_remote_code=True)` runs the code inside the checkpoint. Called on
        this class of the installed package, the package's own classes stand in for that code, so nothing of the
        folder is executed and no trust is asked for.
        """
        config = super().load_config(*args, **kwargs)
        if __name__ != "mobilediff.pipeline":  # but a checkpoint's copy of this file
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

    @property
    def _execution_device(self) -> torch.device:
        # diffusers looks through every module of every component for offloading hooks, which takes longer than a
        # fifth of a one-step network call; without an accelerator there is nothing to offload from.
        if not torch.accelerator.is_available():
            return torch.device("cpu")
        return super()._execution_device

    def nfe(
        self,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_interval: Sequence[float] | None = None,
    ) -> int:
        """Network evaluations an image costs; a guided step counts as two.

        Raises:
            ValueError: for steps or guidance that this checkpoint was not made for.
        """
        steps, scale = self._resolve_steps(num_inference_steps), self._resolve_guidance(guidance_scale)
        interval = self._resolve_interval(guidance_interval)
        scheduler = self.scheduler.from_config(self.scheduler.config)  # a call may be under way on the other
        return steps + sum(self._guided_steps(_lay_out(scheduler, steps, torch.device("cpu")), scale, interval))

    def _resolve_steps(self, num_inference_steps: int | None) -> int:
        if num_inference_steps is None:
            return self.config.default_num_inference_steps
        is_count = isinstance(num_inference_steps, Integral) and not isinstance(num_inference_steps, bool)
        distilled_for = self.scheduler.config.get("distilled_num_inference_steps")
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
        is_number = isinstance(guidance_scale, Real) and not isinstance(guidance_scale, bool)
        if self.config.guidance_distilled:
            if guidance_scale is not None and not (is_number and guidance_scale == 1):
                raise ValueError(
                    f"guidance_scale is {guidance_scale!r}, but guidance is distilled into this checkpoint: "
                    "accepted are None and 1"
                )
            return 1.0
        if guidance_scale is None:
            return self.config.default_guidance_scale
        if not is_number or not math.isfinite(guidance_scale) or guidance_scale < 0:
            raise ValueError(
                f"guidance_scale is {guidance_scale!r}, accepted: finite numbers from 0; up to 1 means no guidance"
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

    def _guided_steps(self, timesteps: torch.Tensor, scale: float, interval: tuple[float, float]) -> list[bool]:
        """Of each step whether it is guided."""
        if scale <= 1:
            return [False] * len(timesteps)
        low, high = (bound * self.scheduler.config.num_train_timesteps for bound in interval)
        return [low <= timestep <= high for timestep in timesteps.tolist()]

    def _latent_shape(self, batch_size: int) -> tuple[int, int, int, int]:
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return batch_size, self.unet.config.in_channels, height, width

    def check_inputs(
        self,
        prompt,
        class_labels,
        num_images_per_prompt,
        num_inference_steps,
        guidance_scale,
        guidance_interval,
        generator,
        latents,
        output_type,
        callback_on_step_end_tensor_inputs,
    ) -> tuple[list[str], int, float, tuple[float, float]]:
        """Refuse what `__call__` cannot do, before any work.

        Returns:
            The prompts (one a row, not yet repeated), the number of steps, the guidance scale and its interval.

        Raises:
            ValueError: naming the argument, its value and what is accepted.
        """
        if (prompt is None) == (class_labels is None):
            given = "neither" if prompt is None else "both"
            raise ValueError(f"pass either prompt or class_labels, not {given}")
        prompts = self._check_prompt(prompt) if class_labels is None else self._prompts_of_classes(class_labels)
        if (
            not isinstance(num_images_per_prompt, Integral)
            or isinstance(num_images_per_prompt, bool)
            or num_images_per_prompt < 1
        ):
            raise ValueError(f"num_images_per_prompt is {num_images_per_prompt!r}, accepted: whole numbers from 1")
        steps, scale = self._resolve_steps(num_inference_steps), self._resolve_guidance(guidance_scale)
        interval = self._resolve_interval(guidance_interval)
        batch_size = len(prompts) * int(num_images_per_prompt)

        if isinstance(generator, (list, tuple)):
            if len(generator) != batch_size:
                raise ValueError(f"generator is a list of {len(generator)}, but {batch_size} images are asked for")
        generators = generator if isinstance(generator, (list, tuple)) else [generator]
        if not all(isinstance(g, torch.Generator) for g in generators if generator is not None):
            raise ValueError(f"generator is {generator!r}, accepted: a torch.Generator, or a list of one an image")

        if latents is not None:
            expected = self._latent_shape(batch_size)
            if not isinstance(latents, torch.Tensor) or tuple(latents.shape) != expected:
                got = tuple(latents.shape) if isinstance(latents, torch.Tensor) else type(latents).__name__
                raise ValueError(f"latents is {got}, accepted: a tensor of shape {expected}")
            if not torch.isfinite(latents).all():
                raise ValueError("latents holds NaN or infinite values")
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type is {output_type!r}, accepted: {', '.join(OUTPUT_TYPES)}")
        unknown = [k for k in callback_on_step_end_tensor_inputs if k not in self._callback_tensor_inputs]
        if unknown:
            raise ValueError(
                f"callback_on_step_end_tensor_inputs holds {unknown}, accepted: {list(self._callback_tensor_inputs)}"
            )
        return prompts, steps, scale, interval

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
        """`class_template` with a name and its article."""
        article = "an" if name[0] in "aeiou" else "a"
        return self.config.class_template.format(name, noun=name, article=article)

    def prompt_warnings(self, prompt: str) -> list[str]:
        """List the warnings that a call with this prompt logs, as sentences; without drawing anything.

        One says that the prompt has more tokens than are read; one, where the checkpoint knows its nouns, that the
        prompt names none of them and no class. The null prompt is not asked for a name.
        """
        nouns = self.config.nouns if prompt != self.config.null_prompt else None
        return list(self._prompt_warnings(prompt, None if nouns is None else tuple(nouns), self.tokenizer))

    def cache_prompts(self, prompts: Sequence[str] | None = None) -> None:
        """Encode prompts ahead of time, so that a call with one of them does without the text encoder.

        Every call keeps the embeddings of its prompts as well, the last 1,024 of all. They hold until text encoder,
        tokenizer, device, precision or autocast change; after a change of weights in place call `forget_prompts`.

        Args:
            prompts: by default `class_template` with every class and known noun, and the null prompt.
        """
        if prompts is None:
            names = dict.fromkeys([*CLASS_NAMES, *(self.config.nouns or ())])
            prompts = [*map(self._prompt_of, names), self.config.null_prompt]
        with torch.no_grad():
            self._encode(list(prompts))

    def forget_prompts(self) -> None:
        """Drop all kept text embeddings, and what was found out about prompts."""
        self._encode_one.cache_clear()
        self._prompt_warnings.cache_clear()

    def _encode(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """`encode_text`, each prompt by itself, so that its embeddings do not depend on those beside it."""
        if torch.is_grad_enabled():  # what is kept has no gradient
            return encode_text(self.tokenizer, self.text_encoder, prompts)
        device = self.text_encoder.device
        autocast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
        known_by = self.tokenizer, self.text_encoder, device, self.text_encoder.dtype, autocast
        encoded = [self._encode_one(prompt, *known_by) for prompt in prompts]
        hidden_states, pooled = zip(*encoded, strict=True)
        return torch.cat(hidden_states), torch.cat(pooled)

    def encode_prompt(
        self, prompts: list[str], num_images_per_prompt: int, guided: bool, device: torch.device, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Conditioning for `len(prompts) * num_images_per_prompt` images, images of one prompt side by side.

        Returns:
            hidden_states [B, L, D] and pooled [B, P]; if `guided` the null prompt's B rows stand in front of them.
        """
        texts = [self.config.null_prompt, *prompts] if guided else prompts
        hidden_states, pooled = self._encode(texts)
        batch_size = len(prompts) * num_images_per_prompt

        def arrange(embeds: torch.Tensor) -> torch.Tensor:
            embeds = embeds.to(device=device, dtype=dtype)
            if not guided:
                return embeds.repeat_interleave(num_images_per_prompt, dim=0)
            null = embeds[:1].expand(batch_size, *embeds.shape[1:])
            return torch.cat([null, embeds[1:].repeat_interleave(num_images_per_prompt, dim=0)])

        return arrange(hidden_states), arrange(pooled)

    def prepare_latents(
        self, batch_size: int, generator, latents: torch.Tensor | None, device: torch.device, dtype: torch.dtype
    ) -> torch.Tensor:
        """Initial noise at the scheduler's scale, [B, C, H, W]; drawn in float32, whatever `dtype` is."""
        if latents is None:
            shape = self._latent_shape(batch_size)
            latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        return latents.to(device=device, dtype=dtype) * self.scheduler.init_noise_sigma

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Normalised latents [B, C, H, W] to images in [-1, 1], float32 [B, 3, H', W']."""
        config, latents = self.vae.config, latents.float()
        if "latents_mean" in config:
            mean = torch.tensor(config.latents_mean, device=latents.device).view(1, -1, 1, 1)
            std = torch.tensor(config.latents_std, device=latents.device).view(1, -1, 1, 1)
            latents = latents * std + mean
        else:  # AutoencoderTiny has one number for all channels
            latents = latents / config.scaling_factor + config.shift_factor
        # A VAE's activations may overflow in float16, which its config says by diffusers' `force_upcast`.
        decoder = self.vae.decoder
        dtype = _compute_dtype(self.vae, decoder.layers[0] if hasattr(decoder, "layers") else decoder.conv_in)
        if dtype == torch.float16 and self.vae.config.force_upcast:
            self.vae.to(torch.float32)
            images = self.vae.decode(latents, return_dict=False)[0]
            self.vae.to(dtype)
        else:
            images = self.vae.decode(latents.to(dtype), return_dict=False)[0]
        return images.float()

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
        callback_on_step_end: Callable[["MobileDiffusionPipeline", int, torch.Tensor, dict], dict[str, torch.Tensor]]
        | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Any:
        """Generate images.

        Args:
            prompt: one or several descriptions; give this or `class_labels`.
            class_labels: class names ("airplane", ...) or indices 0..9, one or several.
            num_images_per_prompt: images for each of them; they stand side by side in the result.
            num_inference_steps: defaults to what the checkpoint was made for.
            guidance_scale: weight of classifier-free guidance (arXiv 2207.12598), each guided step costing one network
                call at twice the batch; up to 1 means none. Defaults to what the checkpoint was made for.
            guidance_interval: from where to where guidance applies (arXiv 2404.07724), as shares of the timesteps: 0
                is the clean end, 1 pure noise. A step outside costs one evaluation. Defaults to what the checkpoint
                was made for.
            generator: one for the whole batch, or a list of one an image: then, but for rounding, an image does not
                depend on the batch that it is drawn in.
            latents: initial noise instead of drawing it, standard normal, [B, C, H, W].
            output_type: "pil", "np" (float [B, H, W, 3] in [0, 1]), "pt" (float [B, 3, H, W] in [0, 1]) or "latent"
                (normalised, [B, C, H, W]).
            return_dict: whether to return an `ImagePipelineOutput` or a tuple of the images.
            callback_on_step_end: called as (pipeline, step index, timestep, tensors); may return new tensors.
            callback_on_step_end_tensor_inputs: names of the tensors that it gets; only "latents" exists.

        Returns:
            An `ImagePipelineOutput` or a tuple, as `return_dict` says, of the images, as `output_type` says.

        Raises:
            ValueError: for bad arguments, before any work; or if sampling ends in NaN.
        """
        prompts, steps, scale, interval = self.check_inputs(
            prompt,
            class_labels,
            num_images_per_prompt,
            num_inference_steps,
            guidance_scale,
            guidance_interval,
            generator,
            latents,
            output_type,
            callback_on_step_end_tensor_inputs,
        )
        for warning in (warning for text in dict.fromkeys(prompts) for warning in self.prompt_warnings(text)):
            logger.warning(warning)
        generator = list(generator) if isinstance(generator, tuple) else generator
        device, dtype = self._execution_device, _compute_dtype(self.unet, self.unet.conv_in)
        timesteps = _lay_out(self.scheduler, steps, device)
        guided_steps = self._guided_steps(timesteps, scale, interval)

        batch_size = len(prompts) * num_images_per_prompt
        latents = self.prepare_latents(batch_size, generator, latents, device, dtype)
        hidden_states, pooled = self.encode_prompt(prompts, num_images_per_prompt, any(guided_steps), device, dtype)
        step: Callable[..., tuple[torch.Tensor, ...]] = self.scheduler.step
        step_kwargs = {"generator": generator} if _takes_generator(type(self.scheduler)) else {}

        with self.progress_bar(total=len(timesteps)) as progress_bar:  # pyright: ignore[reportCallIssue]
            for i, (t, guided) in enumerate(zip(timesteps, guided_steps, strict=True)):
                sample = torch.cat([latents, latents]) if guided else latents
                sample = self.scheduler.scale_model_input(sample, t)
                rows = slice(-len(sample), None)  # the null prompt's stand in front
                model_output = self.unet(
                    sample, t, encoder_hidden_states=hidden_states[rows], class_labels=pooled[rows], return_dict=False
                )[0]
                if guided:
                    null_output, text_output = model_output.chunk(2)
                    model_output = null_output + scale * (text_output - null_output)
                latents = step(model_output, t, latents, return_dict=False, **step_kwargs)[0]

                if callback_on_step_end is not None:
                    outputs = callback_on_step_end(self, i, t, {"latents": latents})
                    if outputs and "latents" in outputs:
                        latents = outputs["latents"]
                progress_bar.update()

        if not torch.isfinite(latents).all():  # as after an overflow in half precision
            raise ValueError(
                f"sampling ended in NaN or infinite latents, so there is no image; the network ran in {dtype}"
            )
        images = latents
        if output_type != "latent":
            images = self.image_processor.postprocess(self.decode_latents(latents), output_type=output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)  # pyright: ignore[reportArgumentType]
