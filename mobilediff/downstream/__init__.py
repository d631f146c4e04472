"""Use the family for more than prompts: edit pictures."""
