"""The code inside checkpoints: which is run, under which names, and how it is brought up to the package's."""

import ast
import hashlib
import importlib
import inspect
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import dynamic_modules_utils

from eval.protocol import folder_sha256
from mobilediff import export
from mobilediff.checkpoints import checkpoint_names, load_pipeline
from mobilediff.export import export_pipeline
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.sampling.code import PACKAGE_MODULES, bundled_source
from tests.checkpoints.drawing import DEER, draw, draw_elsewhere
from tests.tiny import KINDS

ROOT = Path(export.__file__).parent
SHIPPED = [ROOT.parent / "checkpoints" / name for name in checkpoint_names(ROOT.parent / "checkpoints")]
CODE = {
    "teacher": {"pipeline.py"},
    "student": {"pipeline.py", "unet/mobile_unet.py"},
    "student-8step": {"pipeline.py", "unet/mobile_unet.py", "scheduler/distilled_ddim.py"},
    "student-1step": {"pipeline.py", "unet/mobile_unet.py", "scheduler/ufogen.py"},
    "student-1step-64": {"pipeline.py", "unet/mobile_unet.py", "scheduler/ufogen.py"},
    "student-1step-control": {
        "control.py",
        "unet/mobile_unet.py",
        "controlnet/mobile_controlnet.py",
        "scheduler/ufogen.py",
    },
    "student-1step-inpaint": {"inpaint.py", "unet/mobile_unet.py", "scheduler/ufogen.py"},
    "student-1step-pruned": {"pipeline.py", "unet/mobile_unet.py", "scheduler/ufogen.py"},
}


@pytest.fixture(autouse=True)
def modules_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))


@pytest.fixture
def edited(checkpoints, tmp_path) -> Path:
    """A one-step checkpoint with other code of the same size: class names in another order, outputs negated."""
    folder = Path(shutil.copytree(checkpoints / "student-1step", tmp_path / "edited"))
    for file, replacements in (
        ("pipeline.py", {'"cat", "deer"': '"deer", "cat"'}),
        ("unet/mobile_unet.py", {"sample = self.conv_out(": "sample = -self.conv_out(", "# 5. out": "# 5 out"}),
    ):
        original = source = (folder / file).read_text()
        for old, new in replacements.items():
            assert source.count(old) == 1
            source = source.replace(old, new)
        assert len(source) == len(original)
        (folder / file).write_text(source)
    return folder


def draw_as_edited(folder: Path) -> torch.Tensor:
    """What the code of `edited` draws with the weights of `folder`."""
    pipeline = load_pipeline(folder)
    pipeline.unet.register_forward_hook(lambda network, inputs, outputs: (-outputs[0],))
    return draw(pipeline, DEER)


def with_hashed_names(folder: Path, target: Path) -> Path:
    """A copy whose code files carry a hash in their names, as exports once wrote them."""
    shutil.copytree(folder, target)
    index = json.loads((target / "model_index.json").read_text())
    for name, value in index.items():
        place = target if name == "_class_name" else target / name
        if isinstance(value, list) and (file := place / f"{value[0]}.py").is_file():
            value[0] += f"_{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"
            file.rename(place / f"{value[0]}.py")
    (target / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    assert code_files(target) and not code_files(target) & code_files(folder)
    return target


def code_files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}


def package_code(name: str) -> bytes:
    (module,) = (module for module in PACKAGE_MODULES.values() if module.endswith(f".{Path(name).stem}"))
    return bundled_source(Path(importlib.import_module(module).__file__)).encode()


def load_with_its_code(folder: Path) -> DiffusionPipeline:
    return DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)


def assert_close(image: torch.Tensor, expected: torch.Tensor, message: str = "") -> None:
    torch.testing.assert_close(image, expected, rtol=0, atol=1e-4, msg=message or None)


