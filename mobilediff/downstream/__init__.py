"""Use the models for more than drawing from text."""
