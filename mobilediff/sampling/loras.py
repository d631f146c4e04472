"""Load LoRA adapters (arXiv 2106.09685), after a look at every tensor of the file."""

import importlib
import json
import math
import os
import re
import warnings
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import convert_state_dict_to_peft, convert_unet_state_dict_to_peft
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError

from mobilediff.sampling.networks import PipelineBase, compute_dtype

LORA_MATRIX = re.compile(r"^(?P<layer>.+)\.lora_(?P<matrix>[AB])\.weight$")


class LorasMixin(PipelineBase):
    """Load adapters of a pipeline's network and text encoder whole or not at all."""

    unet: Any
    text_encoder: Any
    text_encoder_name: str

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: str | os.PathLike | dict[str, torch.Tensor],
        adapter_name: str | None = None,
        hotswap: bool = False,
        **kwargs,
    ) -> None:
        """Load a LoRA as diffusers does, from safetensors alone.

        Args:
            pretrained_model_name_or_path_or_dict: a file, a folder of one, a name on the hub, or tensors.
            adapter_name: for `set_adapters`; by default one that is not taken.
            hotswap: whether the LoRA takes the place of the one of that name.
            kwargs: as for `StableDiffusionLoraLoaderMixin.load_lora_weights`.

        Raises:
            ValueError: the name is taken or cannot be one, or the file is damaged, a pickle, of another network or of
                another rank than its index says; before any work.
            FileNotFoundError: there is no such file, or none in the folder.
        """
        source = pretrained_model_name_or_path_or_dict
        options: dict[str, Any] = kwargs | {"use_safetensors": True}
        self._check_adapter_name(adapter_name, hotswap)
        if not isinstance(source, dict):
            options["weight_name"] = _weight_name(Path(source), options.get("weight_name"))
            source = os.fspath(source)
        try:
            tensors, _, index = self.lora_state_dict(source, return_lora_metadata=True, **options)
        except (SafetensorError, UnicodeDecodeError, json.JSONDecodeError, KeyError) as error:
            raise ValueError(f"{source} is damaged, incomplete or no safetensors file: {error}") from error
        shown = "the given dictionary" if isinstance(source, dict) else str(source)
        check_lora(shown, tensors, index, {"unet": self.unet, "text_encoder": self.text_encoder})
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # of each adapter after the first
            super().load_lora_weights(source, adapter_name=adapter_name, hotswap=hotswap, **options)
        # peft computes in the precision of the file; diffusers' own `to` warns of every cast
        torch.nn.Module.to(self.unet, compute_dtype(self.unet, self.unet.conv_in))

    @classmethod
    def load_lora_into_text_encoder(cls, state_dict: dict[str, torch.Tensor], *args, **kwargs) -> None:
        """Load the text encoder's part, where there is one; diffusers would warn that there is none."""
        if any(key.startswith(f"{cls.text_encoder_name}.") for key in state_dict):
            super().load_lora_into_text_encoder(state_dict, *args, **kwargs)

    def _check_adapter_name(self, name: str | None, hotswap: bool) -> None:
        """Refuse a name that torch takes for no module's, or that another adapter has: ValueError."""
        taken = sorted({one for adapters in self.get_list_adapters().values() for one in adapters})
        if name is None or (hotswap and name in taken):
            return
        if not isinstance(name, str) or not name.isidentifier() or hasattr(torch.nn.ModuleDict(), name):
            raise ValueError(f"adapter_name is {name!r}; accepted are letters, digits and _, as in an identifier")
        if name in taken:
            raise ValueError(f"adapter_name is {name!r}, which is taken; loaded are {', '.join(taken)}")


def _weight_name(path: Path, name: str | None) -> str | None:
    """Choose the file of a local folder; None for a file, or where diffusers looks on the hub.

    Raises:
        ValueError: the file is no safetensors file, or the folder has several and `name` is None.
        FileNotFoundError: the folder has none, or there is nothing of that name, which is none on the hub either.
    """
    if not path.exists():
        try:
            validate_repo_id(path.as_posix())
        except HFValidationError as error:
            raise FileNotFoundError(f"{path} does not exist; accepted is a LoRA's file or folder") from error
    file = path if name is None or path.is_file() else path / name
    if path.is_dir() and name is None:
        found = sorted(path.glob("*.safetensors"))
        if not found:
            raise FileNotFoundError(f"{path} holds no .safetensors file; a LoRA in another format is not loaded")
        if len(found) > 1:
            names = ", ".join(one.name for one in found)
            raise ValueError(f"{path} holds {names}; give the weight_name of one")
        return found[0].name
    if path.exists() and not file.is_file():
        raise FileNotFoundError(f"{file} does not exist; accepted is a .safetensors file of a LoRA")
    if file.is_file() and file.suffix != ".safetensors":
        raise ValueError(f"{file} may hold pickled code and is not loaded; a LoRA must be .safetensors")
    return name


