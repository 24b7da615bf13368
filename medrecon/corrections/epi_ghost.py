"""Nyquist ghosts of echo-planar imaging: lines read forwards and backwards differ by a linear phase along the readout.

Eddy currents and delays shift the echoes of backward lines against those of forward ones, which modulates every other
line and puts a ghost half a field of view away along the phase encode. Navigator lines without phase encode tell the
shift (Bruder et al., Magn. Reson. Med. 23:311, 1992); its slope is the phase of the lag-one autocorrelation, which
needs no unwrapping (Ahn & Cho, IEEE Trans. Med. Imaging 6:32, 1987).
"""

from __future__ import annotations

import torch
from torch import Tensor

from medrecon.numerics.fourier import centred_fft, centred_ifft


def ghost_phase(forward: Tensor, backward: Tensor) -> tuple[float, float]:
    """(offset [rad], slope [rad per pixel]) of backward lines over forward ones, about the pixel n//2.

    Lines of each direction are averaged: with one forward line between two backward ones, what drifts linearly in time
    between them (off-resonance) cancels.

    Args:
        forward, backward: navigator lines (L, C, n), centred k-space along the readout; the backward ones flipped, so
            that both run along increasing frequency.

    Raises:
        ValueError: no line of a direction, other shapes, or lines without signal.
    """
    if (
        forward.ndim != 3
        or backward.ndim != 3
        or not len(forward)
        or not len(backward)
        or forward.shape[1:] != backward.shape[1:]
    ):
        raise ValueError(
            f"ghost_phase: expected navigators (L, C, n) of both directions, got {tuple(forward.shape)} "
            f"forward, {tuple(backward.shape)} backward"
        )
    ahead, back = (centred_ifft(lines.to(torch.complex128), -1).mean(0) for lines in (forward, backward))
    product = (back * ahead.conj()).sum(0)
    if not float(product.abs().sum()) > 0:
        raise ValueError("ghost_phase: the navigators have no signal")
    slope = (product[1:] * product[:-1].conj()).sum().angle()
    offset = (product * torch.polar(torch.ones_like(slope), -slope * _pixels(product))).sum().angle()
    return float(offset), float(slope)


def correct_ghost(lines: Tensor, backward: bool, phase: tuple[float, float]) -> Tensor:
    """Lines (..., n) of one direction with the phase between the directions taken out, half from each: the image stays.

    Args:
        lines: centred k-space along the readout, backward ones flipped. phase: offset and slope of `ghost_phase`.
    """
    offset, slope = phase
    half = (offset + slope * _pixels(lines)) / 2
    turn = torch.polar(torch.ones_like(half), half).to(lines.dtype)
    profile = centred_ifft(lines, -1) * (turn.conj() if backward else turn)
    return centred_fft(profile, -1)


def _pixels(profile: Tensor) -> Tensor:
    """Pixel numbers from the centre, float64."""
    n = profile.shape[-1]
    return torch.arange(n, dtype=torch.float64, device=profile.device) - n // 2
