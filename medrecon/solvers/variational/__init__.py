"""Solvers that minimise an objective without a learned prior."""
