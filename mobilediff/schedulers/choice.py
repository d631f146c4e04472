"""Another of diffusers' schedulers for a pipeline."""

from diffusers import DiffusionPipeline


def choose_scheduler(pipeline: DiffusionPipeline, name: str) -> None:
    """Sample with another of diffusers' schedulers, given by the name of its class, under the same configuration.

    Raises:
        ValueError: a name that is not the checkpoint's own or of a scheduler that diffusers calls compatible with it.
    """
    accepted = {one.__name__: one for one in (type(pipeline.scheduler), *pipeline.scheduler.compatibles)}
    if name not in accepted:
        raise ValueError(f"scheduler is {name!r}; accepted for this checkpoint are {', '.join(sorted(accepted))}")
    pipeline.scheduler = accepted[name].from_config(pipeline.scheduler.config)
