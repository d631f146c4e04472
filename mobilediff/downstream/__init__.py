"""Steer, fill in and restyle: what builds on a trained pipeline."""
