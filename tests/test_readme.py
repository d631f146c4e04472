"""What the README tells a reader to type exists and does what it says."""

import contextlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.tiny import tiny_checkpoint

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def requirements() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {requirement.name: requirement for requirement in parsed}


def code(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    """Every command of the README: its shell blocks' lines, cut at &&, and those inside sentences."""
    lines = [line for block in code("bash") for line in block.replace("\\\n", " ").splitlines()]
    inline = re.findall(r"`((?:\S*/)?python[^`\n]* [^`\n]+)`", re.sub(r"```.*?```", "", README, flags=re.DOTALL))
    return [part.strip() for line in lines + inline for part in line.split("&&") if part.strip()]


def python_commands() -> list[tuple[str, list[str]]]:
    """The project's own: the module or file, and its arguments."""
    found = []
    for command in commands():
        words = shlex.split(command)
        if re.fullmatch(r"(?:\S*/)?python3?", words[0]):
            arguments = words[2:] if words[1:2] == ["-m"] else words[1:]
            if arguments and arguments[0].split(".")[0] in ("app", "eval", "mobilediff"):
                found.append((arguments[0], arguments[1:]))
    return found


@cache
def help_of(target: str) -> str:
    """What `--help` prints, in this process, since starting one for each would take long."""
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        patch.setattr(sys, "argv", [target, "--help"])
        patch.delitem(sys.modules, target, raising=False)
        with pytest.raises(SystemExit) as exit_info:
            if target.endswith(".py"):
                runpy.run_path(str(ROOT / target), run_name="__main__")
            else:
                runpy.run_module(target, run_name="__main__", alter_sys=True)
    assert exit_info.value.code in (0, None)
    return output.getvalue()


def test_the_commands_are_found():
    targets = [target for target, _ in python_commands()]
    assert "app.py" in targets
    assert "eval.fid" in targets
    assert "mobilediff.training.teacher" in targets


@pytest.mark.parametrize("target", sorted({target for target, _ in python_commands()}))
def test_each_command_exists_and_knows_its_options(target):
    text = help_of(target)
    for name, arguments in python_commands():
        if name == target:
            for option in (argument for argument in arguments if argument.startswith("--")):
                assert re.search(rf"{re.escape(option)}\b", text), f"{target} has no {option}"


def test_each_option_named_in_the_text_is_one_of_a_command():
    named = set(re.findall(r"`(--[a-z-]+)[^`]*`", README))
    targets = {target for target, _ in python_commands()}
    texts = "".join(help_of(target) for target in targets)
    assert named
    assert [option for option in sorted(named) if not re.search(rf"{option}\b", texts)] == []


def test_each_file_of_the_commands_and_links_exists():
    configs = [words[words.index("--config") + 1] for _, words in python_commands() if "--config" in words]
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", README)
    assert configs
    assert "LICENSE" in links
    assert [path for path in [*configs, *links] if not (ROOT / path).exists()] == []


def test_the_loading_snippet_runs_on_a_checkpoint_alone(tmp_path):
    (snippet,) = code("python")
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


def test_the_front_matter_is_what_spaces_reads():
    front = yaml.safe_load(README.split("---\n")[1])
    assert front["sdk"] == "gradio"
    assert (ROOT / front["app_file"]).is_file()
    assert front["license"] == "mit" and (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")
    assert front["sdk_version"] in requirements()["gradio"].specifier


def test_installed_versions_are_within_the_bounds():
    for name, requirement in requirements().items():
        assert requirement.specifier.contains(version(name)), f"{name} {version(name)} is outside {requirement}"


def test_ci_installs_and_tests_as_the_readme_says():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").replace('pip" install -q', 'pip" install')
    script = script.replace('"$venv/bin/', ".venv/bin/").replace('"$venv"', ".venv").replace('"', "")
    install, test = code("bash")[0].strip().rpartition(" && ")[0], code("bash")[1].strip()
    assert install in script
    assert script.strip().endswith(test)
