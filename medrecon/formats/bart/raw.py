"""BART .cfl/.hdr: Cartesian k-space, in two dimensions slice by slice or in three.

BART's FFT is centred and, for k-space that `bart fft -u` made, unitary; zero frequency at n // 2. READ becomes the
rows, PHS1 the columns, PHS2 (three dimensions) or SLICE the slices.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medrecon.acquisition.kspace import cartesian
from medrecon.acquisition.options import RawOptions
from medrecon.core.scan import Scan
from medrecon.formats.bart import cfl
from medrecon.numerics.fourier import centred_ifft

log = logging.getLogger(__name__)

Array = NDArray[np.complex64]
KNOWN = (cfl.READ, cfl.PHS1, cfl.PHS2, cfl.COIL, cfl.SLICE)


def read_kspace(path: Path, options: RawOptions) -> Scan:
    """Read slices of k-space.

    Two dimensions: the slices of SLICE. Three: the slices along PHS2 if every one has the same samples, after an
    inverse FFT along it; otherwise those along READ, the rows being PHS1 and the columns PHS2.

    The pixel is `pixel`, or 1 mm: BART files hold no lengths.

    Raises:
        ValueError: names the file: dimensions this cannot be, a length that does not fit, NaN and the slice.
    """
    array = cfl.read_cfl(path)
    try:
        kspace, first, count, how = _slices(array, options, path)
        facts = {"source": path.name, "format": "bart", "dimensions": list(array.shape), "slices_from": how}
        return cartesian.bare_scan(kspace, first, count, options.pixel, facts, slab=how != "SLICE")
    except ValueError as error:
        raise type(error)(f"{path}: {error}") from error


def _slices(array: Array, options: RawOptions, path: Path) -> tuple[Tensor, int, int, str]:
    """k-space (Z, C, H, W) of the slices asked for, the first of them, how many there are, and where they are from."""
    sizes = dict(zip(cfl.DIMENSIONS, array.shape, strict=True))
    if more := {name: n for i, (name, n) in enumerate(sizes.items()) if n > 1 and i not in KNOWN}:
        name = next(iter(more))
        raise ValueError(
            f"{', '.join(f'{k} {n}' for k, n in more.items())}: one image a slice is read; take one with "
            f"`bart slice {cfl.DIMENSIONS.index(name)} INDEX`"
        )
    if sizes["READ"] == 1 and sizes["PHS1"] > 1:
        raise ValueError("READ 1: samples along a trajectory, which is another file; Cartesian k-space is read")
    if sizes["PHS2"] > 1 and sizes["SLICE"] > 1:
        raise ValueError(
            f"PHS2 {sizes['PHS2']} and SLICE {sizes['SLICE']}: several slabs; take one with "
            f"`bart slice {cfl.SLICE} INDEX`"
        )
    rest = tuple(i for i in range(len(cfl.DIMENSIONS)) if i not in KNOWN)
    ordered = array.transpose(cfl.SLICE, cfl.PHS2, cfl.COIL, cfl.READ, cfl.PHS1, *rest)
    volume = ordered.reshape(ordered.shape[: len(KNOWN)])
    if sizes["PHS2"] == 1:
        start, stop = options.range(sizes["SLICE"])
        return cartesian.single("k-space", volume[start:stop, 0], start), start, sizes["SLICE"], "SLICE"
    if sizes["COIL"] == 1:
        log.warning(
            "%s: PHS2 %d, COIL 1: read as one coil in three dimensions; coils are dimension 3", path, sizes["PHS2"]
        )
    kspace, how = _planes(cartesian.single("k-space along PHS2", volume[0], 0))
    start, stop = options.range(len(kspace))
    return kspace[start:stop].contiguous(), start, len(kspace), how


def _planes(kspace: Tensor) -> tuple[Tensor, str]:
    """Three-dimensional k-space (PHS2, C, READ, PHS1) as slices, by an inverse FFT along a fully sampled axis."""
    cartesian.check_finite("k-space along PHS2", kspace, 0)
    mask = cartesian.acquired(kspace)
    if mask.ndim == 2:
        return centred_ifft(kspace, 0), "PHS2, transformed: every plane has the same samples"
    lines = mask.transpose(0, 1)[mask.any(2).any(0)]  # (READ with samples, PHS2, PHS1)
    if not bool((lines == lines[0]).all()):
        raise ValueError("k-space: the samples differ along READ and along PHS2; one of them must be fully sampled")
    along_read = centred_ifft(kspace, 2).permute(2, 1, 3, 0)
    return along_read, "READ, transformed: PHS1 and PHS2 are undersampled together"
