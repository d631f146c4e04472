"""README and docs: commands, options, files, links, tables and hashes that they name are there."""

import contextlib
import hashlib
import io
import re
import runpy
import shlex
import string
import sys
from functools import cache
from itertools import product
from pathlib import Path

import pytest

from eval.report import PARTS, README
from eval.reporting.insertion import marked_parts, part_of
from eval.reporting.tables import SCALE
from eval.schema import read_results
from mobilediff.checkpoints import text_to_image_names

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))]
# The logs and findings name options of their time.
WITH_COMMANDS = [page for page in PAGES if not page.startswith("docs/log/") and page != "docs/findings.md"]


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def code(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text_of(page), re.DOTALL)


def prose(page: str) -> str:
    return re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)


def commands(page: str) -> list[str]:
    """Every command of a page: its shell blocks' lines, cut at &&, with variables replaced, and those in sentences."""
    found = re.findall(r"`((?:\S*/)?python[^`\n]* [^`\n]+)`", prose(page))
    for block in code(page, "bash"):
        lines = block.replace("\\\n", " ").splitlines()
        values = dict(re.findall(r'^ *(\w+)="?(.*?)"?$', "\n".join(lines), re.MULTILINE))
        found += [string.Template(line).safe_substitute(values) for line in lines]
    return [part.strip() for line in found for part in line.split("&&") if part.strip()]


@cache
def python_commands(page: str) -> list[tuple[str, list[str]]]:
    """The project's own commands of a page: the module or file, and its arguments."""
    found = []
    for command in commands(page):
        words = shlex.split(command)
        if re.fullmatch(r"(?:\S*/)?python3?", words[0]):
            arguments = words[2:] if words[1:2] == ["-m"] else words[1:]
            if arguments and arguments[0].split(".")[0] in ("app", "eval", "mobilediff"):
                found.append((arguments[0], arguments[1:]))
    return found


@cache
def help_of(target: str) -> str:
    """Print the help of a command in this process: starting one for each would take long."""
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


TARGETS = sorted({target for page in WITH_COMMANDS for target, _ in python_commands(page)})


def test_the_commands_are_found():
    assert {"app.py", "eval.fid", "eval.latency", "eval.report"} <= {name for name, _ in python_commands("README.md")}
    stages = "classifier clip vae decoder teacher student progressive one_step tiny_vae prune control inpaint lora"
    stages = stages.split()
    assert set(TARGETS) >= {"mobilediff.export", *(f"mobilediff.training.{stage}" for stage in stages)}


@pytest.mark.parametrize("target", TARGETS)
def test_each_command_exists_and_knows_its_options(target):
    text = help_of(target)
    for page in WITH_COMMANDS:
        for name, arguments in python_commands(page):
            if name != target:
                continue
            options = {argument for argument in arguments if argument.startswith("--")}
            if target.startswith("mobilediff.training."):  # their help lists the names of key=value
                options |= {argument.partition("=")[0] for argument in arguments if re.match(r"\w+=", argument)}
            unknown = [option for option in sorted(options) if not re.search(rf"{re.escape(option)}\b", text)]
            assert not unknown, f"{page}: {target} has no {', '.join(unknown)}"


@pytest.mark.parametrize("page", ["README.md", "docs/results.md", "docs/architecture.md"])
def test_each_option_named_in_a_sentence_is_one_of_a_command(page):
    named = re.findall(r"`(--[a-z-]+)[^`]*`", prose(page))
    texts = "".join(map(help_of, TARGETS))
    assert [option for option in sorted(set(named)) if not re.search(rf"{option}\b", texts)] == []


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_each_config_of_the_commands_exists(page):
    configs = [words[words.index("--config") + 1] for _, words in python_commands(page) if "--config" in words]
    assert [config for config in configs if not (ROOT / config).is_file()] == []


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES)
def test_each_link_has_an_end(page):
    broken = []
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(page)):
        name, _, anchor = link.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(link)
    assert broken == []


def test_each_path_of_the_architecture_and_the_code_map_exists():
    named = re.findall(r"`((?:mobilediff|eval|tests|docs|checkpoints)/[\w/.-]*)`", prose("docs/architecture.md"))
    assert named
    assert [path for path in sorted(set(named)) if not (ROOT / path).exists()] == []
    assert [path for path in code_map(text_of("README.md")) if not (ROOT / path).exists()] == []


def code_map(text: str) -> list[str]:
    """Paths of the README's indented tree, whose folders end in a slash."""
    block = text.split("## Where the code is\n\n")[1].split("\n\n")[0]
    paths, folders = [], {}
    for line in block.splitlines():
        names = re.match(r"( +)((?:[\w.]+/?(?: |$))+)", line)
        depth = len(names[1])
        if depth > 12:  # the second line of a comment
            continue
        for name in names[2].split():
            if "." in name or name.endswith("/"):
                parent = "".join(folder for level, folder in sorted(folders.items()) if level < depth)
                paths.append(parent + name)
        if name.endswith("/"):
            folders = {level: folder for level, folder in folders.items() if level < depth} | {depth: name}
    return paths


def test_the_code_map_has_the_folders_of_the_tree():
    files = [file for package in ("mobilediff", "eval") for file in (ROOT / package).rglob("*.py")]
    folders = {str(file.parent.relative_to(ROOT)) + "/" for file in files}
    assert folders - {"mobilediff/models/configs/"} <= set(code_map(text_of("README.md")))


@pytest.mark.parametrize("page", [*README, "docs/ablation.md"])
def test_the_tables_say_what_the_results_hold(page):
    results = "docs/ablation/results.json" if page == "docs/ablation.md" else "docs/results.json"
    records = read_results(ROOT / results).records
    for part in marked_parts(ROOT / page, tuple(PARTS)):
        assert part_of(ROOT / page, part) == PARTS[part](records), f"{page}: run python -m eval.report"


@pytest.mark.parametrize(
    "folder",
    [ROOT / "checkpoints" / name for name in text_to_image_names(ROOT / "checkpoints")],
    ids=lambda folder: folder.name,
)
def test_the_cards_say_what_the_results_hold(folder):
    records = read_results(ROOT / "docs/results.json").records
    rows = {name: records[name] for name in (folder.name, *SCALE)}
    assert part_of(folder / "README.md", "results") == PARTS["results"](rows)


def recipe_hashes() -> list[tuple[Path, str]]:
    """Folders of the recipe's table, {a,b} and * written out, each with the hash of its weights."""
    found = []
    for pattern, sha256 in re.findall(
        r"^\| `([^`]+)` \| `([0-9a-f]{64})` \|", text_of("docs/recipe.md"), re.MULTILINE
    ):
        pieces = [piece.split(",") for piece in re.split(r"[{}]", pattern)]
        for choice in product(*pieces):
            folders = sorted(ROOT.glob("".join(choice)))
            assert folders, f"docs/recipe.md names {pattern}, which is not there"
            found += [(folder, sha256) for folder in folders]
    return found


@pytest.mark.parametrize(("folder", "sha256"), recipe_hashes(), ids=lambda value: getattr(value, "stem", None))
def test_the_recipe_has_the_hash_of_each_weight_file(folder, sha256):
    (weights,) = folder.glob("*model.safetensors")
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == sha256


def test_the_recipe_names_each_weight_file():
    weights = {
        file.parent for top in ("checkpoints", "eval/weights") for file in (ROOT / top).rglob("*model.safetensors")
    }
    assert weights == {folder for folder, _ in recipe_hashes()}
