"""Sampler steps, one file each."""
