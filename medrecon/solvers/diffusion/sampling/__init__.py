"""Solvers with a way of stepping of their own that sample the posterior as their steps grow many: chains, particles."""
