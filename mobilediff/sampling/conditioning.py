"""Condition the network: prompts, classes or embeddings in, hidden states and pooled embeddings out."""

from collections.abc import Sequence
from functools import lru_cache
from numbers import Integral
from typing import Any

import torch

from mobilediff.sampling.networks import compute_device, compute_dtype
from mobilediff.sampling.prompts import CLASS_NAMES, encode_text, find_prompt_warnings

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
