"""Solvers for MRI alone."""
