"""The networks of the family."""
