"""Make a trained network smaller."""
