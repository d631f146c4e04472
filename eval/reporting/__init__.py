"""Report on every checkpoint: records, tables, plots and comparisons."""
