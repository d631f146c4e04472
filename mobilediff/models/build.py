"""Build a network from its JSON config."""

import json
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.modeling_utils import ModelMixin

from mobilediff.checkpoints import load_component
from mobilediff.models.mobile_unet import MobileUNet


def build_network(config_file: str, latents: torch.Tensor, initial_weights: str | None = None) -> ModelMixin:
    """Build the network of a JSON config, by the class in its `_class_name`.

    Args:
        config_file: the config.
        latents: training data of the network, [..., C, H, W].
        initial_weights: folder of a network of this config to start from; None for random weights.

    Raises:
        FileNotFoundError: there is no folder `initial_weights`.
        ValueError: an unknown class, a config of another latent size or number of channels, or weights of another
            config.
    """
    config = json.loads(Path(config_file).read_text(encoding="utf-8"))
    channels, size = latents.shape[-3], latents.shape[-1]
    for name, value in (("sample_size", size), ("in_channels", channels), ("out_channels", channels)):
        if config.get(name) != value:
            raise ValueError(f"{config_file}: {name} is {config.get(name)!r}, but the latents need {value}")
    classes = {"UNet2DConditionModel": UNet2DConditionModel, "MobileUNet": MobileUNet}
    if config.get("_class_name") not in classes:
        raise ValueError(
            f"{config_file}: _class_name is {config.get('_class_name')!r}; accepted are {sorted(classes)}"
        )
    network = classes[config["_class_name"]].from_config(config)
    if initial_weights is not None:
        tensors = load_component(type(network), initial_weights).state_dict()
        if shapes(tensors) != shapes(network.state_dict()):
            raise ValueError(f"the weights in {initial_weights} are of another network than {config_file} describes")
        network.load_state_dict(tensors)
    return network


def shapes(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    """List the shape of each tensor of a state dict, by name."""
    return {name: tensor.shape for name, tensor in tensors.items()}
