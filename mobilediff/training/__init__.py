"""Training: one module a stage, each started as `python -m mobilediff.training.<stage> --config FILE`."""
