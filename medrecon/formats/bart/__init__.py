"""BART .cfl."""
