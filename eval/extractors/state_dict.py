"""Read a network's weights as tensors alone."""

from pathlib import Path

import torch
from safetensors.torch import load_file


def read_state_dict(file: Path, network: str, advice: str = "") -> dict[str, torch.Tensor]:
    """Read a state dict, tensors of any shape, from safetensors or a .pth file.

    A .pth file is read restricted to tensors.

    Args:
        network: whose weights they are, in an error.
        advice: what to do about a refused file, at the end of an error's first sentence.

    Raises:
        ValueError: the file is corrupt or holds anything but named tensors.
    """
    refusal = f"{file} is no whole file of {network} weights (named tensors alone are read){advice}"
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a cut or foreign file makes the unpickler raise errors without a common parent
        raise ValueError(f"{refusal}: {error}") from error
    if not isinstance(content, dict) or not all(map(torch.is_tensor, content.values())):
        raise ValueError(f"{refusal}: it holds a {type(content).__name__}")
    return content