@pytest.mark.slow
def test_folders_share_a_process_where_the_package_is_not_installed(checkpoints, edited, tmp_path):
    """All kinds, each before and after the other; other code; and names as they once were."""
    hashed = [
        with_hashed_names(folder, tmp_path / f"hashed-{folder.name}")
        for folder in (edited, checkpoints / "student-8step", checkpoints / "student-1step")
    ]
    first = [checkpoints / kind for kind in KINDS]
    folders = [*first, edited, *hashed, edited, *first[::-1]]
    as_edited = draw_as_edited(edited)
    assert (as_edited - draw(load_pipeline(edited))).abs().max() > 0.1
    for folder, image in zip(folders, draw_elsewhere(folders, tmp_path), strict=True):
        expected = as_edited if "edited" in folder.name else draw(load_pipeline(folder))
        assert_close(image, expected, folder.name)


def test_folders_of_differing_code_share_a_process_with_the_package(checkpoints, edited):
    plain = checkpoints / "student-1step"
    own, others = draw(load_pipeline(plain)), draw_as_edited(plain)
    pipelines = [load_with_its_code(plain), load_with_its_code(edited), load_with_its_code(plain)]
    loaders = (load_pipeline, MobileDiffusionPipeline.from_pretrained)
    packaged = [load(folder) for folder in (plain, edited) for load in loaders]
    for pipeline, expected in zip(pipelines, (own, others, own), strict=True):
        assert_close(draw(pipeline), expected)
    for pipeline in packaged:
        assert_close(draw(pipeline), own)
        modules = {type(part).__module__.split(".")[0] for part in (pipeline, pipeline.unet, pipeline.scheduler)}
        assert modules == {"mobilediff"}


def test_a_loaded_folders_code_can_be_read_and_loaded_again(checkpoints, edited):
    plain = checkpoints / "student-1step"
    pipelines = {folder: load_with_its_code(folder) for folder in (plain, edited)}
    for folder, pipeline in pipelines.items():
        for cls, file in ((type(pipeline), "pipeline.py"), (type(pipeline.unet), "unet/mobile_unet.py")):
            assert Path(inspect.getsourcefile(cls)).read_bytes() == (folder / file).read_bytes()
            assert inspect.getsource(cls) in (folder / file).read_text()
    again = type(pipelines[edited]).from_pretrained(edited, trust_remote_code=True)
    assert_close(draw(again), draw_as_edited(plain))


def test_a_pipeline_that_runs_a_folders_code_is_exported_with_that_code(checkpoints, edited, tmp_path):
    pipeline = load_with_its_code(edited)
    load_with_its_code(checkpoints / "student-1step")
    again = export_pipeline(pipeline, tmp_path / "again" / edited.name)
    (again / "README.md").write_bytes((edited / "README.md").read_bytes())
    for file in edited.rglob("*"):
        assert file.is_dir() or (again / file.relative_to(edited)).read_bytes() == file.read_bytes(), file.name


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_with_hashed_names_loads(checkpoints, tmp_path, kind):
    hashed = with_hashed_names(checkpoints / kind, tmp_path / kind)
    expected = draw(load_pipeline(checkpoints / kind))
    assert_close(draw(load_pipeline(hashed)), expected)
    assert_close(draw(load_with_its_code(hashed)), expected)
    assert folder_sha256(hashed) == folder_sha256(checkpoints / kind)


