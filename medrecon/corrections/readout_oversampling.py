"""Readout oversampling: scanners sample the readout twice as densely as the field of view asks, which costs no time."""

from __future__ import annotations

from torch import Tensor

from medrecon.numerics.fourier import centred_fft, centred_ifft


def remove_readout_oversampling(kspace: Tensor, kept: int, dim: int = -2) -> Tensor:
    """Centred k-space of the middle `kept` pixels along the readout: n samples along `dim` become `kept`.

    The image along the readout is cut to its middle, pixel n//2 becoming pixel kept//2. Both transforms are
    orthonormal: pixels keep their values, and white noise of variance s^2 stays white with s^2, since a part of a
    unitary transform of it is transformed by a unitary one. Where the object lies within the kept pixels and n is
    r kept, sample j is sqrt(r) times the sample at r times its frequency: the signal grows, the noise does not.

    Args:
        kspace: complex, centred (zero frequency at n//2) along `dim`.

    Raises:
        ValueError: real values, or more pixels to keep than there are.
    """
    n = kspace.shape[dim]
    if not kspace.is_complex() or not 1 <= kept <= n:
        raise ValueError(
            f"remove_readout_oversampling: expected complex k-space of at least {kept} >= 1 samples, "
            f"got {kspace.dtype} {tuple(kspace.shape)}"
        )
    if kept == n:
        return kspace
    return centred_fft(centred_ifft(kspace, dim).narrow(dim, n // 2 - kept // 2, kept), dim)
