"""Solvers with a diffusion prior."""