@pytest.mark.parametrize(
    "name",
    [
        "pipeline.py",
        "downstream/control.py",
        "downstream/inpaint.py",
        "mobile_controlnet.py",
        "ufogen.py",
        "distilled_ddim.py",
    ],
)
def test_joined_code_has_every_statement_of_its_modules_once(name):
    (source,) = ROOT.rglob(name)
    tree = ast.parse(bundled_source(source))
    parts = re.findall(r"^# --- (\S+)$", bundled_source(source), flags=re.MULTILINE)
    assert len(parts) == len(set(parts)) > 1 and parts[-1] == source.stem
    modules = [importlib.import_module(part) for part in parts[:-1]]
    originals = [ast.parse(inspect.getsource(module)) for module in modules] + [ast.parse(source.read_text())]
    imports = (ast.Import, ast.ImportFrom)
    expected = [node for one in originals for node in one.body[1:] if not isinstance(node, imports)]
    joined = [node for node in tree.body[1:] if not isinstance(node, imports)]
    assert list(map(ast.dump, joined)) == list(map(ast.dump, expected))
    names = [node.name for node in joined if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    names += [target.id for node in joined if isinstance(node, ast.Assign) for target in node.targets]
    assert len(names) == len(set(names)), "one module's name would hide another's"
    assert not any("mobilediff" in ast.unparse(node) for node in tree.body if isinstance(node, imports))


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_a_checkpoint_in_the_tree_carries_the_code_of_the_package(folder):
    assert code_files(folder) == CODE[folder.name]
    for name in CODE[folder.name]:
        refresh = f"python -m mobilediff.export --code {folder}"
        assert (folder / name).read_bytes() == package_code(name), f"{folder / name} is old: run {refresh}"


def test_the_command_refreshes_code_and_nothing_else(checkpoints, edited, tmp_path, capsys):
    hashed = with_hashed_names(edited, tmp_path / "hashed")
    expected = draw(load_pipeline(edited))
    for folder in (edited, hashed):
        (folder / "unet" / "notes.py").write_text("# mine")

    def others(folder: Path) -> dict:
        files = {path for path in folder.rglob("*") if path.is_file() and path.name != "model_index.json"}
        files = {path for path in files if path.suffix != ".py" or path.name == "notes.py"}
        return {path: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) for path in files}

    before = {folder: others(folder) for folder in (edited, hashed)}
    for _ in range(2):
        export.main(["--code", str(edited), str(hashed)])
        assert capsys.readouterr().out.splitlines() == [str(edited), str(hashed)]
        for folder in (edited, hashed):
            assert others(folder) == before[folder]
            assert code_files(folder) == {*CODE["student-1step"], "unet/notes.py"}
            for name in CODE["student-1step"]:
                assert (folder / name).read_bytes() == package_code(name)
            index = (checkpoints / "student-1step" / "model_index.json").read_bytes()
            assert (folder / "model_index.json").read_bytes() == index
            assert_close(draw(load_with_its_code(folder)), expected)


@pytest.mark.slow
def test_a_refresh_that_is_cut_off_leaves_a_checkpoint_that_loads(edited, tmp_path, monkeypatch):
    hashed = with_hashed_names(edited, tmp_path / "hashed")
    replace = os.replace
    for cut in range(4):  # three files of code, then the index
        left = cut

        def cut_off(source, target):
            nonlocal left
            if left == 0:
                raise OSError("no space left on device")
            left -= 1
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", cut_off)
            with pytest.raises(OSError, match="no space left"):
                export.refresh_code([hashed])
        assert_close(draw(load_with_its_code(hashed)), draw_as_edited(edited))
    export.refresh_code([hashed])
    assert_close(draw(load_with_its_code(hashed)), draw(load_pipeline(edited)))
    assert code_files(hashed) == CODE["student-1step"]


def test_a_refresh_of_what_is_no_checkpoint_is_refused_before_any_work(edited, tmp_path, capsys):
    before = {path: path.read_bytes() for path in edited.rglob("*") if path.is_file()}
    (tmp_path / "empty").mkdir()
    foreign = Path(shutil.copytree(edited, tmp_path / "foreign"))
    index = foreign / "model_index.json"
    text = index.read_text()
    for arguments, named in (
        ([str(tmp_path / "empty")], "no checkpoint at"),
        ([str(foreign)], "foreign: unet is ['mobile_unet', 'OtherUNet']; this package has code for"),
    ):
        index.write_text(text.replace("MobileUNet", "OtherUNet"))
        with pytest.raises((ValueError, FileNotFoundError), match=re.escape(named)):
            export.main(["--code", str(edited), *arguments])
    index.write_text(text[:50])
    with pytest.raises(ValueError, match="foreign/model_index.json is not valid JSON"):
        export.main(["--code", str(edited), str(foreign)])
    for arguments, named in (
        (["--code", str(edited), "--steps", "2"], "--code takes no other option, but --steps is given"),
        (
            ["--code", str(edited), "--guidance-scale", "2"],
            "--code takes no other option, but --guidance-scale is given",
        ),
        (["--model", str(edited)], "required are --model and --output, or --code"),
    ):
        with pytest.raises(SystemExit):
            export.main(arguments)
        assert named in capsys.readouterr().err
    assert {path: path.read_bytes() for path in edited.rglob("*") if path.is_file()} == before
