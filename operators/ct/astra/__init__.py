"""ASTRA's projectors."""
