"""Shared by the commands: groups of options, tables on the terminal, errors."""
