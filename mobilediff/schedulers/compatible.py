"""Another of diffusers' schedulers for a pipeline."""

import inspect

from diffusers import DiffusionPipeline, SchedulerMixin


def choose_scheduler(pipeline: DiffusionPipeline, name: str) -> None:
    """Sample with another of diffusers' schedulers, given by the name of its class, under the same configuration.

    Raises:
        ValueError: a name that is not the checkpoint's own or of a scheduler that diffusers calls compatible with it
            and that calls the network once a step; one without flow matching, if the network was trained by it; any
            but its own, if the checkpoint was distilled for its steps.
    """
    own = pipeline.scheduler
    distilled = "distilled_num_inference_steps" in own.config
    others = [] if distilled else [one for one in own.compatibles if _takes_one_call_a_step(one)]
    if own.config.get("prediction_type") == "flow_prediction":
        others = [one for one in others if "use_flow_sigmas" in inspect.signature(one).parameters]
    accepted = {one.__name__: one for one in (type(own), *others)}
    if name not in accepted:
        raise ValueError(f"scheduler is {name!r}; accepted for this checkpoint are {', '.join(sorted(accepted))}")
    pipeline.scheduler = accepted[name].from_config(own.config)


def _takes_one_call_a_step(scheduler: type) -> bool:
    """False for solvers of a higher order by further calls, and for those whose libraries are not installed."""
    return issubclass(scheduler, SchedulerMixin) and scheduler.order == 1  # pyright: ignore[reportAttributeAccessIssue]
