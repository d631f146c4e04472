"""What the commands share: groups of options, the table on the terminal, the end of a refused one."""
