"""Partial Fourier: which side of k-space was left out, how to weight the rest, and the phase from its middle."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medrecon.kspace.calibration import calibration_region
from medrecon.numerics.fourier import centred_ifft

_AXES = (-2, -1)
_LEAST = 3
"""Lines (and samples) the fully sampled centre needs for a phase."""


@dataclass(frozen=True)
class Coverage:
    """Lines acquired before and behind zero frequency along one axis (-2 or -1) of `size` lines.

    `partial`: one side is shorter by more than the sampling explains, the largest gap between lines elsewhere.
    """

    axis: int
    size: int
    before: int
    behind: int
    gap: int

    @property
    def partial(self) -> bool:
        return abs(self.before - self.behind) > self.gap + 1

    @property
    def fraction(self) -> float:
        """Return the fraction of the lines from the first to the last acquired: 5/8 to 7/8 usually."""
        return (self.before + self.behind + 1) / self.size

    def ramp(self) -> Tensor:
        """Return homodyne weights (size,): 0 outside, 0 .. 2 over the symmetric centre, 2 beyond (Noll 1991, fig. 2).

        w(k) + w(-k) = 2 wherever one of the two was acquired; 1 for all lines when not partial.
        """
        if not self.partial:
            return torch.ones(self.size)
        k = torch.arange(self.size) - self.size // 2
        half = min(self.before, self.behind)
        side = 1 if self.behind > self.before else -1
        weights = (1 + side * k / (half + 1)).clamp(0, 2)
        if self.size % 2 == 0:
            weights[0] = weights[0].clamp_max(1)  # -n/2 is its own mirror image
        return weights


def coverage(acquired: Tensor, axis: int) -> Coverage:
    """Measure how a mask (H, W) covers an axis.

    Raises:
        ValueError: zero frequency lies outside of what was acquired.
    """
    size = acquired.shape[axis]
    lines = acquired.any(-3 - axis).nonzero()[:, 0].cpu()
    before, behind = (size // 2 - int(lines.min()), int(lines.max()) - size // 2) if len(lines) else (-1, -1)
    if min(before, behind) < 0:
        raise ValueError(
            "partial Fourier: zero frequency lies outside of the lines acquired; the phase of the image "
            "cannot be known without it"
        )
    gap = int(lines.diff().max()) if len(lines) > 1 else 1
    return Coverage(axis, size, before, behind, gap)


def centre_phase(kspace: Tensor, acquired: Tensor, maps: Tensor, width: int | None = None) -> Tensor:
    """Return exp(i phi) (H, W), complex64, of the image of the sampled centre under a Hann window; 1 where that is 0.

    The centre is the largest rectangle around zero frequency that was fully sampled: for partial Fourier the whole
    symmetric middle, which follows the phase as finely as the scan allows.

    Args:
        kspace: (C, H, W). acquired: (H, W). maps: (C, H, W).
        width: at most so many samples along either axis: a smoother phase and less noise in it.

    Raises:
        ValueError: a centre of fewer than 3 x 3 samples.
    """
    window = torch.ones((), dtype=kspace.real.dtype, device=kspace.device)
    for axis, span in zip(_AXES, calibration_region(acquired), strict=True):
        n, found = kspace.shape[axis], span.stop - span.start
        if found < _LEAST:
            raise ValueError(
                f"partial Fourier: the phase needs a fully sampled centre of {_LEAST} x {_LEAST} samples; "
                "acquire some lines on both sides of zero frequency, or use cg-sense"
            )
        # Odd and symmetric about zero frequency: an unpaired line would put its own phase on the image.
        half = min((found - 1) // 2, n if width is None else max(1, (width - 1) // 2))
        k = (torch.arange(n, device=kspace.device) - n // 2).abs()
        taper = torch.cos(torch.pi / 2 * (k / (half + 1)).clamp_max(1)).square()
        window = window * (taper[:, None] if axis == -2 else taper)
    image = (maps.conj() * centred_ifft(window * kspace)).sum(0)
    size = image.abs()
    return torch.where(size > 0, image / size.clamp_min(torch.finfo(size.dtype).tiny), 1).to(torch.complex64)
