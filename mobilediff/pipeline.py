"""Draw CIFAR-10-sized images from prompts with any checkpoint of the family."""

import copy
import math
import threading
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DiffusionPipeline, ImagePipelineOutput
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import VaeImageProcessor
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.models.modeling_utils import ModelMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import logging
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from mobilediff.sampling.calls import Call, CallStateMixin, embeddings_of_step
from mobilediff.sampling.code import isolate_code
from mobilediff.sampling.conditioning import ConditioningMixin, check_tensor
from mobilediff.sampling.loras import LorasMixin
from mobilediff.sampling.networks import NetworksMixin
from mobilediff.sampling.prompts import check_vocabulary, readable
from mobilediff.sampling.saving import DEFAULTS, OPTIONS_OF_PIPELINE, SavingMixin
from mobilediff.sampling.scheduling import (
    StepsMixin,
    checked_interval,
    distilled_steps,
    lay_out,
    own_state,
    takes_generator,
)

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
