"""Write a checkpoint's model card, with a place for the figures of `eval.report`."""

import re

import yaml

from mobilediff.checkpoints import DOWNSTREAM_PIPELINES, component_class
from mobilediff.downstream.control import MobileDiffusionControlPipeline
from mobilediff.downstream.inpaint import MobileDiffusionInpaintPipeline
from mobilediff.models.autoencoder import image_side
from mobilediff.pipeline import MobileDiffusionPipeline

RESULTS_START = "<!-- results:start -->"
RESULTS_END = "<!-- results:end -->"
NOT_MEASURED = "The figures of this checkpoint have not been measured."
DOWNSTREAM = "The figures of this checkpoint are in the project's `docs/downstream.md`."

CARD = """\
---
{metadata}---

# {name}

{description}

Part of mobilediff: small text-to-image diffusion models on CIFAR-10, after MobileDiffusion
([arXiv 2311.16567](https://arxiv.org/abs/2311.16567)). Images are {side} x {side} pixels.

## Use

```python
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("path/to/this/folder", trust_remote_code=True)
{call}.images[0].save("fire_truck.png")
```

The code inside this folder needs torch, diffusers and transformers. The weights are stored in float16 and loaded in
float32 unless `dtype` says otherwise.

| | |
|---|---|
{facts}

## Measured

{start}
{figures}
{end}

## Limits

The models know CIFAR-10's ten classes and the nouns that its images were collected with; other prompts are answered
with something near, after a warning. The images carry the biases of that data set.
"""


def model_card(name: str, pipeline: MobileDiffusionPipeline) -> str:
    """Write the text of a checkpoint's README.md, without figures.

    `eval.report` inserts the figures once it has measured the checkpoint.

    Args:
        name: of the checkpoint.
        pipeline: its config gives the facts about use.
    """
    metadata = {
        "license": "mit",
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["diffusion", "text-to-image", "class-conditional", "cifar10", "mobilediffusion"],
        "datasets": ["uoft-cs/cifar10"],
    }
    return CARD.format(
        metadata=yaml.safe_dump(metadata, sort_keys=False),
        name=markdown_text(name),
        description=_description(pipeline),
        side=image_side(pipeline.vae, pipeline._latent_shape(1)[-1]),
        call=_call(pipeline),
        facts="\n".join(f"| {key} | {value} |" for key, value in _facts(pipeline).items()),
        start=RESULTS_START,
        figures=DOWNSTREAM if isinstance(pipeline, DOWNSTREAM_PIPELINES) else NOT_MEASURED,
        end=RESULTS_END,
    )


def markdown_text(name: str) -> str:
    """Escape a name so that Markdown shows it as it is, on one line and in one cell of a table."""
    return re.sub(r"([\\`*\[\]<>|$&#~])", r"\\\1", " ".join(name.split()))


def _description(pipeline: MobileDiffusionPipeline) -> str:
    steps = pipeline.config.default_num_inference_steps
    plural = "" if steps == 1 else "s"
    guidance = "guidance folded into the weights" if pipeline.config.guidance_distilled else "classifier-free guidance"
    return f"A `{component_class(pipeline.unet).__name__}` made for {steps} step{plural}, with {guidance}."


def _call(pipeline: MobileDiffusionPipeline) -> str:
    if isinstance(pipeline, MobileDiffusionControlPipeline):
        return 'from PIL import Image\n\npipeline("a photo of a fire truck", Image.open("white_strokes_on_black.png"))'
    if isinstance(pipeline, MobileDiffusionInpaintPipeline):
        return (
            "from PIL import Image\n\n"
            'image, mask = Image.open("picture.png"), Image.open("white_is_repainted.png")\n'
            'pipeline("a photo of a fire truck", image=image, mask_image=mask)'
        )
    return 'pipeline("a photo of a fire truck")'


def _facts(pipeline: MobileDiffusionPipeline) -> dict[str, str | int]:
    accepted = pipeline.scheduler.config.get("distilled_num_inference_steps")
    upper = pipeline.scheduler.config.num_train_timesteps
    config = pipeline.config
    guidance = "distilled in" if config.guidance_distilled else f"{config.default_guidance_scale:g}"
    interval = config.default_guidance_low, config.default_guidance_high
    if not config.guidance_distilled and interval != (0, 1):
        guidance += ", between {:g} and {:g} of the timesteps".format(*interval)
    return {
        "network": component_class(pipeline.unet).__name__,
        "parameters of the network": f"{sum(p.numel() for p in pipeline.unet.parameters()):,}",
        "autoencoder": component_class(pipeline.vae).__name__,
        "scheduler": type(pipeline.scheduler).__name__,
        "steps, default": config.default_num_inference_steps,
        "steps, accepted": ", ".join(map(str, accepted)) if accepted is not None else f"1 to {upper}",
        "network evaluations an image, default": pipeline.nfe(),
        "guidance scale": guidance,
    }
