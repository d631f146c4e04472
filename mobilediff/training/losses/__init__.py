"""Losses, one family a file, with the networks that they train beside the stage's own."""
