"""Train a LoRA (arXiv 2106.09685) of a style: of a one-step model on its own pictures, of another on images.

A one-step model has no noised image to denoise. It is given pairs instead: noise, and the picture that the model
draws from it, passed through a filter; or, for a folder of images, the one of them that is the most like it.
"""

from pathlib import Path
from typing import Literal, Self

import torch
import torch.nn.functional as F
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from pydantic import Field, PositiveInt, model_validator
from torch import nn

from mobilediff.captions import CaptionBank
from mobilediff.checkpoints import load_component, load_pipeline
from mobilediff.data import ImageDataset, load_cifar10
from mobilediff.diffusion import NUM_TRAIN_TIMESTEPS, alpha_sigma, any_timesteps, diffuse, sample_from_velocity
from mobilediff.downstream.image_folder import load_image_folder
from mobilediff.downstream.styles import STYLES
from mobilediff.images import to_bytes, to_float
from mobilediff.models.autoencoder import encode_latents
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.sampling.scheduling import distilled_steps
from mobilediff.training.bases.decoder_stage import DecoderStage, DecoderStageOptions
from mobilediff.training.bases.generator_stage import save_class_grid
from mobilediff.training.data.conditioning import ConditionedNetwork, Conditioning
from mobilediff.training.data.style import StylePairs, assign
from mobilediff.training.engine.options import Fraction
from mobilediff.training.engine.pipelines import FrozenParts, check_full_vae, check_velocity
from mobilediff.training.engine.stage import run_stage
from mobilediff.training.engine.trainer import Draws, Trainer, derived_seed


class LoraOptions(DecoderStageOptions):
    """Configure the stage `lora`; `data` is a folder of images (`load_image_folder`), or with `style` CIFAR-10's.

    Attributes:
        base: pipeline folder of the model, whose weights stay as they are.
        style: filter of `STYLES` that makes the targets; None for the images of `data`.
        num_images: targets of a one-step model, and training images that `style` filters for another.
        rank: of the two matrices of each layer.
        class_probability: chance that a caption names the class and not the noun.
        null_probability: chance of the null prompt; not for a one-step model, which has no guidance.
    """

    base: str
    style: Literal["pencil", "palette"] | None = None
    num_images: PositiveInt = 512
    rank: int = Field(default=8, ge=4, le=32)
    class_probability: Fraction = 0.3
    null_probability: Fraction = 0.1

    @model_validator(mode="after")
    def _check_data(self) -> Self:
        if self.style is None and self.data is None:
            raise ValueError("options style and data are missing; accepted is a folder of images as data, or a style")
        return self

    def trial_values(self) -> dict:
        return super().trial_values() | {"num_images": 16}


def lora_targets(network: nn.Module) -> list[str]:
    """Name the layers that get a LoRA: all linear ones, and all convolutions but depthwise ones."""
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
    ]


