"""The loop that every stage runs in: options, trainer, saved state, monitor, export."""
