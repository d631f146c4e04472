"""Evaluate checkpoints: samples, distances, accuracy, CLIP score, latency, and the report of these."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"  # of the bundled judge and CLIP, and statistics of CIFAR-10
