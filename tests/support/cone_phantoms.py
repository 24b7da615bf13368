"""Analytic cone-beam CT: quadrics and their exact line integrals along the rays of a `ConeGeometry`."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medrecon.geometry import ConeGeometry


@dataclass(frozen=True)
class Quadric:
    """Centre and half axes [mm], attenuation [1/mm]; a half axis of infinity makes a cylinder."""

    centre: tuple[float, float, float]
    axes: tuple[float, float, float]
    mu: float

    def integrals(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Line integrals along the lines through two points (..., 3)."""
        direction = end - start
        direction = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
        o, d = (start - np.array(self.centre)) / self.axes, direction / self.axes
        a, b, c = (d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - 1
        return np.asarray(self.mu * 2 * np.sqrt(np.maximum(b * b - a * c, 0)) / a)


CYLINDER = Quadric((10.0, -8.0, 0.0), (60.0, 50.0, math.inf), 0.02)
"""Water, long and off the axis."""
BALL = Quadric((36.0, 12.0, 3.0), (9.0, 9.0, 9.0), 0.02)
"""In the cylinder: +1000 HU, off the middle in x, y and z."""
PHANTOM = (CYLINDER, BALL)


def rays(geometry: ConeGeometry) -> tuple[np.ndarray, np.ndarray]:
    """Focal spots (V, 1, 1, 3) and detector elements (V, R, D, 3)."""
    plane = geometry.plane()
    sources = np.concatenate([plane.sources(), geometry.source_heights()[:, None]], axis=1)
    elements = np.empty((*geometry.shape, 3))
    elements[..., :2] = plane.elements()[:, None]
    elements[..., 2] = geometry.row_heights()[:, :, None]
    return sources[:, None, None], elements


def project(geometry: ConeGeometry, phantom: tuple[Quadric, ...] = PHANTOM) -> Tensor:
    """(V, R, D) exact line integrals."""
    start, end = rays(geometry)
    return torch.from_numpy(sum(q.integrals(start, end) for q in phantom)).float()
