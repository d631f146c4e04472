"""Another of diffusers' schedulers for a pipeline."""

from diffusers import DiffusionPipeline


def choose_scheduler(pipeline: DiffusionPipeline, name: str) -> None:
    """Sample with another of diffusers' schedulers, given by the name of its class, under the same configuration.

    Raises:
        ValueError: a name that is not the checkpoint's own or of a scheduler that diffusers calls compatible with it;
            any but its own, if the checkpoint was distilled for the steps of that one.
    """
    own = pipeline.scheduler
    others = [] if "distilled_num_inference_steps" in own.config else own.compatibles
    accepted = {one.__name__: one for one in (type(own), *others)}
    if name not in accepted:
        raise ValueError(f"scheduler is {name!r}; accepted for this checkpoint are {', '.join(sorted(accepted))}")
    pipeline.scheduler = accepted[name].from_config(own.config)
