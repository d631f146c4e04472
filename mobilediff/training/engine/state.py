"""Save a run's state: tensors in safetensors, scalars in JSON, replaced as one."""

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from mobilediff.files import permit_as_usual

STATE = "state"


def save_state(folder: Path, tensors: dict[str, torch.Tensor], scalars: dict) -> None:
    """Write `folder`/state-<step>, then drop the older ones.

    A crash in between leaves the older one whole. An existing state of that step is kept: a run is deterministic, so
    both are the same.

    Args:
        folder: of the run.
        tensors: by name, of any shape.
        scalars: JSON values; `step` is required.
    """
    target = folder / f"{STATE}-{scalars['step']:08d}"
    if target.is_dir():
        return
    temporary = folder / f".{target.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    # clone: tied or sliced tensors may share memory, which safetensors refuses
    save_file(
        {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()},
        temporary / "tensors.safetensors",
    )
    (temporary / "scalars.json").write_text(json.dumps(scalars), encoding="utf-8")
    permit_as_usual(temporary)
    older = saved_states(folder)
    os.replace(temporary, target)
    for path in older:
        shutil.rmtree(path)


def load_state(folder: Path) -> tuple[dict[str, torch.Tensor], dict] | None:
    """Read the newest state of a run folder; None for a new run.

    Returns:
        The tensors by name, of the shapes that were saved, and the scalars.
    """
    states = saved_states(folder)
    if not states:
        return None
    return load_file(states[-1] / "tensors.safetensors"), json.loads((states[-1] / "scalars.json").read_text())


def saved_states(folder: Path) -> list[Path]:
    """List the state folders, oldest first."""
    return sorted(folder.glob(f"{STATE}-*"))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Collect the tensors of an optimiser's state, of any shape, named <parameter index>.<key>."""
    states = optimizer.state_dict()["state"]
    return {
        f"{index}.{key}": torch.as_tensor(value) for index, state in states.items() for key, value in state.items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Restore the tensors of `optimizer_tensors`; hyper-parameters stay as they are.

    Each tensor takes the shape and memory format of its parameter: fused kernels walk both in memory order, not by
    strides.
    """
    state_dict = optimizer.state_dict()
    state_dict["state"] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state_dict["state"].setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(state_dict)
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if torch.is_tensor(value) and value.shape == parameter.shape:
                state[key] = torch.empty_like(parameter).copy_(value)
