"""Reconstruction: classical and learned solvers behind one call. A solver is one file here, found by itself."""
