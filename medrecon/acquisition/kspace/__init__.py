"""Readouts of an MRI scanner: chosen, sorted into k-space, whitened."""
