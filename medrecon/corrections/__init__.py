"""Corrections of what a real scanner adds to line integrals, one file each; tensors only: docs/guide/corrections.md."""
