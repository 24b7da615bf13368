"""A sampling pattern together with what has to be reported of it, and `draw`, which makes one by its name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from medrecon.sampling import lines, two_axes
from medrecon.sampling.lines import Shape, Side

PATTERNS = {
    "random": lines.random_mask,
    "equispaced": lines.equispaced_mask,
    "regular": lines.regular_mask,
    "gaussian": lines.gaussian_mask,
    "gaussian-2d": two_axes.gaussian_2d_mask,
    "poisson": two_axes.poisson_mask,
    "golden-angle": two_axes.golden_angle_mask,
}
LATTICES = {"equispaced": lines.equispaced_mask, "regular": lines.regular_mask}
"""the patterns that have an offset"""
Seed = int | tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Sampling:
    """Which samples are acquired, and how they were chosen.

    Attributes:
        mask: (H, W) bool. name: of the pattern.
        nominal: R as asked for; `acceleration` is the true one.
        acs: width of the fully sampled centre in samples; along both axes for a pattern that undersamples both.
        offset: first column of a lattice. seed: what the pattern was drawn with. None: there is none.
        partial: fraction of the columns kept by partial Fourier, 1 without.
        padding: (left, right): columns [0, left) and [right, W) were never part of the acquisition.
    """

    mask: Tensor
    name: str
    nominal: float
    acs: int
    offset: int | None = None
    seed: Seed | None = None
    partial: float = 1.0
    padding: tuple[int, int] | None = None

    @property
    def acceleration(self) -> float:
        """Return the true R: the samples of the full acquisition, padding left out, over the acquired ones."""
        left, right = self.padding or (0, self.mask.shape[1])
        return lines.acceleration(self.mask[:, left:right])

    def partial_fourier(self, fraction: float, side: Side = "left") -> Sampling:
        """Leave out the columns beyond `fraction` at the end `side`; see `lines.partial_fourier`.

        Raises:
            ValueError: it cuts into the ACS, or as `lines.partial_fourier`.
        """
        cut = lines.partial_fourier(self.mask, fraction, side)
        inner = lines.centre(self.mask.shape[1], self.acs)
        if not torch.equal(cut[:, inner], self.mask[:, inner]):
            raise ValueError(f"partial Fourier of {fraction:g} cuts into the ACS of {self.acs} columns; lower acs")
        return replace(self, mask=cut, partial=float(fraction))

    def padded(self, left: int, right: int) -> Sampling:
        """Leave out the columns [0, left) and [right, W): zero-filled k-space, as of fastMRI's knees.

        Raises:
            ValueError: not 0 <= left < right <= W, or nothing is left.
        """
        width = self.mask.shape[1]
        if not 0 <= left < right <= width:
            raise ValueError(f"Sampling.padded: expected 0 <= left < right <= {width}, got {left} and {right}")
        mask = self.mask.clone()
        mask[:, :left] = mask[:, right:] = False
        if not bool(mask.any()):
            raise ValueError(f"Sampling.padded: no sample is left in the columns {left} to {right}")
        return replace(self, mask=mask, padding=(left, right))

    def describe(self) -> dict[str, Any]:
        """Return what a report needs, as JSON values."""
        seed = list(self.seed) if isinstance(self.seed, tuple) else self.seed
        return {
            "mask": self.name,
            "acceleration_nominal": self.nominal,
            "acceleration": self.acceleration,
            "acs": self.acs,
            "offset": self.offset,
            "mask_seed": seed,
            "partial_fourier": self.partial,
        }


def draw(pattern: str, shape: Shape, accel: float, acs: int, *, seed: int, offset: int | None = None) -> Sampling:
    """Draw the pattern of that name (one of PATTERNS) with a generator of its own.

    Args:
        shape: (H, W) of k-space. accel: nominal R >= 1. acs: width of the fully sampled centre.
        offset: first column of a lattice ("equispaced", "regular"); random by default.

    Raises:
        ValueError: an unknown pattern, an offset for one that has none, or what the pattern refuses.
    """
    if pattern not in PATTERNS:
        raise ValueError(f"mask {pattern!r} is unknown; choose one of {', '.join(PATTERNS)}")
    generator = torch.Generator().manual_seed(seed)
    if pattern not in LATTICES:
        if offset is not None:
            raise ValueError(f"mask {pattern!r} has no offset")
        return Sampling(PATTERNS[pattern](shape, accel, acs, generator), pattern, accel, acs, seed=seed)
    mask = LATTICES[pattern](shape, accel, acs, generator, offset=offset)
    return Sampling(mask, pattern, accel, acs, int(mask[0].nonzero()[0]), seed)
