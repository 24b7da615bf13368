"""Analytic CT: an ellipse and an ellipsoid, their images and their exact line integrals."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from medrecon.geometry import ConeGeometry, Geometry, ImageGrid, VolumeGrid


@dataclass(frozen=True)
class Ellipse:
    """Centre [mm], half axes [mm], tilt [rad], attenuation [1/mm]."""

    x: float
    y: float
    a: float
    b: float
    tilt: float = 0.0
    mu: float = 0.0192

    def _local(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        c, s = np.cos(self.tilt), np.sin(self.tilt)
        return (x * c + y * s) / self.a, (y * c - x * s) / self.b

    def sinogram(self, geometry: Geometry) -> Tensor:
        """(V, D) exact line integrals: chords of the ellipse along the rays of `geometry`."""
        point, direction = geometry.rays()
        direction = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
        px, py = self._local(point[..., 0] - self.x, point[..., 1] - self.y)
        dx, dy = self._local(direction[..., 0], direction[..., 1])
        a, b, c = dx**2 + dy**2, px * dx + py * dy, px**2 + py**2 - 1
        return torch.from_numpy(self.mu * 2 * np.sqrt(np.maximum(b * b - a * c, 0)) / a).float()

    def image(self, grid: ImageGrid, fine: int = 4) -> Tensor:
        """(H, W), each pixel the mean of fine x fine points."""
        (height, width), (row, column) = grid.shape, grid.spacing
        small = replace(grid, shape=(height * fine, width * fine), spacing=(row / fine, column / fine))
        inside = self.inside(small).reshape(height, fine, width, fine)
        return inside.float().mean((1, 3)) * self.mu

    def inside(self, grid: ImageGrid, shrink: float = 1.0) -> Tensor:
        """(H, W) bool: pixel centres within the ellipse scaled by `shrink`."""
        x, y = np.meshgrid(*grid.coordinates())
        u, v = self._local(x - self.x, y - self.y)
        return torch.from_numpy(u**2 + v**2 < shrink**2)


@dataclass(frozen=True)
class Ellipsoid:
    """Centre and half axes along x, y, z [mm], attenuation [1/mm]."""

    center: tuple[float, float, float]
    axes: tuple[float, float, float]
    mu: float = 0.0192

    def sinogram(self, geometry: ConeGeometry) -> Tensor:
        """(V, R, D) exact line integrals: chords along the rays from the focal spot to the detector elements."""
        plane, shape = geometry.plane(), (*geometry.shape, 3)
        source, element = np.empty(shape), np.empty(shape)
        source[..., :2] = plane.sources()[:, None, None]
        source[..., 2] = geometry.source_heights()[:, None, None]
        element[..., :2] = plane.elements()[:, None]
        element[..., 2] = geometry.row_heights()[:, :, None]
        way = element - source
        way /= np.linalg.norm(way, axis=-1, keepdims=True)
        p, d = (source - self.center) / self.axes, way / self.axes
        a, b, c = (d * d).sum(-1), (p * d).sum(-1), (p * p).sum(-1) - 1
        return torch.from_numpy(self.mu * 2 * np.sqrt(np.maximum(b * b - a * c, 0)) / a).float()

    def volume(self, grid: VolumeGrid, fine: int = 4) -> Tensor:
        """(Z, H, W), each voxel the mean of fine^3 points."""
        small = replace(grid, shape=tuple(n * fine for n in grid.shape), spacing=tuple(d / fine for d in grid.spacing))
        inside = self.inside(small).float()[None, None]
        return torch.nn.functional.avg_pool3d(inside, fine)[0, 0] * self.mu

    def inside(self, grid: VolumeGrid, shrink: float = 1.0) -> Tensor:
        """(Z, H, W) bool: voxel centres within the ellipsoid scaled by `shrink`."""
        x, y = grid.plane().coordinates()
        places = (x, y[:, None], grid.heights()[:, None, None])
        square = sum(((p - m) / a) ** 2 for p, m, a in zip(places, self.center, self.axes, strict=True))
        return torch.from_numpy(np.asarray(square < shrink**2))


def views(count: int, arc: float = 2 * np.pi, start: float = 0.0) -> tuple[float, ...]:
    """`count` angles evenly over an arc, its end left out."""
    return tuple(float(a) for a in start + np.arange(count) * arc / count)


THORAX = (
    Ellipse(8.0, -5.0, 150.0, 110.0, 0.2),
    Ellipse(-60.0, 10.0, 40.0, 50.0, 0.3, mu=-0.75 * 0.0192),
    Ellipse(70.0, 5.0, 38.0, 48.0, -0.2, mu=-0.75 * 0.0192),
    Ellipse(0.0, -70.0, 18.0, 18.0, mu=0.8 * 0.0192),
    Ellipse(20.0, 30.0, 12.0, 12.0, mu=0.05 * 0.0192),
)
"""Body, two lungs (-750 HU), spine (800 HU) and a lesion (50 HU), which add up."""


def thorax(geometry: Geometry) -> Tensor:
    """(V, D) exact line integrals of the thorax."""
    return torch.stack([e.sinogram(geometry) for e in THORAX]).sum(0)
