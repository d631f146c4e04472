"""Choose another of diffusers' schedulers for a pipeline."""

import inspect

from diffusers import DiffusionPipeline, SchedulerMixin


def choose_scheduler(pipeline: DiffusionPipeline, name: str) -> None:
    """Replace the pipeline's scheduler by another of diffusers', with the same configuration.

    Args:
        pipeline: its scheduler is replaced.
        name: class of the new scheduler. Accepted are the checkpoint's own, and those that diffusers calls compatible
            with it and that call the network once a step. A network trained by flow matching needs one with flow
            sigmas; a checkpoint that was distilled for its steps keeps its own.

    Raises:
        ValueError: another name; the error lists the accepted ones.
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
    """Return whether a scheduler can be imported and calls the network once a step."""
    return issubclass(scheduler, SchedulerMixin) and scheduler.order == 1  # pyright: ignore[reportAttributeAccessIssue]
