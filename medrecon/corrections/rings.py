"""Rings: detector elements of wrong gain, and elements that are dead."""

from __future__ import annotations

import torch
from torch import Tensor

from medrecon.corrections.inpaint import interpolate_rays

SMOOTHING = 0.3
"""Weight of |s|^2: stripes wider than about 2 pi / 0.3^(1/4) = 8 elements are left to the object."""
OUTLIER = 4.0
"""Second differences beyond this many robust standard deviations are edges of the object, not stripes."""
MAD = 1.4826
DEFECT = 0.1
"""Line integral by which a defective element is off: 10 % of its signal."""
WINDOW = 9


def remove_rings(p: Tensor, smoothing: float = SMOOTHING) -> Tensor:
    """Line integrals (..., V, D) without the stripes that are constant over the views; each slice by itself.

    An element of wrong gain adds a constant s_j to all its line integrals. The object moves across the detector from
    view to view, so that m_j, the median over the views of the second difference along the detector, is that of s. The
    stripes are the least-squares solution

        s = argmin  sum_j w_j ((D2 s)_j - m_j)^2 + smoothing |s|^2,

    where w = 0 beyond 4 robust standard deviations of m: there an edge of the object stays at one element for most
    views, as of a phantom in the rotation centre. A single element far off (m = s, -2 s, s) is told from such an edge
    by this pattern and taken out first. On our phantoms this removes more than subtracting a smoothed mean over the
    views or sorting (Vo et al., Opt. Express 26:28396, 2018): docs/guide/corrections.md.

    Raises:
        ValueError: fewer than 5 detector elements.
    """
    if p.shape[-1] < 5:
        raise ValueError(f"remove_rings: needs at least 5 detector elements, got line integrals {tuple(p.shape)}")
    m = _second(p.detach().double()).median(-2).values
    spikes = _spikes(m)
    m = m - _second(spikes)
    weight = (m.abs() <= OUTLIER * _deviation(m)).double()
    d2 = _second(torch.eye(p.shape[-1], dtype=torch.float64, device=p.device)).mT  # (D - 2, D)
    normal = d2.mT @ (weight[..., None] * d2)
    normal.diagonal(dim1=-2, dim2=-1).add_(smoothing)
    stripes = spikes + torch.linalg.solve(normal, (weight * m)[..., None, :] @ d2, left=False)[..., 0, :]
    return p - stripes[..., None, :].to(p.dtype)


def defective_elements(p: Tensor, threshold: float = DEFECT) -> Tensor:
    """(D,) bool: elements of line integrals (..., V, D) that are dead or far off, up to four beside each other.

    In most views of all slices they differ by more than `threshold` from the median of nine elements around them, and
    from what the elements that do not differ give by interpolation: on a slope a dead element shifts the median.

    Raises:
        ValueError: fewer than 9 detector elements.
    """
    if p.shape[-1] < WINDOW:
        raise ValueError(f"defective_elements: needs at least {WINDOW} detector elements, got {tuple(p.shape)}")
    half = WINDOW // 2
    padded = torch.cat([p[..., :half].flip(-1), p, p[..., -half:].flip(-1)], dim=-1)
    around = padded.unfold(-1, WINDOW, 1).median(-1).values
    suspect = _off(p - around) > threshold
    return suspect & (_off(p - interpolate_rays(p, suspect)) > threshold)


def repair_elements(p: Tensor, defective: Tensor, precision: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Line integrals with the `defective` elements (D,) interpolated, and their precision with 0 there.

    FBP needs the interpolated values; a solver that weights by the precision does not look at them.

    Args:
        precision: of p, broadcasts to it; ones by default.

    Raises:
        ValueError: every element is defective.
    """
    if bool(defective.all()):
        raise ValueError("repair_elements: every detector element is defective")
    good = torch.ones_like(p) if precision is None else precision.expand(p.shape)
    return interpolate_rays(p, defective), torch.where(defective.to(p.device), 0, good)


def _off(difference: Tensor) -> Tensor:
    """(D,) by how much most views of all slices are off."""
    return difference.abs().reshape(-1, difference.shape[-1]).median(0).values


def _second(p: Tensor) -> Tensor:
    return p[..., 2:] - 2 * p[..., 1:-1] + p[..., :-2]


def _deviation(m: Tensor) -> Tensor:
    """(..., 1) robust standard deviation."""
    return MAD * (m - m.median(-1, keepdim=True).values).abs().median(-1, keepdim=True).values


def _spikes(m: Tensor) -> Tensor:
    """(..., D) stripes of single elements far off: second differences m (..., D - 2) like s, -2 s, s around them."""
    middle = m[..., 1:-1]
    sides = torch.stack([m[..., :-2] / -middle, m[..., 2:] / -middle])
    alone = ((sides > 0.25) & (sides < 0.75)).all(0) & (middle.abs() > OUTLIER * _deviation(m))
    return torch.nn.functional.pad(torch.where(alone, -middle / 2, 0), (2, 2))
