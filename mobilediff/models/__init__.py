"""Define, build and count the networks of the family."""
