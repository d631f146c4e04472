"""The report: records of every checkpoint, their tables, plots and comparison."""
