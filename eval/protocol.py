"""State a measurement's protocol: hashes, library versions, device."""

import hashlib
import platform
import re
from importlib.metadata import version
from pathlib import Path

import torch
from accelerate import PartialState

from mobilediff.files import files_below

SAMPLING_LIBRARIES = ("torch", "diffusers", "transformers")
LIBRARIES = (*SAMPLING_LIBRARIES, "torchvision", "accelerate", "torch-fidelity", "open-clip-torch", "numpy", "pillow")
# Weights, configurations and vocabularies. The card is left out because the report writes into it, and the code
# because it is versioned with the project.
HASHED_SUFFIXES = (".safetensors", ".json", ".txt")
CODE_HASH = re.compile(rb'_[0-9a-f]{12}"')
CODE_NAME = re.compile(rb'\s*"auto_map": \{[^}]*\},?')  # in a network's config, for diffusers' AutoModel


def file_sha256(path: str | Path) -> str:
    """Hash one file, SHA-256, hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_sha256(folder: str | Path, suffixes: tuple[str, ...] = HASHED_SUFFIXES) -> str:
    """Hash the relative paths and contents of a checkpoint's weights, configurations and vocabularies, SHA-256.

    Links are followed. The names of the code in the configurations are left out.

    Raises:
        FileNotFoundError: the folder is missing or holds none of them.
    """
    folder = Path(folder)
    files = [path for path in files_below(folder) if path.suffix in suffixes]
    if not files:
        raise FileNotFoundError(f"{folder} holds no checkpoint: expected {', '.join(suffixes)} files")
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        if path.suffix == ".json":
            content = CODE_NAME.sub(b"", CODE_HASH.sub(b'"', content))
        digest.update(f"{path.relative_to(folder).as_posix()}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()


def resized_from(images: torch.Tensor) -> str:
    """Name the filter of `resize_images`, and the size of the images, [N, 3, H, W], that it was given."""
    return f"Lanczos (Pillow), from {images.shape[3]}x{images.shape[2]}"


def tensor_sha256(tensor: torch.Tensor) -> str:
    """Hash the shape, dtype and contents of a tensor of any shape, SHA-256, hexadecimal."""
    digest = hashlib.sha256(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
    digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def state_dict_sha256(model: torch.nn.Module) -> str:
    """Hash the names and contents of a model's tensors, SHA-256, hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor_sha256(tensor)}\n".encode())
    return digest.hexdigest()


def seed_range(seed: int, n: int) -> str:
    """State the seeds of `n` samples in a protocol."""
    return f"{seed}..{seed + n - 1}, one an image"


def library_versions(names: tuple[str, ...] = LIBRARIES) -> dict[str, str]:
    """Return the versions that can move a figure, by distribution name."""
    return {name: version(name) for name in names}


def default_device() -> torch.device:
    """Return the device that accelerate gives this process."""
    return PartialState().device  # pyright: ignore[reportReturnType] - None only before it is made


def device_description(device: torch.device | str) -> dict:
    """Describe the device's kind and name, and the number of threads of the CPU."""
    device = torch.device(device)
    if device.type == "cpu":
        name = _cpu_name()
    else:
        named = getattr(torch.get_device_module(device), "get_device_name", None)  # torch.mps has none
        name = named(device) if named else _cpu_name()
    return {"device": device.type, "device_name": name, "threads": torch.get_num_threads()}


def measured_with(device: torch.device | str) -> dict:
    """Return device, threads and library versions, in every protocol."""
    return device_description(device) | {"versions": library_versions()}


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
