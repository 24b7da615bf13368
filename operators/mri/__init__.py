"""MRI operators: images to the k-space of all coils, Cartesian and along trajectories, and what distorts it."""

from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.operators.mri.noncartesian import NonCartesianMRI
from medrecon.operators.mri.nufft.transform import NUFFT
from medrecon.operators.mri.off_resonance import OffResonance
from medrecon.operators.mri.real_image import RealImage
from medrecon.operators.mri.self_consistency import SelfConsistency
from medrecon.operators.mri.series import Series
from medrecon.operators.mri.simultaneous import SimultaneousMultiSlice

__all__ = [
    "NUFFT",
    "CartesianMRI",
    "NonCartesianMRI",
    "OffResonance",
    "RealImage",
    "SelfConsistency",
    "Series",
    "SimultaneousMultiSlice",
]