class Lora(DecoderStage[LoraOptions]):
    """Train a low-rank change of the network's layers."""

    def setup(self) -> None:
        options = self.options
        encoder = load_component(ImageEncoder, options.perceptual)
        self.pipeline = load_pipeline(options.base)
        steps = distilled_steps(self.pipeline.scheduler)
        self.one_step = steps is not None and 1 in steps
        if steps is not None and not self.one_step:
            raise ValueError(
                f"{options.base} is distilled for {steps} steps; accepted are models for 1 step or any number of steps"
            )
        if not self.one_step:
            check_velocity(self.pipeline, options.base)
            check_full_vae(self.pipeline, options.base)
        images = self.style_images()
        self.trainer = Trainer(options, self.limits, options.num_images if self.one_step else len(images))
        self.pipeline.to(self.trainer.device)
        self.pipeline.vae.requires_grad_(False)
        self.conditioning = Conditioning(FrozenParts.of(self.pipeline), CaptionBank(), self.trainer.device)
        self.images, unet = images, self.pipeline.unet.requires_grad_(False)
        plain = ConditionedNetwork(unet, self.conditioning, self.trainer.autocast)
        if self.one_step:
            self.pairs = self.draw_pairs(plain)
            self.add_loss(encoder, F.l1_loss)
        else:
            self.latents = encode_latents(self.pipeline.vae, to_float(images.images.to(self.trainer.device)))
        unet.add_adapter(LoraConfig(r=options.rank, lora_alpha=options.rank, target_modules=lora_targets(unet)))
        self.network = ConditionedNetwork(self.trainer.add("unet", unet), self.conditioning, self.trainer.autocast)

    def style_images(self) -> ImageDataset:
        """Load the images of the style: those of the folder, or filtered ones of the training split."""
        options = self.options
        if options.style is None:
            return load_image_folder(str(options.data), options.resolution)
        dataset = load_cifar10(options.data, "train", options.resolution).head(options.num_images)
        return ImageDataset(STYLES[options.style](dataset.images), dataset.labels, dataset.noun_ids)

    @torch.no_grad()
    def draw_pairs(self, network: ConditionedNetwork) -> StylePairs:
        """Draw pictures of the one-step model, and make or choose the target of each."""
        options, device = self.options, self.trainer.device
        generator = torch.Generator(device).manual_seed(derived_seed(options.seed, "pairs"))
        rows = torch.arange(options.num_images) % len(self.images)
        labels, noun_ids = self.images.labels[rows], self.images.noun_ids[rows]
        caption_ids = self.conditioning.bank.draw(
            labels.to(device), noun_ids.to(device), generator, options.class_probability
        )
        noise = self.pipeline.prepare_latents(options.num_images, generator, None, device)
        pictures = torch.cat(
            [
                to_bytes(self.decode(network, *part))
                for part in zip(noise.split(options.batch_size), caption_ids.split(options.batch_size), strict=True)
            ]
        )
        if options.style is not None:
            return StylePairs(noise, caption_ids, STYLES[options.style](pictures))
        images, targets = self.images.images.to(device)[rows], torch.empty_like(pictures)
        for name in torch.stack([labels, noun_ids], 1).unique(dim=0):
            same = (torch.stack([labels, noun_ids], 1) == name).all(1).nonzero()[:, 0]
            targets[same] = images[same][assign(pictures[same], images[same])]
        return StylePairs(noise, caption_ids, targets)

    def decode(self, network: ConditionedNetwork, noise: torch.Tensor, caption_ids: torch.Tensor) -> torch.Tensor:
        """Draw images in one step, float [B, 3, H, W] in [-1, 1], of noise [B, C, h, w] and caption ids [B]."""
        noisy = noise.contiguous(memory_format=torch.channels_last)
        t = torch.full_like(caption_ids, NUM_TRAIN_TIMESTEPS - 1)
        latents = sample_from_velocity(noisy, network(noisy, t, caption_ids), *alpha_sigma(t))
        return self.pipeline.decode_latents(latents)

    def batch(self, draws: Draws) -> torch.Tensor:
        """Return the rows of the step's images or pairs, int64 [B]."""
        return draws.indices

    def step(self, batch: torch.Tensor, draws: Draws) -> dict[str, torch.Tensor]:
        return self.step_of_pairs(batch, draws) if self.one_step else self.step_of_images(batch, draws)

    def step_of_pairs(self, batch: torch.Tensor, draws: Draws) -> dict[str, torch.Tensor]:
        """Draw from the pairs' noise in one step, and compare with their targets."""
        pairs = self.pairs
        targets = to_float(pairs.targets[batch])
        decoded = self.decode(self.network, pairs.noise[batch], pairs.caption_ids[batch])
        loss, terms = self.compare(decoded, targets, draws)
        self.trainer.update("unet", loss)
        return terms | self.train_discriminator(decoded, targets)

    def step_of_images(self, batch: torch.Tensor, draws: Draws) -> dict[str, torch.Tensor]:
        """Denoise the images' latents."""
        options, device = self.options, self.trainer.device
        t = any_timesteps(len(batch), (0.0, 1.0), draws.generator, device)
        z = diffuse(self.latents[batch].contiguous(memory_format=torch.channels_last), t, draws.generator)
        labels, noun_ids = (one.to(device)[batch] for one in (self.images.labels, self.images.noun_ids))
        caption_ids = self.conditioning.bank.draw(
            labels, noun_ids, draws.generator, options.class_probability, options.null_probability
        )
        loss = F.mse_loss(self.network(z.noisy, t, caption_ids), z.velocity)
        self.trainer.update("unet", loss)
        return {"loss_task": loss}

    def validate(self) -> dict[str, float]:
        """Draw a grid of ten classes by eight seeds into the run folder."""
        with self.trainer.averaged_weights(), torch.no_grad(), self.trainer.autocast():
            save_class_grid(self.pipeline, self.trainer)
        return {}

    def export(self, folder: Path) -> None:
        """Write the LoRA as diffusers does, in float16."""
        unet = self.pipeline.unet
        tensors: dict[str, nn.Module | torch.Tensor] = {
            name: tensor.half().contiguous() for name, tensor in get_peft_model_state_dict(unet).items()
        }
        self.pipeline.save_lora_weights(
            folder,
            unet_lora_layers=tensors,
            unet_lora_adapter_metadata=unet.peft_config["default"].to_dict(),
        )


if __name__ == "__main__":
    run_stage(Lora, LoraOptions)
