"""Choose timesteps and guidance: which a checkpoint is for, and which a scheduler can take."""

import copy
import inspect
import math
from collections.abc import Sequence
from functools import cache
from numbers import Integral, Real
from typing import Any

import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin


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
