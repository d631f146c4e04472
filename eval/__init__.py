"""Evaluate checkpoints: samples, distances, accuracy, CLIP score, latency, and the report of these."""

from pathlib import Path

from mobilediff.threads import let_threads_sleep

let_threads_sleep()  # before a command imports torch

WEIGHTS = Path(__file__).parent / "weights"  # of the bundled judge and CLIP, and statistics of CIFAR-10
