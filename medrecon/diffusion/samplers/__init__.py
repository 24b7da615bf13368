"""Samplers, found by themselves: one file each."""
