"""Make a generator stage's batches from latents, captions and a student's samples."""
