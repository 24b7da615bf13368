"""GRAPPA (Griswold 2002) for any Cartesian mask: missing samples from acquired neighbours, one kernel a pattern."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medrecon.kspace.calibration import Calibration, calibration_region, noise_to_signal

_CHUNK = 2**22
"""Complex numbers of the systems solved, or of the samples gathered, at once."""
STEP, MOST = 4.0, 10.0
"""Noise-to-signal ratios are taken in powers of STEP, from -MOST to MOST."""


@dataclass(frozen=True)
class KSpaceInterpolation:
    """Fill k-space: sum over neighbours and coils of weight x acquired sample, the weights fitted to the ACS.

    A mask of lines (along either axis) takes `readout` samples of each of the nearest acquired lines, `lines` of them,
    half on either side; a 2D mask the nearest `neighbours` acquired samples in a window of `window` x `window`. Each
    distinct constellation has weights of its own, fitted to the ACS with a Tikhonov term. Acquired samples are kept;
    samples with no acquired neighbour within reach stay zero.

    The Tikhonov term is `tikhonov` plus, where the variance of the noise is given, `noise` times the noise-to-signal
    power ratio around the sample filled, both times the mean energy of the sources in the ACS. Signal falls off
    outwards as noise does not, so weights that fit the ACS amplify noise further out; with noise = 1 they are the
    linear minimum mean square error estimate for a signal with the covariance of the ACS up to its power (Wiener).
    noise = 0 is plain GRAPPA.

    Raises:
        ValueError: settings below 1 or an even window; when called, no ACS, or one smaller than the kernel.
    """

    readout: int = 5
    lines: int = 2
    window: int = 5
    neighbours: int = 8
    tikhonov: float = 1e-4
    noise: float = 1.0

    def __post_init__(self) -> None:
        odd = self.readout % 2 == 1 and self.window % 2 == 1
        positive = min(self.readout, self.lines, self.window, self.neighbours) >= 1
        if not (odd and positive and self.tikhonov >= 0 and self.noise >= 0):
            raise ValueError(
                f"{self}: readout and window are odd and positive, lines and neighbours >= 1, tikhonov and noise >= 0"
            )

    def __call__(self, kspace: Tensor, acquired: Tensor, variance: float = 0.0) -> Tensor:
        """Fill the k-space (C, H, W) of whitened coils, given what was acquired (H, W), bool, and E|n|^2."""
        if bool(acquired.all()):
            return kspace
        columns, rows = line_pattern(acquired), line_pattern(acquired.T)
        if columns is None and rows is not None:
            return self(kspace.mT, acquired.T, variance).mT
        region = calibration_region(acquired)
        acs = kspace[:, region[0], region[1]]
        if acs.numel() == 0:
            raise ValueError(
                "GRAPPA: zero frequency was not acquired: there is no ACS to calibrate on; acquire the "
                "centre fully, or use cg-sense"
            )
        calibration = Calibration(acs, self.window if columns is None else self.readout)
        missing = (~acquired).nonzero()
        offsets, chosen = (
            nearest_samples(acquired, missing, self.window, self.neighbours)
            if columns is None
            else nearest_lines(acquired, missing, columns, self.readout, self.lines, calibration.width * 3 // 4)
        )
        filled = torch.where(acquired, kspace, 0)
        ratio = noise_to_signal(filled, acquired, self.noise * variance)[~acquired]
        # Whole powers: steps keep the number of distinct kernels low.
        level = (ratio.log2() / math.log2(STEP)).round().clamp(-MOST, MOST)
        for group in constellations(offsets, chosen, missing, level):
            self._fill(filled, kspace, group, calibration)
        return filled

    def _fill(self, filled: Tensor, kspace: Tensor, group: Constellations, calibration: Calibration) -> None:
        coils, count = len(kspace), group.offsets.shape[1]
        columns = torch.cat([group.offsets[..., 1].flatten(), torch.zeros(1, dtype=torch.long)]).unique()
        gram = calibration.gram(columns.tolist())
        column = torch.searchsorted(columns, group.offsets[..., 1].contiguous())
        place = column * calibration.height + group.offsets[..., 0] + calibration.height // 2
        middle = int(torch.searchsorted(columns, 0)) * calibration.height + calibration.height // 2
        coil = torch.arange(coils)
        source = (place[..., None] * coils + coil).flatten(1)
        ridge = (self.tikhonov + STEP**group.level).to(gram.device)
        most = max(1, _CHUNK // max((count * coils) ** 2, count * coils * group.places.shape[1]))
        for start in range(0, len(source), most):
            part = slice(start, start + most)
            weights = _weights(gram, source[part], middle * coils + coil, ridge[part]).to(kspace.dtype)
            where = group.places[part]
            at = where[:, :, None] + group.offsets[part, None]
            samples = kspace[:, at[..., 0], at[..., 1]]  # (C, patterns, places, sources)
            values = samples.permute(1, 2, 3, 0).flatten(2) @ weights
            filled[:, where[..., 0], where[..., 1]] = values.permute(2, 0, 1)


def _weights(gram: Tensor, source: Tensor, target: Tensor, ridge: Tensor) -> Tensor:
    """(patterns, sources x coils, coils) from (patterns, sources x coils) and (coils) indices into the Gram."""
    if float(ridge.min()) >= 1e-4:
        gram = gram.to(torch.complex64)
    normal = gram[source[:, :, None], source[:, None]]
    diagonal = normal.diagonal(dim1=1, dim2=2)
    energy = diagonal.real.mean(1)
    diagonal.add_((ridge * energy + torch.finfo(energy.dtype).tiny)[:, None])
    return torch.cholesky_solve(gram[source[:, :, None], target], torch.linalg.cholesky(normal))


def line_pattern(acquired: Tensor) -> Tensor | None:
    """Return the acquired columns (W,) of a mask whose rows are all alike or empty (partial readout), else None."""
    columns = acquired.any(0)
    return columns if bool((acquired == (acquired.any(1)[:, None] & columns)).all()) else None


def nearest_lines(
    acquired: Tensor, missing: Tensor, columns: Tensor, readout: int, lines: int, span: int
) -> tuple[Tensor, Tensor]:
    """Find sources of missing samples (N, 2) under a mask of lines: offsets (K, 2), and which each takes (N, K).

    Lines are taken from the nearest outwards, at most half of `lines` on a side while the other side has any, and
    none that would widen the kernel beyond `span` columns.
    """
    reach = max(1, span - 1)
    known = columns.nonzero()[:, 0].tolist()
    table = torch.zeros(len(columns), 2 * reach + 1, dtype=torch.bool)
    for c in missing[:, 1].unique().tolist():
        low = high = 0
        taken = {-1: 0, 1: 0}
        for d in sorted((k - c for k in known if 0 < abs(k - c) <= reach), key=lambda d: (abs(d), d)):
            side = 1 if d > 0 else -1
            if max(high, d) - min(low, d) < span and taken[side] < (lines + 1) // 2 and sum(taken.values()) < lines:
                table[c, d + reach], low, high = True, min(low, d), max(high, d)
                taken[side] += 1
    window = torch.cartesian_prod(torch.arange(readout) - readout // 2, torch.arange(-reach, reach + 1))
    window = window.to(missing.device)
    chosen = _acquired_around(acquired, missing, window)
    return window, chosen & table.to(missing.device)[missing[:, 1]].repeat(1, readout)


def nearest_samples(acquired: Tensor, missing: Tensor, window: int, count: int) -> tuple[Tensor, Tensor]:
    """Find the nearest `count` sources of missing samples (N, 2) under a 2D mask: offsets (K, 2), a choice (N, K)."""
    line = torch.arange(window, device=missing.device) - window // 2
    offsets = torch.cartesian_prod(line, line)
    offsets = offsets[offsets.square().sum(1).argsort(stable=True)]
    known = _acquired_around(acquired, missing, offsets)
    return offsets, known & (known.cumsum(1) <= count)


def _acquired_around(acquired: Tensor, places: Tensor, offsets: Tensor) -> Tensor:
    """(N, K): was the sample at places (N, 2) + offsets (K, 2) acquired? Outside of the matrix nothing was."""
    margin = int(offsets.abs().max())
    padded = torch.nn.functional.pad(acquired, (margin,) * 4)
    at = places[:, None] + offsets + margin
    return padded[at[..., 0], at[..., 1]]


@dataclass(frozen=True, eq=False)
class Constellations:
    """Patterns of n sources: offsets (P, n, 2), noise level (P,), and the places (P, m, 2) each is needed at, repeated
    up to m."""

    offsets: Tensor
    level: Tensor
    places: Tensor


def constellations(offsets: Tensor, chosen: Tensor, missing: Tensor, level: Tensor) -> Iterator[Constellations]:
    """Group choices (N, K) and levels (N,): the distinct, those of as many sources in the same columns together."""
    offsets, chosen, missing, level = offsets.cpu(), chosen.cpu(), missing.cpu(), level.cpu()
    steps = level.numpy().astype(np.int8).view(np.uint8)
    code = np.concatenate([np.packbits(chosen.numpy(), axis=1), steps[:, None]], axis=1)
    keys = np.ascontiguousarray(code).view(f"V{code.shape[1]}")[:, 0]
    _, first, inverse, count = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    patterns, levels = chosen[torch.from_numpy(first)], level[torch.from_numpy(first)]
    order = np.argsort(inverse, kind="stable")
    start = np.cumsum(count) - count
    sources = patterns.sum(1).numpy()
    # Places are padded to a power of two at most.
    kinds = np.stack([sources, _columns_used(offsets, patterns), np.ceil(np.log2(count)).astype(np.int64)], 1)
    for kind in np.unique(kinds[sources > 0], axis=0):
        same = np.flatnonzero((kinds == kind).all(1))
        most = int(count[same].max())
        padded = start[same, None] + np.minimum(np.arange(most), count[same, None] - 1)
        index = patterns[torch.from_numpy(same)].nonzero()[:, 1].reshape(len(same), -1)
        yield Constellations(offsets[index], levels[torch.from_numpy(same)], missing[torch.from_numpy(order[padded])])


def _columns_used(offsets: Tensor, patterns: Tensor) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """A number for the set of columns of each pattern."""
    names, column = offsets[:, 1].unique(return_inverse=True)
    used = torch.zeros(len(patterns), len(names), dtype=torch.long, device=patterns.device)
    used.index_add_(1, column, patterns.long())
    return np.unique((used > 0).cpu().numpy(), axis=0, return_inverse=True)[1].reshape(-1)
