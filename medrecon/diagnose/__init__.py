"""Diagnostics of a prior: what a checkpoint can and cannot do. A diagnostic is one file here, found by itself."""
