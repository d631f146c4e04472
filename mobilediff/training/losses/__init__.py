"""Losses, one family a file, with the discriminators that they need: networks and numbers in, scalars out."""
