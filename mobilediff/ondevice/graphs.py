"""Tensor-to-tensor modules of a checkpoint, as a converter takes them: text encoder, and noise to picture."""

import copy
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from mobilediff.checkpoints import VAE
from mobilediff.downstream.control import MobileDiffusionControlPipeline
from mobilediff.models.latent_decoder import LatentDecoder, latent_statistics
from mobilediff.models.mobile_controlnet import CONDITIONING_CHANNELS, MobileControlNet
from mobilediff.models.mobile_unet import MobileUNet
from mobilediff.ondevice.manifest import CONTROL, SIGNATURES, Format, GraphName, Step, noise_count
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.schedulers.distilled_ddim import DistilledDDIMScheduler
from mobilediff.schedulers.ufogen import UFOGenScheduler

MAX_BATCH_SIZE = 64
CONTROL_FORMAT: Format = "onnx"


@dataclass(frozen=True)
class Graph:
    """A module to convert, with its inputs by name.

    Attributes:
        name: of the graph.
        module: takes the inputs in their order.
        inputs: an example of each, of the shapes and dtypes that the converted graph is fixed to.
    """

    name: GraphName
    module: nn.Module
    inputs: dict[str, torch.Tensor]

    @property
    def outputs(self) -> list[str]:
        """Return the names of the outputs, in their order."""
        return list(SIGNATURES[self.name][1])


def check_exportable(pipeline: MobileDiffusionPipeline, batch_size: int) -> None:
    """Refuse a checkpoint that the graphs do not express, before any work.

    Raises:
        ValueError: guidance is not folded into it, its network sees a mask, its scheduler or prediction type is
            another, or `batch_size` is below 1 or over `MAX_BATCH_SIZE`.
    """
    scheduler, network = pipeline.scheduler, pipeline.unet.config
    if not pipeline.config.guidance_distilled:
        raise ValueError("guidance_distilled is False; accepted are checkpoints that guidance is distilled into")
    if network.in_channels != network.out_channels:
        raise ValueError(
            f"the network takes {network.in_channels} channels and returns {network.out_channels}; accepted are those "
            "that see latents alone"
        )
    if not isinstance(scheduler, (UFOGenScheduler, DistilledDDIMScheduler)):
        raise ValueError(
            f"scheduler is {type(scheduler).__name__}; accepted are UFOGenScheduler and DistilledDDIMScheduler"
        )
    if scheduler.config.prediction_type != "v_prediction":
        raise ValueError(f"prediction_type is {scheduler.config.prediction_type!r}; accepted is 'v_prediction'")
    if not 1 <= batch_size <= MAX_BATCH_SIZE:
        raise ValueError(f"batch_size is {batch_size}; accepted is 1 to {MAX_BATCH_SIZE}")


def check_control(pipeline: MobileDiffusionPipeline, format: Format) -> None:
    """Refuse a control network in another format than ONNX, or outside of a fused graph.

    Raises:
        ValueError: names the format or the scheduler.
    """
    if not isinstance(pipeline, MobileDiffusionControlPipeline):
        return
    if format != CONTROL_FORMAT:
        raise ValueError(f"format is {format!r}; a checkpoint with a control network has {CONTROL_FORMAT}")
    if not is_fused(pipeline):
        raise ValueError(
            f"scheduler is {type(pipeline.scheduler).__name__}; with a control network accepted is UFOGenScheduler"
        )


def schedule(pipeline: MobileDiffusionPipeline, num_inference_steps: int) -> list[Step]:
    """Write each step of the scheduler as x_s = sample_scale x_t + velocity_scale v + noise_scale eps.

    With alpha_t = sqrt(abar_t) and sigma_t = sqrt(1 - abar_t), v-prediction gives x_0 = alpha_t x_t - sigma_t v and
    eps = sigma_t x_t + alpha_t v (arXiv 2202.00512). DDIM's step is alpha_s x_0 + sigma_s eps; UFOGen's draws fresh
    noise instead (arXiv 2311.09257); the last one of either gives x_0.

    Raises:
        ValueError: the scheduler is not for that number of steps; names those that it is for.
    """
    scheduler = pipeline.scheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(num_inference_steps)
    timesteps = scheduler.timesteps.tolist()
    abar = scheduler.alphas_cumprod.double()
    steps = []
    for t, s in zip(timesteps, [*timesteps[1:], None], strict=True):
        alpha_t, sigma_t = abar[t].sqrt().item(), (1 - abar[t]).sqrt().item()
        alpha_s, sigma_s = (abar[s].sqrt().item(), (1 - abar[s]).sqrt().item()) if s is not None else (1.0, 0.0)
        carried = 0.0 if isinstance(scheduler, UFOGenScheduler) else sigma_s
        steps.append(
            Step(
                timestep=t,
                sample_scale=alpha_s * alpha_t + carried * sigma_t,
                velocity_scale=carried * alpha_t - alpha_s * sigma_t,
                noise_scale=sigma_s - carried,
            )
        )
    return steps


N = TypeVar("N", MobileUNet, MobileControlNet)


@torch.no_grad()
def _fold_time(network: N, steps: list[Step]) -> N:
    """Copy a network with its time embeddings folded: called with the number of a step, not a timestep."""
    timesteps = torch.tensor([step.timestep for step in steps])
    embeddings = network.time_embedding(network.time_proj(timesteps).to(network.dtype))
    folded = copy.copy(network)
    folded._modules = dict(network._modules) | {
        "time_proj": nn.Embedding.from_pretrained(embeddings),
        "time_embedding": nn.Identity(),
    }
    return folded


