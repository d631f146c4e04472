"""Run every stage by one loop: options, trainer, saved state, monitor, export."""
