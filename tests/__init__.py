"""Tests. A package, because torch-fidelity installs another one called `tests`."""
