"""Tube-current modulation: photons of each view, with the same mean as a constant current."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

TubeCurrent = Literal["constant", "sinusoidal", "attenuation"]
DEPTH = 0.5
"""Sinusoidal: half the difference between lateral and frontal views over their mean."""
RANGE = 10.0
"""Attenuation-driven: largest over smallest current that the tube and its generator allow."""


def tube_current(kind: TubeCurrent, i0: float, angles: Sequence[float], p: Tensor) -> float | Tensor:
    """Photons i0 a ray of each view of line integrals p (Z, V, ...): the number itself, (V,) or (Z, V).

    'sinusoidal': i0 (1 - 0.5 cos 2t), lateral views (t = 90 degrees) get three times the photons of frontal ones.
    'attenuation': in proportion to exp(p_max / 2), p_max the thickest ray of the view, which minimises the noise of
    the image for a given dose (Gies et al., Med. Phys. 26:2235, 1999: the square root of the attenuation), a range
    of 1 : 10 of the current. The mean over all views of all slices is i0.

    Raises:
        ValueError: an unknown kind.
    """
    if kind == "constant":
        return i0
    if kind == "sinusoidal":
        shape = 1 - DEPTH * torch.cos(2 * torch.tensor(angles, dtype=torch.float64))
    elif kind == "attenuation":
        root = p.flatten(2).amax(-1).double() / 2
        shape = torch.exp(root - root.max()).clamp_min(1 / RANGE)
    else:
        raise ValueError(f"tube_current: must be 'constant', 'sinusoidal' or 'attenuation', got {kind!r}")
    return i0 * shape / shape.mean()
