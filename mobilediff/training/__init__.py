"""Train each stage by a module of its own: `python -m mobilediff.training.<stage> --config FILE`."""
