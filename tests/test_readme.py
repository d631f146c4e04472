"""The README as a reader meets it: front matter, installation, the loading snippet."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.tiny import tiny_checkpoint

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def requirements() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {requirement.name: requirement for requirement in parsed}


def code(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
def test_the_loading_snippet_runs_on_a_checkpoint_alone(tmp_path):
    snippet = code("python")[0]
    name = re.search(r'from_pretrained\("([^"]+)"', snippet).group(1)
    tiny_checkpoint(tmp_path / name, Path(name).name)
    # An empty modules cache and no package of this project on the path: what a reader's own project looks like.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    check = "\nimport sys\nassert 'mobilediff' not in sys.modules\nprint(image.size, image.mode)\n"
    result = subprocess.run(
        [sys.executable, "-c", snippet + check], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n")[-2] == "(32, 32) RGB"


@pytest.mark.slow
def test_the_snippet_of_64_pixels_runs_on_the_shipped_checkpoints(monkeypatch):
    monkeypatch.chdir(ROOT)
    names: dict = {}
    exec(code("python")[1], names)
    assert names["image"].size == (64, 64)


@pytest.mark.slow
def test_the_downstream_snippet_runs_on_the_shipped_checkpoints(monkeypatch):
    monkeypatch.chdir(ROOT)
    sketch, picture = torch.zeros(1, 32, 32), torch.full((3, 32, 32), 0.5)
    mask = torch.zeros(1, 32, 32)
    sketch[:, 8] = mask[:, :, 20:] = 1
    names: dict = {"sketch": sketch, "picture": picture, "mask": mask}
    exec(code("python")[2], names)
    assert (names["image"].size, names["image"].mode) == ((32, 32), "RGB")
    assert names["pipeline"].get_active_adapters() == ["pencil"]


def test_the_front_matter_is_what_spaces_reads():
    front = yaml.safe_load(README.split("---\n")[1])
    assert front["sdk"] == "gradio"
    assert (ROOT / front["app_file"]).is_file()
    assert front["license"] == "mit" and (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")
    assert front["sdk_version"] in requirements()["gradio"].specifier
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert front["python_version"] in SpecifierSet(project["requires-python"])
    assert front["suggested_hardware"] in ("cpu-basic", "cpu-upgrade", "zero-a10g")
    card = yaml.safe_load((ROOT / "checkpoints/student-1step/README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert (front["datasets"], front["tags"]) == (card["datasets"], card["tags"])


def test_installed_versions_are_within_the_bounds():
    for name, requirement in requirements().items():
        assert requirement.specifier.contains(version(name)), f"{name} {version(name)} is outside {requirement}"


def test_ci_installs_and_tests_as_the_readme_says():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").replace('pip" install -q', 'pip" install')
    script = script.replace('"$venv/bin/', ".venv/bin/").replace('"$venv"', ".venv").replace('"', "")
    install, test = code("bash")[0].strip().rpartition(" && ")[0], code("bash")[1].strip()
    assert install in script
    assert script.strip().endswith(test)
