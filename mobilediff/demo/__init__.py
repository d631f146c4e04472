"""Hold the app's tabs, one file each."""
