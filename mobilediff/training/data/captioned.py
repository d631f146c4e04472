"""Draw captions for the data set's images in turn, and keep what is drawn for them on disk."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from mobilediff.captions import CaptionBank
from mobilediff.files import atomic_path


def captioned_batches(
    bank: CaptionBank,
    labels: torch.Tensor,
    noun_ids: torch.Tensor,
    sizes: Iterable[int],
    generator: torch.Generator,
    class_probability: float,
    phrasing_probability: float = 0.0,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield batches of image indices, in turn, and a drawn caption each.

    Args:
        bank: of the captions.
        labels, noun_ids: of the images, int64 [N]; after the last image the first follows.
        sizes: images of each batch, B.
        generator: on the device of `labels`; advanced at each batch, so that more may be drawn from it in between.
        class_probability, phrasing_probability: as in `CaptionBank.draw`.

    Yields:
        Image indices and caption ids, each int64 [B].
    """
    start = 0
    for size in sizes:
        images = torch.arange(start, start + size, device=labels.device) % len(labels)
        yield (
            images,
            bank.draw(
                labels[images],
                noun_ids[images],
                generator,
                class_probability,
                phrasing_probability=phrasing_probability,
            ),
        )
        start += size


def cached_tensors(file: Path, make: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Read a safetensors file of tensors, made first where it is not there."""
    if not file.is_file():
        tensors = {name: tensor.contiguous() for name, tensor in make().items()}
        with atomic_path(file) as temporary:
            save_file(tensors, temporary)
    return load_file(file)
