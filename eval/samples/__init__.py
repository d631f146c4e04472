"""Plan samples, draw them, keep them on disk and read them again."""
