"""Coil sensitivity maps, one method a file."""
