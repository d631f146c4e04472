"""A network like another one, with some fields of its config changed."""

from diffusers.models.modeling_utils import ModelMixin


def variant(network: ModelMixin, **changes) -> ModelMixin:
    """A network of the same class, random weights, on the same device, its config that of `network` with `changes`."""
    # diffusers lists under `_use_default_values` the fields that `from_config` is to ignore
    config = {name: value for name, value in network.config.items() if not name.startswith("_")}
    return type(network).from_config({**config, **changes}).to(network.device)
