"""The bounds that pyproject.toml states, and the names that the package exports."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import mobilediff

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
INSTALLED_BY_THE_README = ("eval", "train", "app", "dev")


def test_requirements_are_those_of_the_project_and_its_extras():
    extras = PROJECT["optional-dependencies"]
    stated = [*PROJECT["dependencies"], *(line for extra in INSTALLED_BY_THE_README for line in extras[extra])]
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    required = [str(Requirement(line)) for line in lines if line and not line.startswith("#")]
    assert len(required) == len(set(required))
    assert {str(Requirement(line)) for line in stated} == set(required)


def test_public_names_are_the_classes_and_the_version():
    from mobilediff.models import mobile_unet
    from mobilediff.pipeline import MobileDiffusionPipeline
    from mobilediff.schedulers import distilled_ddim, ufogen

    assert mobilediff.MobileDiffusionPipeline is MobileDiffusionPipeline
    assert mobilediff.MobileUNet is mobile_unet.MobileUNet
    assert mobilediff.DistilledDDIMScheduler is distilled_ddim.DistilledDDIMScheduler
    assert mobilediff.UFOGenScheduler is ufogen.UFOGenScheduler
    assert all(hasattr(mobilediff, name) for name in mobilediff.__all__)
    assert Version(mobilediff.__version__).release


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'MobileVAE'"):
        mobilediff.MobileVAE  # noqa: B018
    with pytest.raises(ImportError, match="MobileVAE"):
        from mobilediff import MobileVAE  # noqa: F401


def test_the_package_alone_imports_no_library():
    code = "import sys, mobilediff; sys.exit(bool({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
