"""Evaluation of the checkpoints: sampling, distances, accuracy, CLIP score, latency, and the report made of them."""
