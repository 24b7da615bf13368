"""Where a scan measures and where it is reconstructed: frozen descriptions in mm, rad and cycles per field of view."""

from medrecon.geometry.cartesian import Cartesian
from medrecon.geometry.cone import ConeGeometry
from medrecon.geometry.fan import FanGeometry
from medrecon.geometry.grid import ImageGrid, VolumeGrid
from medrecon.geometry.parallel import ParallelGeometry
from medrecon.geometry.trajectory import Trajectory

__all__ = [
    "Cartesian",
    "ConeGeometry",
    "FanGeometry",
    "Geometry",
    "ImageGrid",
    "KSpace",
    "ParallelGeometry",
    "Rays",
    "Trajectory",
    "VolumeGrid",
]

Geometry = ParallelGeometry | FanGeometry
"""Rays within one slice."""
Rays = Geometry | ConeGeometry
"""Of a CT scan."""
KSpace = Cartesian | Trajectory
"""Of an MRI scan."""
