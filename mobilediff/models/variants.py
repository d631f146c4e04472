"""Make a network like another one, with some fields of its config changed."""

from diffusers.models.modeling_utils import ModelMixin


def variant(network: ModelMixin, **changes) -> ModelMixin:
    """Make a network of the same class and config with `changes`, and random weights.

    Args:
        network: gives class, config and device.
        changes: values of config fields that replace its own.
    """
    # diffusers lists under `_use_default_values` the fields that `from_config` ignores
    config = {name: value for name, value in network.config.items() if not name.startswith("_")}
    return type(network).from_config({**config, **changes}).to(network.device)
