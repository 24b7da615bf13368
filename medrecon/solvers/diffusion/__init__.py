"""Solvers with a diffusion prior: each file a guide and its defaults."""
