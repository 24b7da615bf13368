"""Siemens twix."""
