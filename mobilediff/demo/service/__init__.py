"""Compute what the app shows, without its page: models, input, turns on the processor, pictures."""
