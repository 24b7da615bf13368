"""Solvers for CT alone."""
