"""The metrics need torch, and torch-fidelity where a published formula is its own; nothing else of the project."""

import sys
from pathlib import Path

from tests.imports import imported_names

METRICS = Path(__file__).parents[3] / "eval" / "metrics"
# numpy and tqdm come with torch-fidelity
ACCEPTED = {"torch", "torch_fidelity", "numpy", "tqdm", "eval.metrics"}


def imported(file: Path) -> set[str]:
    """Names of the imported packages, of the project's own with their folder."""
    own = {"eval", "mobilediff"}
    return {".".join(name.split(".")[: 2 if name.split(".")[0] in own else 1]) for name in imported_names(file)}


def test_metrics_import_torch_torch_fidelity_and_each_other():
    files = sorted(METRICS.glob("*.py"))
    found = {name for file in files for name in imported(file)}
    assert "torch" in found and found - set(sys.stdlib_module_names) <= ACCEPTED
