"""Compute losses, one family a file: networks and numbers in, scalars out."""
