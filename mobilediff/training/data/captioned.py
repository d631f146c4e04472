"""Draw captions for the data set's images in turn, and keep drawn tensors on disk."""

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
        generator: on the device of `labels`; the caller may draw from it between two batches.
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
    """Read a file of tensors, which is made first if it is missing.

    Args:
        file: in safetensors' format.
        make: the tensors by name, of any shape.

    Returns:
        The tensors by name, on the CPU.
    """
    if not file.is_file():
        tensors = {name: tensor.contiguous() for name, tensor in make().items()}
        with atomic_path(file) as temporary:
            save_file(tensors, temporary)
    return load_file(file)
