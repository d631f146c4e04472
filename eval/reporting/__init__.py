"""The report: records of every checkpoint, as tables and plots, and compared."""
