"""Size, latency and memory of checkpoints and of peers."""
