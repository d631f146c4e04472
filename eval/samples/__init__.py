"""Samples: planned, drawn, kept on disk and read again."""
