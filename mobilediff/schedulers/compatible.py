"""Another of diffusers' schedulers for a pipeline."""

import inspect

from diffusers import DiffusionPipeline, SchedulerMixin


def choose_scheduler(pipeline: DiffusionPipeline, name: str) -> None:
    """Sample with another of diffusers' schedulers, given by the name of its class, under the same configuration.

    Raises:
        ValueError: a name that is not the checkpoint's own or of a scheduler that diffusers calls compatible with it
            and that follows its noise schedule in one network call a step; one without flow matching, if the network
            was trained by it; any but its own, if the checkpoint was distilled for its steps.
    """
    own = pipeline.scheduler
    distilled = "distilled_num_inference_steps" in own.config
    others = [] if distilled else [one for one in own.compatibles if _can_sample(one)]
    if own.config.get("prediction_type") == "flow_prediction":
        others = [one for one in others if "use_flow_sigmas" in inspect.signature(one).parameters]
    accepted = {one.__name__: one for one in (type(own), *others)}
    if name not in accepted:
        raise ValueError(f"scheduler is {name!r}; accepted for this checkpoint are {', '.join(sorted(accepted))}")
    pipeline.scheduler = accepted[name].from_config(own.config)


def _can_sample(scheduler: type) -> bool:
    """Whether a class takes a noise schedule and a kind of prediction, and one network call a step.

    False also for one whose library is not installed. `EDMEulerScheduler` has a schedule and a network scaling of its
    own, under which a network trained on another draws grey noise.
    """
    if not issubclass(scheduler, SchedulerMixin) or scheduler.order != 1:
        return False
    return {"beta_schedule", "prediction_type"} <= set(inspect.signature(scheduler).parameters)
