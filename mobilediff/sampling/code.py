"""Ship code inside checkpoints, and keep the code of loaded ones apart."""

import ast
import hashlib
import importlib
import inspect
import json
import os
import re
import sys
from importlib.util import cache_from_source
from pathlib import Path

from diffusers.utils import DIFFUSERS_DYNAMIC_MODULE_NAME

# Where the package keeps the classes that a checkpoint may carry a copy of.
PACKAGE_MODULES = {
    "MobileDiffusionPipeline": "mobilediff.pipeline",
    "MobileDiffusionControlPipeline": "mobilediff.downstream.control",
    "MobileDiffusionInpaintPipeline": "mobilediff.downstream.inpaint",
    "MobileControlNet": "mobilediff.models.mobile_controlnet",
    "MobileUNet": "mobilediff.models.mobile_unet",
    "UFOGenScheduler": "mobilediff.schedulers.ufogen",
    "DistilledDDIMScheduler": "mobilediff.schedulers.distilled_ddim",
}

PACKAGE = "mobilediff"

# Where diffusers copies the code of local folders to, and runs it under the files' bare names.
LOCAL_CODE = f"{DIFFUSERS_DYNAMIC_MODULE_NAME}.local"

CODE_HASH = re.compile(r"_[0-9a-f]{12}$")


def isolate_code(cls: type) -> None:
    """Rename the module of a class from a local folder after the hash of its code.

    diffusers runs the `pipeline.py` of every local folder in one module: another version's functions and constants
    would replace those that this version's methods call. Python tells bytecode apart by second and size alone, so
    that this version could also run as the other. The renamed module and its file stay as they were loaded.
    """
    shared = cls.__module__
    package, _, stem = shared.rpartition(".")
    module = sys.modules.get(shared)
    if package != LOCAL_CODE or CODE_HASH.search(stem) or module is None or vars(module).get(cls.__name__) is not cls:
        return
    source = Path(inspect.getfile(cls))
    content = source.read_bytes()
    stem = f"{stem}_{hashlib.sha256(content).hexdigest()[:12]}"
    own = source.with_name(f"{stem}.py")
    _replace_file(own, content)
    Path(cache_from_source(source)).unlink(missing_ok=True)
    for value in list(vars(module).values()):
        if getattr(value, "__module__", None) == shared:
            value.__module__ = f"{package}.{stem}"
    module.__name__, module.__file__ = f"{package}.{stem}", str(own)
    sys.modules[module.__name__] = sys.modules.pop(shared)


def _replace_file(file: Path, content: bytes) -> None:
    """Write a file that takes the place of an older one in one piece."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, file)


def bundled_source(file: Path) -> str:
    """Join the code of a file and of the package's modules that it imports.

    diffusers puts the code of all local folders into one package, copies direct relative imports alone, and never
    reloads these, so that a folder's second file would be mistaken for another folder's.

    Returns:
        Code that imports nothing of the package: all imports, then each module after those that it imports; a file
        without such imports as it is.
    """
    content = file.read_bytes().decode()
    imports, sections = set(), {}
    _collect(content, file.stem, imports, sections)
    if len(sections) == 1:
        return content
    head = "\n".join(content.splitlines()[: ast.parse(content).body[0].end_lineno])
    return "\n\n".join([head, "\n".join(sorted(imports)), *sections.values()]) + "\n"


def _collect(content: str, name: str, imports: set[str], sections: dict[str, str]) -> None:
    """Add a module's imports, and its other code after that of the package's modules that it imports."""
    lines: list[str | None] = list(content.splitlines())
    docstring, *statements = ast.parse(content).body
    removed = [docstring]
    for node in statements:
        if isinstance(node, ast.Import):
            imports |= {ast.unparse(ast.Import([alias])) for alias in node.names}
        elif not isinstance(node, ast.ImportFrom):
            continue
        elif (module := str(node.module)).split(".")[0] != PACKAGE:
            imports |= {ast.unparse(ast.ImportFrom(module, [alias], 0)) for alias in node.names}
        elif module not in sections:
            _collect(inspect.getsource(importlib.import_module(module)), module, imports, sections)
        removed.append(node)
    for node in removed:
        for index in range(node.lineno - 1, node.end_lineno or node.lineno):
            lines[index] = None
    body = "\n".join(line for line in lines if line is not None).strip()
    text = ast.literal_eval(ast.unparse(docstring))
    title = "\n".join(f"# {line}".rstrip() for line in text.splitlines())
    sections[name] = f"\n# --- {name}\n{title}\n\n\n{body}"


def copy_source(cls: type, folder: Path) -> list[str]:
    """Write the code of a class into a checkpoint, as one file.

    Returns:
        The class's entry in the index, such as ["mobile_unet", "MobileUNet"].

    Raises:
        ValueError: there is no file from which another process could load the class.
    """
    source = source_file(cls)
    module = CODE_HASH.sub("", source.stem)  # which the code of a checkpoint carries once it is loaded
    folder.mkdir(parents=True, exist_ok=True)
    _replace_file(folder / f"{module}.py", bundled_source(source).encode())
    return [module, cls.__name__]


def name_code(config: Path, entry: list[str]) -> None:
    """Write into a network's config which class diffusers' `AutoModel` takes from the file beside it.

    Args:
        config: the file, replaced in one piece if it names another class.
        entry: as `copy_source` returns.
    """
    content = json.loads(config.read_text(encoding="utf-8"))
    named = content | {"auto_map": {"AutoModel": ".".join(entry)}}
    if named != content:
        _replace_file(config, (json.dumps(named, indent=2, sort_keys=True) + "\n").encode())


def source_file(cls: type) -> Path:
    """Find the file that defines a class; raises as `copy_source` does."""
    module = sys.modules.get(cls.__module__)
    file = Path(getattr(module, "__file__", None) or "")
    if cls.__module__ == "__main__" or not file.is_file() or not hasattr(module, cls.__qualname__):
        raise ValueError(
            f"the class {cls.__module__}.{cls.__qualname__} cannot be saved; accepted are classes at the top of a "
            "module that is a file of its own, which can be copied into the checkpoint"
        )
    return file
