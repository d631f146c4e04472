"""Measure for one command each: images or models in, a result with its protocol out."""
