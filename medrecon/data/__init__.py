"""Data sets: whose every slice is, checks for leaks and damage, the training store, downloads."""