class Network(nn.Module):
    """The denoising network, called with the number of a step."""

    def __init__(self, pipeline: MobileDiffusionPipeline, steps: list[Step]):
        super().__init__()
        self.unet = _fold_time(pipeline.unet, steps)

    def forward(
        self, sample: torch.Tensor, step: torch.Tensor, hidden_states: torch.Tensor, pooled: torch.Tensor
    ) -> torch.Tensor:
        """Predict the velocity, [B, C, H, W], from x_t [B, C, H, W], the step [1], and the text's embeddings."""
        return self.unet(sample, step, hidden_states, pooled, return_dict=False)[0]


class ControlledNetwork(Network):
    """The denoising network with a control network beside it."""

    def __init__(self, pipeline: MobileDiffusionControlPipeline, steps: list[Step]):
        super().__init__(pipeline, steps)
        self.controlnet = _fold_time(pipeline.controlnet, steps)

    def forward(
        self,
        sample: torch.Tensor,
        step: torch.Tensor,
        hidden_states: torch.Tensor,
        pooled: torch.Tensor,
        controlnet_cond: torch.Tensor,
        conditioning_scale: torch.Tensor,
    ) -> torch.Tensor:
        """Predict the velocity as `Network` does, from conditions [B, 6, 2 H, 2 W] and their scale [1] too."""
        residuals, residual = self.controlnet(
            sample, step, controlnet_cond, pooled, conditioning_scale, return_dict=False
        )
        return self.unet(
            sample,
            step,
            hidden_states,
            pooled,
            down_block_additional_residuals=residuals,
            mid_block_additional_residual=residual,
            return_dict=False,
        )[0]


class Decoder(nn.Module):
    """Normalised latents [B, C, H, W] to images in [-1, 1], [B, 3, H', W']."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, vae: VAE):
        super().__init__()
        self.decoder = LatentDecoder(vae)
        mean, std = latent_statistics(vae)
        self.register_buffer("mean", mean.float())
        self.register_buffer("std", std.float())

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.decoder(latents * self.std + self.mean)


class ImageGraph(nn.Module):
    """All steps and the decoder in one graph, their timesteps and coefficients constants."""

    def __init__(self, pipeline: MobileDiffusionPipeline, steps: list[Step]):
        super().__init__()
        network = ControlledNetwork if isinstance(pipeline, MobileDiffusionControlPipeline) else Network
        self.network, self.decoder, self.steps = network(pipeline, steps), Decoder(pipeline.vae), steps

    def forward(
        self, noise: torch.Tensor, hidden_states: torch.Tensor, pooled: torch.Tensor, *control: torch.Tensor
    ) -> torch.Tensor:
        """Draw images in [-1, 1], [B, 3, H', W'].

        Args:
            noise: [S B, C, H, W] for S steps: the initial noise of the batch, then that of each further step.
            hidden_states: [B, L, D].
            pooled: [B, P].
            control: conditions and their scale, where there is a control network.
        """
        batch_size = len(pooled)
        sample = noise[:batch_size]
        for index, step in enumerate(self.steps):
            velocity = self.network(sample, torch.tensor([index]), hidden_states, pooled, *control)
            sample = step.sample_scale * sample + step.velocity_scale * velocity
            if step.noise_scale:
                fresh = noise[(index + 1) * batch_size : (index + 2) * batch_size]
                sample = sample + step.noise_scale * fresh
        return self.decoder(sample)


class TextEncoder(nn.Module):
    """Token ids [1, L] to the text's hidden states [1, L, D] and pooled embedding [1, P]."""

    def __init__(self, text_encoder: nn.Module):
        super().__init__()
        self.text_encoder = text_encoder

    def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = self.text_encoder(input_ids)
        return output.last_hidden_state, output.text_embeds


def is_fused(pipeline: MobileDiffusionPipeline) -> bool:
    """Return whether the steps are few enough for one graph: those of `UFOGenScheduler`."""
    return isinstance(pipeline.scheduler, UFOGenScheduler)


def build_graphs(pipeline: MobileDiffusionPipeline, steps: list[Step], batch_size: int) -> list[Graph]:
    """Build the graphs of a checkpoint that `check_exportable` accepts: in float32, contiguous, without gradients.

    Returns:
        "text_encoder", then "image" where the steps are fused, else "network" and "decoder".
    """
    pipeline.unet.to(memory_format=torch.contiguous_format)
    pipeline.vae.to(memory_format=torch.contiguous_format)
    length, text = pipeline.tokenizer.model_max_length, pipeline.text_encoder.config
    _, channels, height, width = pipeline._latent_shape(batch_size)
    conditioning = {
        "hidden_states": torch.zeros(batch_size, length, text.hidden_size),
        "pooled": torch.zeros(batch_size, text.projection_dim),
    }
    latents = torch.zeros(batch_size, channels, height, width)
    input_ids = torch.ones(1, length, dtype=torch.int32)
    graphs = [Graph("text_encoder", TextEncoder(pipeline.text_encoder), {"input_ids": input_ids})]
    if is_fused(pipeline):
        noise = torch.zeros(noise_count(steps) * batch_size, channels, height, width)
        control = {}
        if isinstance(pipeline, MobileDiffusionControlPipeline):
            size = pipeline.controlnet.condition_size
            conditions = torch.zeros(batch_size, CONDITIONING_CHANNELS, size, size)
            control = dict(zip(CONTROL, (conditions, torch.ones(1)), strict=True))
        graphs.append(Graph("image", ImageGraph(pipeline, steps), {"noise": noise} | conditioning | control))
    else:
        inputs = {"sample": latents, "step": torch.zeros(1, dtype=torch.int32)} | conditioning
        graphs.append(Graph("network", Network(pipeline, steps), inputs))
        graphs.append(Graph("decoder", Decoder(pipeline.vae), {"latents": latents}))
    for graph in graphs:
        graph.module.eval().requires_grad_(False)
    return graphs
