"""Make a network like another one, with some fields of its config changed."""

from typing import TypeVar

from diffusers.models.modeling_utils import ModelMixin

Network = TypeVar("Network", bound=ModelMixin)


def variant(network: Network, **changes) -> Network:
    """Make a network of the same class and config with `changes`, and random weights.

    Args:
        network: gives class, config and device.
        changes: values of config fields that replace its own.
    """
    # diffusers lists under `_use_default_values` the fields that `from_config` ignores
    config = {name: value for name, value in network.config.items() if not name.startswith("_")}
    changed = type(network).from_config({**config, **changes})  # pyright: ignore[reportAttributeAccessIssue] - ConfigMixin's
    return changed.to(network.device)
