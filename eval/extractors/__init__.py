"""Feature extractors: images in, features out, and their statistics over reference images."""
