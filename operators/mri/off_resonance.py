"""Field inhomogeneity and decay during the readout, by time segmentation with least-squares weights.

Sutton, Noll & Fessler, IEEE TMI 22 (2003) 178-188; Fessler et al., IEEE TSP 53 (2005) 3393-3402, section II.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from medrecon.coils.combine import birdcage_maps
from medrecon.operators.base import LinearOperator
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.sampling.lines import random_mask

BINS = (128, 8)
"""of the histogram along frequency and decay rate"""
PROBES = 257
"""times at which the error is looked up, and for which weights are made at once"""
MOST = 64
"""segments; more than these mean that readout and field map do not belong together"""


class OffResonance(LinearOperator):
    """y(s) = sum_r (A's weight of r in s) exp(-(2 pi i b0(r) + decay(r)) t(s)) x(r), x (..., H, W) -> y like A's.

    exp(-z t) is replaced by sum_l b_l(t) exp(-z tau_l), with L equidistant tau_l and the weights b_l that are best in
    the least-squares sense over the histogram of z: y = sum_l b_l A (exp(-z tau_l) x), L transforms in place of one a
    sample. The adjoint is that of this sum, exactly.

    Args:
        A: any operator from one image, (H, W), to (C, H, W), (C, S) or (S,).
        b0: off-resonance frequency in Hz, (H, W) for every item or (B, H, W); 0 outside the object keeps L small.
        times: seconds from the excitation (or the echo) to each sample; broadcasts to the last axes of A's data, such
            as (S,), (H, W) or (H, 1) for a readout along H.
        segments: L; by default the fewest that keep the error below `tolerance`.
        tolerance: of exp(-z t), root mean square over the pixels, at the worst time.
        decay: R2* in 1/s, shaped like b0; None: no decay.

    Attributes:
        segments: L. error: that of exp(-z t), as of `tolerance`.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, a negative decay, or no `segments` up to 64
            that meet the tolerance.
    """

    def __init__(
        self,
        A: LinearOperator,
        b0: Tensor,
        times: Tensor,
        segments: int | None = None,
        *,
        tolerance: float = 1e-4,
        decay: Tensor | None = None,
    ) -> None:
        _validate(A, b0, times, decay)
        if segments is not None and segments < 1:
            raise ValueError(f"OffResonance: segments must be >= 1, got {segments}")
        self.A = A
        self.in_shape, self.out_shape = A.in_shape, A.out_shape
        self.in_dtype, self.out_dtype = A.in_dtype, A.out_dtype
        rate = torch.complex(torch.zeros_like(b0) if decay is None else decay, 2 * math.pi * b0).to(torch.complex128)
        odds, values = _histogram(rate)
        unique, where = times.double().unique(return_inverse=True)
        weights, centres, self.error = _segments(values, odds, unique, segments, tolerance)
        self.segments = len(centres)
        self._phases = torch.exp(-rate * centres.reshape(-1, *(1,) * rate.ndim))  # (L, [B,] H, W)
        self._weights = weights[:, where]  # (L, *times.shape)
        self.items = max(A.items, 1 if b0.ndim == 2 else len(b0))

    def _parts(self, like: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """exp(-z tau_l) and b_l of each segment, on the device and in the precision of the data."""
        for phase, weight in zip(self._phases, self._weights, strict=True):
            yield phase.to(like.device, like.dtype), weight.to(like.device, like.dtype)

    def _forward(self, x: Tensor) -> Tensor:
        y = x.new_zeros((len(x), *self.out_shape))
        for phase, weight in self._parts(x):
            y += weight * self.A.forward_batch(phase * x)
        return y

    def _adjoint(self, y: Tensor) -> Tensor:
        x = y.new_zeros((len(y), *self.in_shape))
        for phase, weight in self._parts(y):
            x += phase.conj() * self.A.adjoint_batch(weight.conj() * y)
        return x

    @classmethod
    def examples(cls) -> Iterator[LinearOperator]:
        g = torch.Generator().manual_seed(0)
        A = CartesianMRI(birdcage_maps(3, (12, 9), g), random_mask((12, 9), 2.0, 3, g))
        b0 = 100 * torch.rand((12, 9), generator=g) - 30
        readout = torch.linspace(0, 6e-3, 12)[:, None]
        yield cls(A, b0, readout)
        # A field map and a decay for each of a batch of three, every sample at its own time.
        each = 60 * torch.randn((3, 12, 9), generator=g)
        yield cls(A, each, readout + torch.linspace(0, 1e-3, 9), 7, decay=100 * torch.rand((3, 12, 9), generator=g))


def _histogram(rate: Tensor) -> tuple[Tensor, Tensor]:
    """Share of the pixels in each bin that is not empty, and their mean rate there: (K,) float64, (K,) complex128."""
    keys = torch.zeros(rate.numel(), dtype=torch.int64, device=rate.device)
    for part, bins in ((rate.imag, BINS[0]), (rate.real, BINS[1])):
        low, span = part.min(), (part.max() - part.min()).clamp_min(1e-12)
        keys = keys * bins + ((part.flatten() - low) / span * bins).long().clamp_max(bins - 1)
    _, where, count = keys.unique(return_inverse=True, return_counts=True)
    total = torch.zeros(len(count), dtype=rate.dtype, device=rate.device).index_add_(0, where, rate.flatten())
    return count / count.sum().double(), total / count


def _segments(
    rate: Tensor, odds: Tensor, times: Tensor, segments: int | None, tolerance: float
) -> tuple[Tensor, Tensor, float]:
    """Weights (L, T), centres tau (L,) and the error, of `segments` or of the fewest within the tolerance."""
    root = odds.sqrt()[:, None]
    first, last = float(times.min()), float(times.max())

    def signal(at: Tensor) -> Tensor:
        return root * torch.exp(-rate[:, None] * at)

    exact = signal(torch.linspace(first, last, PROBES, dtype=torch.float64, device=times.device))
    for count in range(1, MOST + 1) if segments is None else (segments,):
        # One segment lies in the middle; of several, the first and the last at the ends.
        ends = (first, last) if count > 1 else ((first + last) / 2,) * 2
        centres = torch.linspace(*ends, count, dtype=torch.float64, device=times.device)
        basis = signal(centres)
        # Of least norm: segments beyond need must not blow up the weights, and with them the rounding errors.
        solve = torch.linalg.pinv(basis, rtol=1e-9)
        error = float(torch.linalg.vector_norm(basis @ (solve @ exact) - exact, dim=0).max())
        if segments is not None or error <= tolerance:
            return torch.cat([solve @ signal(part) for part in times.split(PROBES)], 1), centres, error
    raise ValueError(
        f"OffResonance: {MOST} segments leave an error of {error:.1e} > {tolerance:.1e}: the field map spans "
        f"{float(rate.imag.max() - rate.imag.min()) / (2 * math.pi):.0f} Hz over {last - first:g} s; are they in Hz "
        "and seconds? Set it to 0 outside the object, or raise the tolerance"
    )


def _validate(A: LinearOperator, b0: Tensor, times: Tensor, decay: Tensor | None) -> None:
    if len(A.in_shape) != 2 or not A.in_dtype.is_complex or b0.ndim not in (2, 3) or b0.shape[-2:] != A.in_shape:
        raise ValueError(f"OffResonance: b0 must be (H, W) or (B, H, W) with the H, W of {A!r}, got {[*b0.shape]}")
    if decay is not None and decay.shape != b0.shape:
        raise ValueError(f"OffResonance: decay {[*decay.shape]} must have the shape of b0 {[*b0.shape]}")
    data = A.out_shape[1:] if len(A.out_shape) > 1 else A.out_shape
    fits = times.ndim <= len(data) and all(
        n in (1, m) for n, m in zip(times.shape, data[len(data) - times.ndim :], strict=True)
    )
    if not fits:
        raise ValueError(f"OffResonance: times {[*times.shape]} do not broadcast to the samples {[*data]} of {A!r}")
    for name, value in (("b0", b0), ("times", times), ("decay", decay)):
        if value is not None and (value.is_complex() or not bool(torch.isfinite(value).all())):
            raise ValueError(f"OffResonance: {name} must be real and finite")
    if decay is not None and bool((decay < 0).any()):
        raise ValueError("OffResonance: decay (R2*, 1/s) must be >= 0")
