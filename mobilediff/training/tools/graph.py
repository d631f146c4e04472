"""Read the graph of stages that trains the family: commands, inputs and planned times.

    snakemake --cores all                       # train all runs that are missing or out of date
    snakemake --cores all --dry-run             # print the plan
    snakemake --cores all --config trial=true   # three steps of every stage

`graph.yaml` declares the stages, `Snakefile` runs them.
"""

import shlex
from dataclasses import dataclass, field
from pathlib import Path

import yaml

TRAINING = Path(__file__).resolve().parents[1]
GRAPH_FILE = TRAINING / "graph.yaml"
TRIAL_SUFFIX = "-dry-run"  # `--dry-run` adds it to a run's folder


def located(path: str, runs: str, suffix: str) -> str:
    """Return the place of an export, `path` from the runs' folder, among runs whose folders have a suffix."""
    run, rest = path.split("/", 1)
    return f"{runs}/{run}{suffix}/{rest}"


@dataclass(frozen=True)
class Node:
    """Describe a run of a stage.

    Attributes:
        name: of its folder among the runs.
        stage: module of `mobilediff.training`.
        config: name of its YAML file.
        inputs: option -> export of another run, a path from the runs' folder, or a list of such.
        options: values that replace the config's.
        images_per_second: measured on the machine that graph.yaml names; None where it was not.
    """

    name: str
    stage: str
    config: str
    inputs: dict[str, str | list[str]] = field(default_factory=dict)
    options: dict[str, object] = field(default_factory=dict)
    images_per_second: float | None = None

    @property
    def config_file(self) -> Path:
        """Return the path of the YAML file."""
        return TRAINING / "configs" / f"{self.config}.yaml"

    @property
    def parents(self) -> list[str]:
        """List the names of the runs whose exports it reads, each once."""
        return list(dict.fromkeys(path.split("/")[0] for path in self._paths()))

    def _paths(self) -> list[str]:
        values = self.inputs.values()
        return [path for value in values for path in (value if isinstance(value, list) else [value])]

    def values(self) -> dict:
        """Read the config's entries, replaced by the run's own options."""
        return yaml.safe_load(self.config_file.read_text(encoding="utf-8")) | self.options

    def command(self, runs: str, suffix: str = "") -> str:
        """Write the stage's command line, Python's arguments alone.

        Args:
            runs: folder of the runs.
            suffix: of every run's folder, `TRIAL_SUFFIX` in a trial.
        """

        words = ["-m", f"mobilediff.training.{self.stage}", "--config", str(self.config_file)]
        if suffix:  # compiling takes longer than three steps, and so does bf16 on processors that emulate it
            words += ["--dry-run", "compile=false", "dtype=fp32"]
        words.append(f"output={runs}/{self.name}")
        for option, value in self.inputs.items():
            paths = [located(path, runs, suffix) for path in (value if isinstance(value, list) else [value])]
            words.append(f"{option}=[{','.join(paths)}]" if isinstance(value, list) else f"{option}={paths[0]}")
        words += [f"{option}={value}" for option, value in self.options.items()]
        return shlex.join(words)

    def plan(self) -> str:
        """State steps, images and minutes in one line."""
        values = self.values()
        images = values["steps"] * values["batch_size"]
        line = f"{self.name}: {values['steps']:,} steps of {values['batch_size']:,}, {images:,} images"
        if self.images_per_second is None:
            return f"{line}; its images a second were not measured"
        return f"{line}, {images / self.images_per_second / 60:,.0f} min at {self.images_per_second:g} images/s"


@dataclass(frozen=True)
class Checkpoint:
    """Describe a checkpoint to export.

    Attributes:
        name: of its folder.
        run: that trains it.
        vae: export of another run that takes the place of its VAE, a path from the runs' folder; None for its own. A
            trial keeps its own, since the other has learnt nothing and so is refused.
        options: of the export's command line.
    """

    name: str
    run: str
    vae: str | None = None
    options: str = ""

    def command(self, runs: str, output: str, suffix: str = "") -> str:
        """Write the export's command line, Python's arguments alone.

        Args:
            runs: folder of the runs.
            output: folder of the checkpoints.
            suffix: of every run's folder, `TRIAL_SUFFIX` in a trial.
        """
        words = ["-m", "mobilediff.export", "--model", f"{runs}/{self.run}{suffix}/export"]
        words += ["--output", f"{output}/{self.name}"]
        if self.vae is not None and not suffix:
            words += ["--vae", located(self.vae, runs, suffix)]
        return shlex.join(words) + f" {self.options}".rstrip()

    @property
    def parents(self) -> list[str]:
        """List the names of the runs whose exports it reads."""
        return [self.run] if self.vae is None else [self.run, self.vae.split("/")[0]]


def load_graph(file: Path = GRAPH_FILE) -> tuple[dict[str, Node], dict[str, Checkpoint]]:
    """Read the runs, inputs first, and the checkpoints of a graph, both by name.

    Raises:
        ValueError: a run reads an export of no run before it, or a checkpoint is of no run.
    """
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    nodes = {name: Node(name, **entry) for name, entry in content["stages"].items()}
    checkpoints = {name: Checkpoint(name, **entry) for name, entry in content["checkpoints"].items()}
    before: set[str] = set()
    for node in nodes.values():
        if missing := set(node.parents) - before:
            raise ValueError(
                f"{file}: {node.name} reads {sorted(missing)}; accepted are runs before it: {sorted(before)}"
            )
        before.add(node.name)
    for checkpoint in checkpoints.values():
        if missing := set(checkpoint.parents) - before:
            raise ValueError(
                f"{file}: checkpoint {checkpoint.name} is of {sorted(missing)}; accepted are {sorted(before)}"
            )
    return nodes, checkpoints
