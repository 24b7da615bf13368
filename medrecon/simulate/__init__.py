"""Simulated measurements of real scans, made so that a reconstruction from them is no inverse crime."""

from medrecon.simulate.ct import simulate_ct
from medrecon.simulate.mri import simulate_mri
from medrecon.simulate.mri_noncartesian import simulate_noncartesian

__all__ = ["simulate_ct", "simulate_mri", "simulate_noncartesian"]
