"""Batches of a generator's stage: latents, captions, a student's samples."""
