"""Save and load pipelines with the code that they need, and make one of another's components."""

import copy
import importlib
import inspect
import json
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.peft_utils import recurse_remove_peft_layers

from mobilediff.sampling.code import PACKAGE, PACKAGE_MODULES, copy_source, name_code, source_file
from mobilediff.sampling.networks import PipelineBase

# The file of a network's configuration, beside its weights.
NETWORK_CONFIG = "config.json"

# How the file begins that stands for one that Git LFS has not fetched.
LFS_POINTER = b"version https://git-lfs"

# The attribute by which a network remembers the options of its pipeline.
OPTIONS_OF_PIPELINE = "_options_of_pipeline"

# What a pipeline's options are where nothing else is said.
DEFAULTS = {
    "nouns": None,
    "null_prompt": "",
    "class_template": "a photo of {article} {noun}",
    "default_num_inference_steps": 50,
    "default_guidance_scale": 3.0,
    "default_guidance_low": 0.0,
    "default_guidance_high": 1.0,
    "guidance_distilled": False,
}


def _unwrapped(component: Any) -> Any:
    """Unwrap a network from torch.compile or peft; adapters are merged into a copy's weights."""
    component = getattr(component, "_orig_mod", component)
    peft = sys.modules.get("peft")
    if peft is None or not isinstance(component, torch.nn.Module):
        return component
    if isinstance(component, peft.PeftModel):
        return copy.deepcopy(component).merge_and_unload()  # pyright: ignore[reportCallIssue]
    layer_class = peft.tuners.tuners_utils.BaseTunerLayer
    if not any(isinstance(module, layer_class) for module in component.modules()):
        return component
    component = copy.deepcopy(component)
    for module in component.modules():
        if isinstance(module, layer_class) and not module.disable_adapters:
            module.merge()
    recurse_remove_peft_layers(component)
    component._hf_peft_config_loaded = False
    return component


def _shipped_classes(pipeline: Any) -> dict[str, type]:
    """Find the classes that no library has, by their keys in the index."""
    classes = {"_class_name": type(pipeline)}
    for name, component in pipeline.components.items():
        if component is not None and type(component).__module__.split(".")[0] not in LOADABLE_CLASSES:
            classes[name] = type(component)
    return classes


def _drop_infinite_defaults(file: Path, scheduler: SchedulerMixin) -> None:
    """Drop infinite defaults, which JSON does not have, from a scheduler's config; its own and another scheduler's."""
    defaults = {name: one.default for name, one in inspect.signature(type(scheduler)).parameters.items()}
    config = json.loads(file.read_text(encoding="utf-8"))
    for name, value in list(config.items()):
        if isinstance(value, float) and math.isinf(value) and value == defaults.get(name, value):
            del config[name]
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


