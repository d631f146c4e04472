"""Share groups of options, tables on the terminal and errors among the commands."""
