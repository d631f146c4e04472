"""Share groups of options, output files and printed tables among the commands."""