def check_lora(
    source: str, tensors: dict[str, torch.Tensor], index: Mapping[str, Any] | None, components: dict[str, Any]
) -> None:
    """Refuse a LoRA that does not fit.

    Args:
        source: its name in an error.
        tensors: by the keys that diffusers writes, such as "unet.conv_in.lora_A.weight".
        index: the adapter's config that the file holds, such as {"unet.r": 8}; None for none.
        components: network and text encoder, by the first word of the keys.

    Raises:
        ValueError: naming the layer, and what is accepted.
    """
    if index is not None and not isinstance(index, Mapping):
        raise ValueError(f"{source} has a {type(index).__name__} as its index; accepted is an object")
    for key in tensors:
        if key.split(".")[0] not in components:
            raise ValueError(f"{source} has {key}; accepted are tensors of {' and '.join(components)}")
    for name, component in components.items():
        own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        if own and not any(".lora_A." in key for key in own):
            own = (convert_unet_state_dict_to_peft if name == "unet" else convert_state_dict_to_peft)(own)
        own_index = {
            key.removeprefix(f"{name}."): value for key, value in (index or {}).items() if key.startswith(f"{name}.")
        }
        _check_index(source, own_index)
        _check_layers(source, own, own_index, component)
    if not tensors:
        raise ValueError(f"{source} holds no tensor; accepted is a LoRA")


def _check_index(source: str, index: dict[str, Any]) -> None:
    """Refuse an index that peft cannot read, or whose factors are no finite numbers: ValueError."""
    # not by an import statement, for which diffusers would warn of a checkpoint's code where the extra is missing
    peft = importlib.import_module("peft")
    try:
        config = peft.LoraConfig(**index)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{source} has an index that is no LoRA's: {error}") from error
    patterns = {"rank_pattern": config.rank_pattern, "alpha_pattern": config.alpha_pattern}
    for name, pattern in patterns.items():
        if not isinstance(pattern or {}, Mapping):
            raise ValueError(f"{source}: {name} of its index is {pattern!r}; accepted is an object")
    for name, alpha in {"lora_alpha": config.lora_alpha, **(config.alpha_pattern or {})}.items():
        if not isinstance(alpha, Real) or not math.isfinite(alpha):
            raise ValueError(f"{source}: {name} of its index is {alpha!r}; accepted is a finite number")


def _check_layers(source: str, tensors: dict[str, torch.Tensor], index: dict, component: Any) -> None:
    """Refuse matrices that do not fit a component's layers or the index: ValueError."""
    kind = type(component).__name__
    layers = dict(component.named_modules()) if component is not None else {}
    matrices: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        match = LORA_MATRIX.match(key)
        if match is None:
            raise ValueError(f"{source} has {key}, which is no matrix of a LoRA; accepted are lora_A and lora_B")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{source}: {key} has values that are NaN or infinite")
        matrices.setdefault(match["layer"], {})[match["matrix"]] = tensor
    for name, pair in matrices.items():
        layer = layers.get(name) or layers.get(name.removeprefix("text_model."))  # of an older version's text encoder
        weight = getattr(getattr(layer, "base_layer", layer), "weight", None)
        if weight is None or weight.ndim not in (2, 4):
            raise ValueError(f"{source} is of another network: {kind} has no layer {name} that takes a LoRA")
        if len(pair) < 2:
            raise ValueError(f"{source} lacks lora_{'B' if 'A' in pair else 'A'} of {name}; accepted is both")
        rank, expected = len(pair["A"]), tuple(weight.shape)
        fits = pair["A"].shape[1:] == weight.shape[1:] and pair["B"].shape[:2] == (len(weight), rank)
        if not fits:
            shapes = " and ".join(str(list(pair[matrix].shape)) for matrix in "AB")
            raise ValueError(
                f"{source} is of another network: its matrices of {name} are {shapes}, but the weights of {kind} "
                f"are {list(expected)}"
            )
        patterns = {re.sub(r"^\^", "", key): value for key, value in (index.get("rank_pattern") or {}).items()}
        said = patterns.get(name, index.get("r", rank))
        if said != rank:
            raise ValueError(f"{source} has rank {rank} at {name}, but its index says {said}; accepted is the same")
