"""Filtered backprojection: FBP and FDK."""
