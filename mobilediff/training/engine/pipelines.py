"""Load the pipelines and trained parts that a generator's stage starts from."""

from dataclasses import dataclass
from pathlib import Path

from diffusers import AutoencoderKL
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from mobilediff.checkpoints import VAE, load_component, load_pipeline, load_tokenizer, load_vae
from mobilediff.diffusion import FORWARD_PROCESS
from mobilediff.pipeline import MobileDiffusionPipeline


@dataclass
class FrozenParts:
    """Hold the trained parts of a pipeline that a generator builds on."""

    vae: VAE
    text_encoder: CLIPTextModelWithProjection
    tokenizer: CLIPTokenizer

    @classmethod
    def of(cls, pipeline: MobileDiffusionPipeline) -> "FrozenParts":
        """Take the parts of a loaded pipeline."""
        return cls(pipeline.vae, pipeline.text_encoder, pipeline.tokenizer)

    @classmethod
    def load(cls, vae: str, text: str) -> "FrozenParts":
        """Read the exports of the stages `vae` and `clip`; errors as in `load_component` and `load_tokenizer`."""
        return cls(
            load_vae(vae),
            load_component(CLIPTextModelWithProjection, Path(text, "text_encoder")),
            load_tokenizer(Path(text, "tokenizer")),
        )


def load_velocity_pipeline(folder: str) -> MobileDiffusionPipeline:
    """Load a checkpoint to distil from, which predicts v on the cosine schedule; errors as in `load_pipeline`.

    Raises:
        ValueError: the network predicts something else, which a distilling stage would take for v; or its VAE is a
            small one, whose encoder gives other latents than the network was trained on.
    """
    pipeline = load_pipeline(folder)
    check_velocity(pipeline, folder)
    check_full_vae(pipeline, folder)
    return pipeline


def check_velocity(pipeline: MobileDiffusionPipeline, folder: str) -> None:
    """Refuse a checkpoint that predicts something else than v, as in `load_velocity_pipeline`."""
    for name, accepted in FORWARD_PROCESS.items():
        value = pipeline.scheduler.config[name]
        if value != accepted:
            raise ValueError(f"{folder}: the network's {name} is {value}; accepted is {accepted}")


def check_full_vae(pipeline: MobileDiffusionPipeline, folder: str) -> None:
    """Refuse a checkpoint that `export --vae` has given a small VAE.

    Raises:
        ValueError: naming the folder.
    """
    if not isinstance(pipeline.vae, AutoencoderKL):
        raise ValueError(
            f"{folder}: its VAE is {type(pipeline.vae).__name__}; accepted is AutoencoderKL, which "
            "`python -m mobilediff.export --vae` puts back"
        )