class SavingMixin(PipelineBase):
    """Save, load and rebuild a pipeline together with its options and its code."""

    @property
    def components(self) -> dict:
        """Return the modules by name.

        The network remembers the options, so that a pipeline of these modules has the same.
        """
        components = super().components
        options = {name: self.config[name] for name in DEFAULTS}
        if getattr(self.unet, OPTIONS_OF_PIPELINE, None) != options:
            setattr(self.unet, OPTIONS_OF_PIPELINE, options)
        return components

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs):
        """Make a pipeline of another's components and options, of which `kwargs` replaces some.

        Args:
            kwargs: arguments of the class, or `dtype`, to which the shared components are then cast.
        """
        dtype = kwargs.pop("dtype", kwargs.pop("torch_dtype", None))
        known = {**pipeline.config, **pipeline.components}
        taken = {name: known[name] for name in inspect.signature(cls).parameters if name in known}
        new = cls(**(taken | kwargs))
        return new if dtype is None else new.to(dtype=dtype)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs) -> Any:
        """Load a checkpoint, as diffusers does, after a look at the files of a local folder.

        Raises:
            ValueError: a weights file is a Git LFS pointer, or there are no weights of the `variant`.
        """
        weights = sorted(Path(pretrained_model_name_or_path).glob("*/*.safetensors"))
        for file in weights:
            with file.open("rb") as stream:
                if stream.read(len(LFS_POINTER)) == LFS_POINTER:
                    raise ValueError(f"{file} is a Git LFS pointer, not the weights; run git lfs pull in its clone")
        variant = kwargs.get("variant")
        if weights and variant is not None and not any(f".{variant}." in file.name for file in weights):
            raise ValueError(
                f"variant is {variant!r}, but the weights in {pretrained_model_name_or_path} have no such "
                "variant; accepted is None: dtype says in which precision the weights are loaded"
            )
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def load_config(cls, *args, **kwargs):
        """Read the index of a checkpoint for `from_pretrained`.

        `DiffusionPipeline.from_pretrained(..., trust_remote_code=True)` runs the code inside the checkpoint. Called on
        this class of the installed package, the package's own classes stand in for that code, so nothing of the
        folder is executed and no trust is asked for.
        """
        config = super().load_config(*args, **kwargs)
        if __name__.split(".")[0] != PACKAGE:  # but a checkpoint's copy of this code
            return config
        index = config[0] if isinstance(config, tuple) else config
        if isinstance(index.get("_class_name"), (list, tuple)):
            index["_class_name"] = index["_class_name"][-1]
        for name, value in index.items():
            if isinstance(value, (list, tuple)) and value[-1] in PACKAGE_MODULES:
                module = PACKAGE_MODULES[value[-1]]
                importlib.import_module(module)  # diffusers takes component classes from loaded modules only
                index[name] = [module, value[-1]]
        return config

    @classmethod
    def extract_init_dict(cls, config_dict, **kwargs):
        """Sort the entries of an index, as diffusers does.

        Raises:
            ValueError: an entry is none of this class's, such as one of a newer version, which would be ignored.
        """
        known = inspect.signature(cls.__init__).parameters
        if unknown := [name for name in config_dict if name not in known and not name.startswith("_")]:
            raise ValueError(
                f"{cls.config_name} has {', '.join(unknown)}, which this code of {cls.__name__} does not know; "
                "accepted are checkpoints of this version or an older one"
            )
        return super().extract_init_dict(config_dict, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, *args, **kwargs) -> None:
        """Write a folder with its code, which loads where this package is not installed.

        Each file takes the place of an older one in one piece, the index last; other files stay. A network under
        `torch.compile` or peft is saved as the network that it is, its active adapters merged into the weights.

        Args:
            save_directory: a new or an older folder, that of this very pipeline too.
            args, kwargs: as for `DiffusionPipeline.save_pretrained`, `push_to_hub` among them.

        Raises:
            ValueError: the pipeline's class or a component's is of no file that could be shipped; before any work.
        """
        folder = Path(save_directory)
        plain = copy.copy(self)
        for name, component in self.components.items():
            setattr(plain, name, _unwrapped(component))
        for cls in _shipped_classes(plain).values():
            source_file(cls)
        folder.mkdir(parents=True, exist_ok=True)
        kwargs.setdefault("repo_id", folder.resolve().name)
        # Weights in memory may be views of the files there, so these are replaced and not written to.
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as scratch:
            super(SavingMixin, plain).save_pretrained(scratch, *args, **kwargs)
            # safetensors' files are for their owner alone, the index for whom it may be
            mode = Path(scratch, self.config_name).stat().st_mode
            files = [file for file in Path(scratch).rglob("*") if file.is_file()]
            for file in sorted(files, key=lambda file: file.name == self.config_name):
                target = folder / file.relative_to(scratch)
                target.parent.mkdir(parents=True, exist_ok=True)
                file.chmod(mode & 0o777)
                os.replace(file, target)

    def save_config(self, save_directory: str | os.PathLike, **kwargs) -> None:
        """Write the index, and the code that it names."""
        super().save_config(save_directory, **kwargs)
        file = Path(save_directory, self.config_name)
        index = json.loads(file.read_text(encoding="utf-8"))
        index.pop("_name_or_path", None)
        for name, cls in _shipped_classes(self).items():
            index[name] = copy_source(cls, file.parent if name == "_class_name" else file.parent / name)
            if issubclass(cls, torch.nn.Module):
                name_code(file.parent / name / NETWORK_CONFIG, index[name])
        file.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        scheduler_config = Path(save_directory, "scheduler", self.scheduler.config_name)
        if scheduler_config.is_file():
            _drop_infinite_defaults(scheduler_config, self.scheduler)
