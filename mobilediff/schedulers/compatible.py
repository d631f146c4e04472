"""Another of diffusers' schedulers for a pipeline."""

from diffusers import DiffusionPipeline, SchedulerMixin

from mobilediff.pipeline import check_scheduler


def choose_scheduler(pipeline: DiffusionPipeline, name: str) -> None:
    """Sample with another of diffusers' schedulers, given by the name of its class, under the same configuration.

    Raises:
        ValueError: a name that is not the checkpoint's own or of a scheduler that diffusers calls compatible with it
            and that `check_scheduler` takes; any but its own, if the checkpoint was distilled for its steps.
    """
    own = pipeline.scheduler
    distilled = "distilled_num_inference_steps" in own.config
    others = [] if distilled else [one for one in own.compatibles if _samples_alike(one, own.config)]
    accepted = {one.__name__: one for one in (type(own), *others)}
    if name not in accepted:
        raise ValueError(f"scheduler is {name!r}; accepted for this checkpoint are {', '.join(sorted(accepted))}")
    pipeline.scheduler = accepted[name].from_config(own.config)


def _samples_alike(scheduler: type, config: dict) -> bool:
    """False also for schedulers whose libraries are not installed, which diffusers lists as other classes."""
    if not issubclass(scheduler, SchedulerMixin):
        return False
    try:
        check_scheduler(scheduler, config)
    except ValueError:
        return False
    return True
