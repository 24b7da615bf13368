"""Priors: denoisers, autoencoders, their units and their weights."""
