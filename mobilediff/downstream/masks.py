"""Draw masks of regions to repaint: boxes, strokes, half planes, and all three together."""

import math
from collections.abc import Callable

import torch

STROKE_POINTS = 4


def draw_masks(kind: str, count: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """Draw masks of one kind.

    Args:
        kind: a key of `MASK_KINDS`: a "box" has sides of a quarter to three quarters of the image's, a "stroke" is a
            line through four points, an eighth of the image thick at most, a "half" is one side of a straight line
            near the centre, and "all" is one of each.
        count: of masks.
        size: height and width.
        generator: of positions, sizes and directions; the masks lie on its device.

    Returns:
        float32 [count, 1, size, size]: 1 is repainted, 0 is kept.

    Raises:
        ValueError: for another kind.
    """
    if kind not in MASK_KINDS:
        raise ValueError(f"mask is {kind!r}; accepted are {', '.join(MASK_KINDS)}")
    centres = torch.arange(size, device=generator.device) + 0.5
    return MASK_KINDS[kind](count, centres / size, generator)[:, None].float()


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def _boxes(count: int, centres: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw boxes inside the image, bool [count, S, S], from the pixels' centres [S] in 0..1."""
    sides = _uniform((2, count, 1), 0.25, 0.75, generator)
    starts = _uniform((2, count, 1), 0, 1, generator) * (1 - sides)
    rows, columns = (centres >= starts) & (centres < starts + sides)
    return rows[:, :, None] & columns[:, None, :]


def _strokes(count: int, centres: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw lines through random points, bool [count, S, S]."""
    points = _uniform((count, STROKE_POINTS, 1, 1, 2), 0.1, 0.9, generator)
    radius = _uniform((count, 1, 1, 1), 0.04, 0.0625, generator)
    pixels = torch.stack(torch.meshgrid(centres, centres, indexing="ij"), dim=-1)
    start, along = points[:, :-1], points[:, 1:] - points[:, :-1]
    fraction = ((pixels - start) * along).sum(-1) / along.square().sum(-1)
    nearest = start + fraction.clamp(0, 1)[..., None] * along
    return ((pixels - nearest).norm(dim=-1) <= radius).any(1)


def _half_planes(count: int, centres: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw the images' parts beyond straight lines, bool [count, S, S]."""
    angle = _uniform((count, 1, 1), 0, 2 * math.pi, generator)
    offset = _uniform((count, 1, 1), -0.125, 0.125, generator)
    return (centres[:, None] - 0.5) * angle.sin() + (centres - 0.5) * angle.cos() > offset


def _all(count: int, centres: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw a box, a stroke and a half plane on each other, bool [count, S, S]."""
    boxes, strokes = _boxes(count, centres, generator), _strokes(count, centres, generator)
    return boxes | strokes | _half_planes(count, centres, generator)


MASK_KINDS: dict[str, Callable[[int, torch.Tensor, torch.Generator], torch.Tensor]] = {
    "box": _boxes,
    "stroke": _strokes,
    "half": _half_planes,
    "all": _all,
}
