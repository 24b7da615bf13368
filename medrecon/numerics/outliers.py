"""Sparse outliers among many values: a local level that they do not move, and a spike-and-slab fit by EM."""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 60
EVIDENCE = 12.0
"""Of log likelihood, over that of no outliers: noise alone, or what is left of an object, gives less."""
PAIRS = 5
EXCESS = 1.07
"""sqrt(1 + v / 2), v = 0.287 the variance of the median of five normal values."""
LEAST = 4.0
"""The slab's variance over that of the others, at least: closer, it would be their own spread."""


def running_median(values: Tensor, window: int, ndim: int) -> Tensor:
    """Return the median of the values around each along the last `ndim` axes, without NaN; NaN where all are.

    Near a border the values are mirrored; a window (odd) longer than an axis is cut.
    """
    wide = values
    for axis in range(-ndim, 0):
        n = values.shape[axis]
        half = min(window // 2, n - 1)
        place = torch.arange(-half, n + half, device=values.device).abs()
        wide = wide.index_select(axis, torch.where(place > n - 1, 2 * (n - 1) - place, place))
    for axis in range(-ndim, 0):
        half = min(window // 2, values.shape[axis] - 1)
        wide = wide.unfold(values.ndim + axis, 2 * half + 1, 1)
    return wide.flatten(values.ndim).nanmedian(-1).values


def largest_beside(values: Tensor, ndim: int) -> Tensor:
    """Return the largest of the values next to each along the last `ndim` axes (1 or 2), itself left out; NaN where
    all are."""
    known = torch.where(values.isnan(), -torch.inf, values)
    wide = torch.nn.functional.pad(known, (1, 1) * ndim, value=-torch.inf)
    for axis in range(values.ndim - ndim, values.ndim):
        wide = wide.unfold(axis, 3, 1)
    beside = wide.flatten(values.ndim).clone()
    beside[..., 3**ndim // 2] = -torch.inf
    largest = beside.amax(-1)
    return torch.where(largest.isinf(), torch.nan, largest)


def detail(values: Tensor) -> Tensor:
    """Return what each value has beyond its neighbours along the last axis, (..., n), as large as white values are.

    It is the difference from the median over five pairs, one value on each side at the same distance: a straight slope
    leaves nothing, and a neighbour that is far off spoils one pair of the five. 0 at both ends, and if n < 3.
    """
    n = values.shape[-1]
    reach = min(PAIRS, n - 1)
    if n < 3:
        return torch.zeros_like(values)
    ahead = 2 * values[..., :1] - values[..., 1 : reach + 1].flip(-1)
    after = 2 * values[..., -1:] - values[..., n - 1 - reach : n - 1].flip(-1)
    wide = torch.cat([ahead, values, after], -1)
    beside = wide.unfold(-1, n, 1)  # (..., 2 reach + 1, n), the middle one the values themselves
    pairs = (beside + beside.flip(-2))[..., :reach, :] / 2
    return (values - pairs.median(-2).values) / EXCESS


def median_over_mean(freedom: Tensor) -> Tensor:
    """Return the median over the mean of chi^2 of so many degrees of freedom (Wilson and Hilferty, PNAS 17, 1931)."""
    return (1 - 2 / (9 * freedom.clamp_min(1))) ** 3


def spike_and_slab(power: Tensor, variance: Tensor, freedom: Tensor) -> tuple[Tensor, Tensor]:
    """Return which values are outliers, a probability (B, ...), and the variance s^2 (B,) of what they have beyond.

    power ~ (v + c s^2) chi^2_f / f with c = 1 of a share of the values, 0 of the others. Share and s^2 are the most
    likely by EM, which starts at the largest value and takes others in. Where the likelihood does not gain `EVIDENCE`
    by it, there are no outliers: all probabilities are 0, and s^2.

    Args:
        power: mean square of each value (B, ...). variance: v, its mean without an outlier, broadcasts to it.
        freedom: f, real numbers behind each, broadcasts to it; 0: not measured.
    """
    q, v, f = (t.broadcast_to(power.shape).flatten(1).double() for t in (power, variance, freedom))
    seen = (f > 0) & (v > 0)
    q, v, f = (torch.where(seen, t, 1) for t in (q, v, f))
    count = seen.sum(1).clamp_min(1)
    excess = torch.where(seen, q - v, 0).clamp_min(0)
    slab, share, least = excess.amax(1), 1 / count, LEAST * _median(v, seen)
    score = lambda total: -f / 2 * (total.log() + q / total)  # noqa: E731
    without = torch.where(seen, score(v), 0)
    chance = torch.zeros_like(q)
    for _ in range(STEPS):
        odds = score(v + slab[:, None]) - without + torch.logit(share, 1e-12)[:, None]
        chance = torch.where(seen, torch.sigmoid(odds), 0)
        slab = ((chance * f * excess).sum(1) / (chance * f).sum(1).clamp_min(1e-30)).clamp_min(least)
        share = (chance.sum(1) / count).clamp_min(1e-12)
    within = torch.logaddexp(without + torch.log1p(-share)[:, None], score(v + slab[:, None]) + share.log()[:, None])
    sure = (torch.where(seen, within - without, 0).sum(1) > EVIDENCE) & (share < 0.5)
    chance = torch.where(sure[:, None], chance, 0)
    return chance.reshape(power.shape).to(power.dtype), torch.where(sure, slab, 0).to(power.dtype)


def mixed_variance(chance: Tensor, spike: Tensor, slab: Tensor) -> Tensor:
    """Return the variance whose inverse is the mean of 1 / spike and 1 / slab: what EM weighs a value by that is of the
    slab by a `chance`."""
    return 1 / ((1 - chance) / spike + chance / slab)


def _median(values: Tensor, seen: Tensor) -> Tensor:
    """(B,) of the values seen; 0 where none is."""
    return torch.where(seen, values, torch.nan).nanmedian(1).values.nan_to_num(0.0)
