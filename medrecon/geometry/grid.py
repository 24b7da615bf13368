"""Pixels of a slice and voxels of a volume: x to the right, y up, image row 0 at the top, slices along +z; mm."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageGrid:
    """Places the pixels of one slice.

    Attributes:
        shape: (H, W).
        spacing: (row, column) pitch [mm]; pixels need not be square.
        center: (x, y) of the middle of the image [mm] from the rotation centre.
    """

    shape: tuple[int, int]
    spacing: tuple[float, float]
    center: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if len(self.shape) != 2 or min(self.shape) < 1:
            raise ValueError(f"ImageGrid: shape must be (H, W) >= 1, got {self.shape}")
        if len(self.spacing) != 2 or not all(0 < s < math.inf for s in self.spacing):
            raise ValueError(f"ImageGrid: spacing must be two lengths > 0 mm (row, column), got {self.spacing}")
        if len(self.center) != 2 or not all(math.isfinite(c) for c in self.center):
            raise ValueError(f"ImageGrid: center must be finite (x, y) in mm, got {self.center}")

    @property
    def window(self) -> tuple[float, float, float, float]:
        """(min x, max x, min y, max y) of the outer pixel edges [mm]."""
        half_y, half_x = (n * d / 2 for n, d in zip(self.shape, self.spacing, strict=True))
        x, y = self.center
        return x - half_x, x + half_x, y - half_y, y + half_y

    @property
    def reach(self) -> float:
        """Distance of the farthest corner from the rotation centre [mm]."""
        x0, x1, y0, y1 = self.window
        return math.hypot(max(abs(x0), abs(x1)), max(abs(y0), abs(y1)))

    def coordinates(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """x (W,) and y (H,) of the pixel centres [mm]; y falls with the row."""
        x0, _, _, y1 = self.window
        (height, width), (row, column) = self.shape, self.spacing
        return np.asarray(x0 + (np.arange(width) + 0.5) * column), np.asarray(y1 - (np.arange(height) + 0.5) * row)


@dataclass(frozen=True)
class VolumeGrid:
    """Places the voxels of a volume.

    Attributes:
        shape: (Z, H, W).
        spacing: (slice, row, column) pitch [mm].
        center: (x, y, z) of the middle of the volume [mm] from the rotation centre.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    center: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or len(self.spacing) != 3 or len(self.center) != 3:
            raise ValueError(
                f"VolumeGrid: needs shape (Z, H, W), spacing (slice, row, column) and center (x, y, z), "
                f"got {self.shape}, {self.spacing}, {self.center}"
            )
        if self.shape[0] < 1 or not 0 < self.spacing[0] < math.inf or not math.isfinite(self.center[2]):
            raise ValueError(
                f"VolumeGrid: needs at least one slice, a slice pitch > 0 mm and a finite centre, "
                f"got {self.shape[0]}, {self.spacing[0]}, {self.center[2]}"
            )
        self.plane()  # checks the rest

    def plane(self) -> ImageGrid:
        """The grid of one slice."""
        return ImageGrid(self.shape[1:], self.spacing[1:], self.center[:2])

    @property
    def reach(self) -> float:
        """Distance of the farthest corner from the rotation axis [mm]."""
        return self.plane().reach

    def heights(self) -> NDArray[np.float64]:
        """(Z,) z of the slices' middles [mm]."""
        count = self.shape[0]
        return np.asarray(self.center[2] + (np.arange(count) - (count - 1) / 2) * self.spacing[0])
