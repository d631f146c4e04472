"""Measure size, latency and memory of checkpoints and peers."""
