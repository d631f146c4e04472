"""The graph of stages: every input is made, configs and graph say the same, and the printed plan adds up."""

import importlib.util
from pathlib import Path

import pytest
import yaml

from mobilediff.checkpoints import checkpoint_names
from mobilediff.training.engine.options import RunLimits, TrainingOptions, build_options
from mobilediff.training.tools.graph import TRIAL_SUFFIX, Node, load_graph

ROOT = Path(__file__).parents[4]
NODES, CHECKPOINTS = load_graph()


@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
def test_each_run_has_its_stage_and_its_config(node):
    assert importlib.util.find_spec(f"mobilediff.training.{node.stage}") is not None
    assert node.config_file.is_file()
    assert not set(node.inputs) & set(node.options)


@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
def test_config_reads_the_same_runs_as_the_graph(node):
    values = yaml.safe_load(node.config_file.read_text(encoding="utf-8"))
    reads = {
        option: value
        for option, value in values.items()
        if option != "output" and str(value[0] if isinstance(value, list) else value).startswith("runs/")
    }
    assert reads.keys() == node.inputs.keys()
    if not node.options:  # another run of the same config reads other runs
        located = {
            option: [f"runs/{path}" for path in value] if isinstance(value, list) else f"runs/{value}"
            for option, value in node.inputs.items()
        }
        assert reads == located


def test_shipped_checkpoints_are_exported():
    assert set(CHECKPOINTS) == set(checkpoint_names(ROOT / "checkpoints"))
    command = CHECKPOINTS["student-1step"].command("runs", "out")
    assert command.endswith("--model runs/end-to-end/export --output out/student-1step")
    trial = CHECKPOINTS["student-1step"].command("runs", "out", "-dry-run")
    assert trial.endswith("--model runs/end-to-end-dry-run/export --output out/student-1step")
    other = CHECKPOINTS["student-1step-64"]
    assert other.command("runs", "out").endswith("--output out/student-1step-64 --vae runs/tiny-vae-64/export")
    assert "--vae" not in other.command("runs", "out", "-dry-run") and other.parents == ["end-to-end", "tiny-vae-64"]


def test_command_of_a_trial_reads_and_writes_trials():
    node = Node("b", "tiny_vae", "tiny_vae", inputs={"students": ["a/export", "c/export"]}, options={"steps": 5})
    command = node.command("runs/trial", TRIAL_SUFFIX)
    assert "students=[runs/trial/a-dry-run/export,runs/trial/c-dry-run/export]" in command.replace("'", "")
    assert " --dry-run " in command and " output=runs/trial/b " in command and command.endswith(" steps=5")
    assert node.parents == ["a", "c"]


def test_trials_are_looked_for_where_stages_write_them():
    options = build_options(TrainingOptions, {"output": "runs/trial/a"})
    assert options.for_trial(RunLimits(dry_run=True)).output == f"runs/trial/a{TRIAL_SUFFIX}"


def test_plan_states_images_and_minutes():
    node = Node("b", "prune", "prune", options={"steps": 120, "batch_size": 100}, images_per_second=50)
    assert node.plan() == "b: 120 steps of 100, 12,000 images, 4 min at 50 images/s"
    unmeasured = Node("b", "prune", "prune", options={"steps": 120, "batch_size": 100})
    assert unmeasured.plan() == "b: 120 steps of 100, 12,000 images; its images a second were not measured"


def test_a_run_that_reads_a_later_one_is_refused(tmp_path):
    file = tmp_path / "graph.yaml"
    file.write_text("stages:\n  a: {stage: clip, config: clip, inputs: {text: b/export}}\ncheckpoints: {}\n")
    with pytest.raises(ValueError, match=r"a reads \['b'\]"):
        load_graph(file)
    file.write_text("stages:\n  a: {stage: clip, config: clip}\ncheckpoints:\n  x: {run: z}\n")
    with pytest.raises(ValueError, match=r"checkpoint x is of \['z'\]"):
        load_graph(file)
