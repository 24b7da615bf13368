"""In which order k-space came of the image: where its zero frequency is, and which pixel its phases count from.

Our own is that of scanners, fastMRI, SigPy and BART: both at n // 2, and a unitary transform.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

Order = Literal["centred", "fft2", "fftshift(fft2)"]
"""fftshift(fft2(ifftshift(image))); numpy.fft.fft2(image); numpy.fft.fftshift(numpy.fft.fft2(image))."""
Norm = Literal["ortho", "backward", "forward"]
"""The `norm` of numpy.fft.fft2: unitary; nothing, its default; over the number of pixels."""
PEAK = 4.0
"""Times the median energy of a row that the middle of k-space has; less tells nothing."""
NEAR = 8
"""The middle is sought within one in so many of an axis."""
FEW = 8
"""Rows with samples below which nothing is told."""
APART = -0.2
"""Correlation of neighbouring samples: the mean of cos(2 pi x / n) over the energy of the image, x from its middle.
Below, most of the image lies around the edges of the field of view."""


def check_choice(name: str, value: object, known: object) -> None:
    """Raises ValueError where a word is none of a Literal."""
    if value not in get_args(known):
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, get_args(known)))}, got {value!r}")


def scale_of(norm: Norm | None, order: Order, shape: tuple[int, ...]) -> float:
    """Return what makes k-space that of a unitary transform; NumPy's own default where it is in NumPy's own order."""
    if norm is None:
        norm = "ortho" if order == "centred" else "backward"
    check_choice("norm", norm, Norm)
    return {"ortho": 1.0, "backward": math.prod(shape) ** -0.5, "forward": math.prod(shape) ** 0.5}[norm]


def shifted(array: Tensor, order: Order) -> Tensor:
    """Return an array (..., H, W) over k-space, in `order`, with zero frequency at n // 2."""
    return torch.fft.fftshift(array, (-2, -1)) if order == "fft2" else array


def in_our_order(kspace: Tensor, order: Order) -> Tensor:
    """Return k-space (..., H, W) as a centred transform of the same image has it; samples that are 0 stay 0."""
    kspace = shifted(kspace, order)
    if order == "centred":
        return kspace
    for axis in (-2, -1):
        n = kspace.shape[axis]
        turns = ((torch.arange(n) - n // 2) * (n // 2)).remainder(n).double() / n
        phase = torch.polar(torch.ones(n, dtype=torch.float64), 2 * math.pi * turns)
        kspace = kspace * phase.to(kspace.dtype).reshape(-1, *(1,) * (-1 - axis))
    return kspace


def check_order(kspace: Tensor) -> None:
    """Look where the energy of k-space (Z, C, H, W) is, and that of its image, which nobody said the order of.

    Raises:
        ValueError: not those of a centred transform, of which they look like, and what to say.
    """
    places = {axis: _middle(kspace, axis) for axis in (-2, -1)}
    ends = [name for axis, name in ((-2, "rows"), (-1, "columns")) if places[axis] == "end"]
    if len(ends) == 2:
        raise ValueError(
            "kspace: its energy is at the corners, as numpy.fft.fft2 has it, and not in the middle: "
            'give order="fft2" if it is fft2(image); of k-space of a scanner give numpy.fft.fftshift(kspace, (-2, -1))'
        )
    if ends or "elsewhere" in places.values():
        axis = f"along {ends[0]} at the end" if ends else "neither in the middle nor at the corners"
        raise ValueError(
            f"kspace: its energy is {axis}: zero frequency belongs at (rows // 2, columns // 2); shift it there, "
            'fill what was not measured with 0 on its side, or give order="centred" if it is there'
        )
    if any(_correlation(kspace, axis) < APART for axis in (-2, -1)):
        raise ValueError(
            "kspace: the image it makes lies around the edges, its middle is empty: "
            'give order="fftshift(fft2)" if it is numpy.fft.fftshift(numpy.fft.fft2(image)), without an ifftshift '
            'inside; order="centred" if the object does lie there'
        )


def _middle(kspace: Tensor, axis: int) -> str:
    """Where most energy along an axis is: "middle", "end", "elsewhere", or "" if it is spread."""
    energy = kspace.abs().double().square().movedim(axis, -1).flatten(0, -2).sum(0)
    n, measured = len(energy), energy[energy > 0]
    if len(measured) < FEW or not float(energy.max()) > PEAK * float(measured.median()):
        return ""
    at, reach = int(energy.argmax()), max(1, n // NEAR)
    if abs(at - n // 2) <= reach:
        return "middle"
    return "end" if min(at, n - at) <= reach else "elsewhere"


def _correlation(kspace: Tensor, axis: int) -> float:
    """Of measured neighbours along an axis (Wiener-Khinchin: the mean of cos(2 pi x / n) over the image's energy)."""
    n = kspace.shape[axis]
    here, there = kspace.narrow(axis, 0, n - 1), kspace.narrow(axis, 1, n - 1)
    both = (here != 0) & (there != 0)
    energy = float((both * (here.abs().square() + there.abs().square())).double().sum()) / 2
    return float((here.conj() * there).real.double().sum()) / energy if energy else 0.0
