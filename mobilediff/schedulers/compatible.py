"""Choose another of diffusers' schedulers for a pipeline."""

from diffusers import DiffusionPipeline, SchedulerMixin

from mobilediff.sampling.scheduling import check_scheduler


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
    others = [] if distilled else [one for one in own.compatibles if _samples_alike(one, own.config)]
    accepted = {one.__name__: one for one in (type(own), *others)}
    if name not in accepted:
        raise ValueError(f"scheduler is {name!r}; accepted for this checkpoint are {', '.join(sorted(accepted))}")
    pipeline.scheduler = accepted[name].from_config(own.config)


def _samples_alike(scheduler: type, config: dict) -> bool:
    """Return whether a class samples with a network of `config`; not one whose library is not installed."""
    if not issubclass(scheduler, SchedulerMixin):
        return False
    try:
        check_scheduler(scheduler, config)
    except ValueError:
        return False
    return True
