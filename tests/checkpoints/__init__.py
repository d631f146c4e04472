"""Tests of checkpoint folders: the code in them, what loading them says, and what the shipped ones draw."""
