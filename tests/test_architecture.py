"""Imports go one way, no command imports a command, and the tops of the folders hold commands alone."""

from pathlib import Path

import pytest

from tests.imports import imported_names

ROOT = Path(__file__).parents[1]
STAGES = (
    "classifier clip vae decoder teacher student progressive one_step tiny_vae prune control inpaint lora"
    " end_to_end robust"
).split()
COMMANDS = (
    "fid accuracy clip_score quality latency guidance retrieval reconstruction reference generate grid report control"
    " inpaint lora downstream arena precision"
).split()
ON_DEVICE = "export parity benchmark".split()
COMPRESSION = "latency_table evolve curve sensitivity profile".split()
# From top to bottom, an import goes to a later line or, but for commands and stages, stays within its own entry.
LAYERS = [
    ["app"],
    ["mobilediff.demo"],
    ["mobilediff.demo.page"],
    ["mobilediff.demo.service"],
    ["mobilediff.demo.environment"],
    [f"eval.{command}" for command in COMMANDS],
    [f"mobilediff.ondevice.{command}" for command in ON_DEVICE],
    [f"mobilediff.compression.{command}" for command in COMPRESSION],
    ["eval.reporting"],
    ["eval.cli"],
    ["eval.measures", "eval.benchmark"],
    [f"mobilediff.training.{stage}" for stage in STAGES] + ["mobilediff.training.tools"],
    ["mobilediff.training.bases"],
    ["mobilediff.training.losses"],
    ["mobilediff.training.data"],
    ["mobilediff.training.engine"],
    ["eval.extractors"],
    ["eval.samples"],
    ["eval.metrics"],
    ["eval.schema"],
    ["eval.protocol"],
    ["eval"],
    ["mobilediff.ondevice"],
    ["mobilediff"],
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
FILES = [ROOT / "app.py", *sorted((ROOT / "eval").rglob("*.py")), *sorted((ROOT / "mobilediff").rglob("*.py"))]


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(file) for file in FILES}


def place(module: str) -> str:
    """The entry of `LAYERS` that a module belongs to."""
    while module not in RANK:
        module = module.rpartition(".")[0]
    return module


def imported(file: Path) -> set[str]:
    """The project's modules that a file imports."""
    return {name if name in MODULES else name.rpartition(".")[0] for name in imported_names(file)} & MODULES


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_imports_go_down(file):
    here = place(module_of(file))
    for module in imported(file):
        there = place(module)
        assert here == there or RANK[here] < RANK[there], f"{module_of(file)} imports {module}, which is not below it"


def test_what_the_app_computes_does_not_know_its_page():
    files = sorted((ROOT / "mobilediff" / "demo" / "service").glob("*.py"))
    assert files
    assert not any(name.partition(".")[0] == "gradio" for file in files for name in imported_names(file))


def test_the_app_starts_without_the_library_of_plots():
    plots = {module_of(file) for file in FILES if "matplotlib.pyplot" in imported_names(file)}
    assert "eval.reporting.plots" in plots
    files = [file for file in FILES if place(module_of(file)).startswith(("app", "mobilediff.demo", "eval.reporting"))]
    assert not any(imported(file) & plots for file in files if module_of(file) not in plots)


def test_metrics_import_nothing_of_the_project_but_metrics():
    found = {module for file in FILES if file.parent.name == "metrics" for module in imported(file)}
    assert found and all(module.startswith("eval.metrics.") for module in found)


def test_what_travels_in_checkpoints_imports_nothing_else_of_the_project():
    stays = ("__init__.py", "compatible.py")
    folders = [ROOT / "mobilediff" / name for name in ("sampling", "schedulers")]
    files = [file for folder in folders for file in folder.glob("*.py") if file.name not in stays]
    names = ("pipeline.py", "downstream/control.py", "models/mobile_unet.py", "models/mobile_controlnet.py")
    files += [ROOT / "mobilediff" / name for name in names]
    found = {module for file in files for module in imported(file)}
    assert found
    traveling = ("mobilediff.sampling.", "mobilediff.schedulers.conversion", "mobilediff.pipeline")
    assert all(module.startswith((*traveling, "mobilediff.models.mobile_unet")) for module in found)


def reached(modules: set[str], beyond: str) -> set[str]:
    """All modules that some modules import, through each other too, but for what `beyond` imports."""
    files, found, waiting = dict(zip(map(module_of, FILES), FILES, strict=True)), set(), set(modules)
    while waiting:
        found |= waiting
        waiting = {name for module in waiting - {beyond} for name in imported(files[module])} - found
    return found


def test_nothing_learns_from_what_judges_it():
    training, monitor = ROOT / "mobilediff" / "training", "mobilediff.training.engine.monitor"
    stages = {module for module in MODULES if module.startswith("mobilediff.training.")}
    extractors = {module for module in reached(stages, monitor) if module.startswith("eval.extractors")}
    assert not extractors, "the monitor of validation alone may ask an extractor"
    judged_by = {f"eval.extractors.{name}" for name in ("base", "judge", "pixels", "statistics")}
    watching = {module for module in reached({monitor}, "") if module.startswith("eval.extractors.")}
    assert watching == judged_by, "no figure of training is of an extractor from outside"
    # neither as a package nor as weights, in code or configs
    texts = {file: file.read_text(encoding="utf-8") for file in training.rglob("*") if file.suffix in (".py", ".yaml")}
    makes = {"classifier_judge.yaml", "graph.yaml"}  # train the judge itself
    for file, text in texts.items():
        assert not any(name in text.lower() for name in ("efficientnet", "weights/judge", "judge_folder"))
        assert file.name in makes or "classifier-judge" not in text
    assert {file.name for file, text in texts.items() if "classifier-judge" in text} == makes


@pytest.mark.parametrize(
    ("folder", "names"),
    [("eval", [*COMMANDS, "protocol", "schema"]), ("mobilediff/training", STAGES)],
)
def test_the_top_holds_commands_alone(folder, names):
    assert {file.stem for file in (ROOT / folder).glob("*.py")} == {"__init__", *names}
