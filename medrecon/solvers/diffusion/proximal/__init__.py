"""Solvers that meet the data between denoisings: a proximal point, a projection or a step, without derivatives."""
