"""Hold the app's tabs, one file each, with their examples and settings of the process."""
