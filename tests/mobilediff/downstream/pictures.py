"""Pictures and masks for edits."""

import torch

SIZE = 32
LEFT = torch.zeros(1, 1, SIZE, SIZE)  # a mask that repaints the left half
LEFT[..., : SIZE // 2] = 1


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    """Random bytes as floats from 0 to 1, [count, 3, 32, 32]."""
    return torch.randint(0, 256, (count, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(seed)) / 255
