"""Draw finished runs: curves, and samples of the same seeds."""
