"""Build well-known networks to time beside the checkpoints, from their public configurations.

Their weights are random, since time and memory depend on shapes alone. Their images are noise.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import DDIMPipeline, DDIMScheduler, ModelMixin, UNet2DConditionModel, UNet2DModel

from eval.benchmark.mobilegen import MobileGenUNet
from mobilediff.models.macs import count_params_and_macs

TEXT_TOKENS = 77  # of the CLIP text encoder that both peers with a text were trained with

# google/ddpm-cifar10-32: the network of Ho et al. (arXiv 2006.11239) in diffusers.
DDPM_CIFAR10 = {
    "sample_size": 32,
    "block_out_channels": (128, 256, 256, 256),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
# stable-diffusion-v1-5, folder unet (Rombach et al., arXiv 2112.10752).
SD_1_5 = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
# nota-ai/bk-sdm-tiny, folder unet (Kim et al., arXiv 2305.15798): SD without its innermost stage.
BK_SDM_TINY = SD_1_5 | {
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3,
    "mid_block_type": None,
    "up_block_types": ("CrossAttnUpBlock2D",) * 3,
}


@dataclass(frozen=True)
class PeerConfig:
    """Describe a peer by its public configuration.

    Attributes:
        source: where the configuration is public.
        network_class: of diffusers, or in its manner.
        config: arguments of that class; the rest are its defaults.
        num_inference_steps: of DDIM for an image; None if only the network call is timed.
        network_calls: that its public sampler makes for an image, where only the network call is timed.
    """

    source: str
    network_class: type[ModelMixin]
    config: dict
    num_inference_steps: int | None = None
    network_calls: int | None = None

    def build(self) -> ModelMixin:
        """Build the network with random weights, in evaluation mode, on the default device."""
        return self.network_class(**self.config).eval()


PEERS = {
    "ddpm-cifar10-ddim-50": PeerConfig("google/ddpm-cifar10-32", UNet2DModel, DDPM_CIFAR10, 50),
    "ddpm-cifar10-ddim-100": PeerConfig("google/ddpm-cifar10-32", UNet2DModel, DDPM_CIFAR10, 100),
    "sd-1.5-unet": PeerConfig("stable-diffusion-v1-5/stable-diffusion-v1-5", UNet2DConditionModel, SD_1_5),
    "bk-sdm-tiny-unet": PeerConfig("nota-ai/bk-sdm-tiny", UNet2DConditionModel, BK_SDM_TINY),
    # 999 steps of DDPM, each with and without the class
    "mobilegen-unet": PeerConfig("01pooja10/MobileGen", MobileGenUNet, {}, network_calls=2 * 999),
}


class Peer:
    """Hold a network to time, in a `DDIMPipeline` if it makes images from noise alone."""

    def __init__(self, config: PeerConfig, unet: ModelMixin):
        self.config, self.unet, self.pipeline = config, unet, None
        if config.num_inference_steps is not None:
            # The scheduler's defaults are DDPM's noise schedule.
            self.pipeline = DDIMPipeline(unet, DDIMScheduler())  # pyright: ignore[reportArgumentType] - any such network
            self.pipeline.set_progress_bar_config(disable=True)

    @property
    def device(self) -> torch.device:
        """Return the network's device."""
        return self.unet.device

    def network_inputs(self, batch_size: int = 1) -> dict[str, torch.Tensor]:
        """Build the arguments of one network call.

        Returns:
            `sample` [B, C, H, W], `timestep` [B], and where the network takes them text, [B, L, D], or classes, [B].
        """
        config = self.unet.config
        shape = (batch_size, config.in_channels, config.sample_size, config.sample_size)
        inputs = {
            "sample": torch.zeros(shape, device=self.device),
            "timestep": torch.full((batch_size,), 500, device=self.device),
        }
        if "cross_attention_dim" in config:
            text = torch.zeros(batch_size, TEXT_TOKENS, config.cross_attention_dim, device=self.device)
            inputs["encoder_hidden_states"] = text
        if config.num_class_embeds is not None:
            inputs["class_labels"] = torch.zeros(batch_size, dtype=torch.int64, device=self.device)
        return inputs

    def timed_parts(self, batch_size: int) -> dict[str, Callable[[], object]]:
        """Build a call of the network and, with a pipeline, one from noise to images."""
        inputs, generator = self.network_inputs(batch_size), torch.Generator("cpu")
        parts = {"network_call": lambda: self.unet(**inputs)}
        if (pipeline := self.pipeline) and (steps := self.config.num_inference_steps):
            parts["image"] = lambda: pipeline(
                batch_size=batch_size, generator=generator.manual_seed(0), num_inference_steps=steps
            )
        return parts

    def size(self) -> dict:
        """Count parameters and multiply-accumulates, by the keys of `eval.benchmark.size.measure_size`."""
        params, macs = count_params_and_macs(self.unet, self.network_inputs())
        size = {"source": self.config.source, "params_unet": params, "params_total": params, "macs_network_call": macs}
        steps = self.config.num_inference_steps
        if calls := steps or self.config.network_calls:
            size |= {"macs_image": calls * macs, "nfe": calls}
        if steps:
            size |= {"num_inference_steps": steps, "guidance_scale": 1.0}
        return size


def load_peers(names: list[str], device: torch.device | str = "cpu") -> dict[str, Peer]:
    """Build the peers by name; those of one source share a network.

    Raises:
        ValueError: a name that is not in `PEERS`.
    """
    if unknown := [name for name in names if name not in PEERS]:
        raise ValueError(f"peer is {unknown[0]!r}; accepted are {', '.join(PEERS)}")
    networks = {}
    for name in names:
        if PEERS[name].source not in networks:
            networks[PEERS[name].source] = PEERS[name].build().to(device)  # pyright: ignore[reportArgumentType]
    return {name: Peer(PEERS[name], networks[PEERS[name].source]) for name in names}
