"""Checkpoints as graphs for phones and browsers: exported, run, and compared with PyTorch."""
