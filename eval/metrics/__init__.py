"""Compute metrics: tensors in, numbers out."""
