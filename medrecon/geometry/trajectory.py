"""k-space along a trajectory: radial, spiral."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medrecon.geometry.cartesian import check_crop, crop_of

SLACK = 1e-6
"""Rounding of a trajectory that ends at the edge of k-space, relative."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Describes k-space samples (S,) along a trajectory.

    Attributes:
        samples: (S, 2) real, (row, column) frequency of every sample [cycles per field of view].
        density: (S,) density compensation weights >= 0; None: not known.
        crop: (h, w), the centre kept of the reconstruction; None: all of it.

    Raises:
        ValueError: names the entry of a measurement file, what was expected and what came.
    """

    samples: Tensor
    density: Tensor | None = None
    crop: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "crop", crop_of(self.crop))
        if not isinstance(self.samples, Tensor) or self.samples.ndim != 2 or self.samples.shape[1] != 2:
            came = tuple(self.samples.shape) if isinstance(self.samples, Tensor) else type(self.samples).__name__
            raise ValueError(f"geometry/trajectory: expected (S, 2), row and column of every sample, got {came}")
        if self.samples.is_complex() or not bool(torch.isfinite(self.samples).all()):
            raise ValueError("geometry/trajectory: expected real, finite values")
        if self.density is not None and not _are_weights(self.density, len(self.samples)):
            raise ValueError(f"geometry/density: expected ({len(self.samples)},) weights >= 0, one per sample")

    def check_data(self, shape: tuple[int, ...], image: tuple[int, ...]) -> None:
        """Check samples (S,) and an image (H, W) against the trajectory.

        Raises:
            ValueError: another number of samples, frequencies that the image does not resolve, or a larger crop.
        """
        check_crop(self.crop, image)
        if shape != (len(self.samples),):
            raise ValueError(
                f"geometry/trajectory: expected {(*shape, 2)}, row and column of every sample, "
                f"got {tuple(self.samples.shape)}"
            )
        edge = torch.tensor(image, dtype=torch.float64) / 2
        reach = self.samples.double().abs().amax(0)
        if bool((reach > edge * (1 + SLACK)).any()):
            found = [round(float(r), 3) for r in reach]
            raise ValueError(
                f"geometry/trajectory: reaches {found} cycles per field of view, an image of {image} "
                f"resolves {edge.tolist()}; check the units, or take a larger image"
            )


def _are_weights(density: object, samples: int) -> bool:
    if not isinstance(density, Tensor) or density.is_complex() or tuple(density.shape) != (samples,):
        return False
    return bool((torch.isfinite(density) & (density >= 0)).all())
