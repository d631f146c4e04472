"""Measurements: images or models in, a result with its protocol out; one file for what each command states."""
