"""The app's tabs, one file each, with their examples and what they take from the machine."""
