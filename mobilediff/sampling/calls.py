"""Keep the state of a call apart from that of other calls, of other threads among them."""

import threading

import torch


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
