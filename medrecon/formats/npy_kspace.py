"""NumPy .npy with complex k-space: (coils, rows, columns) or (slices, coils, rows, columns).

On a grid zero frequency is at n // 2, 0 where not acquired; the phase encoding is along the columns. Along a trajectory
rows and columns are the axes of a second file, the coordinates (..., 2) of the samples, such as (spokes, points, 2).
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.acquisition.kspace import cartesian
from medrecon.acquisition.options import OptionError, RawOptions
from medrecon.core.scan import Scan
from medrecon.formats.base import RawReader
from medrecon.formats.contents import of_raw

MAGIC = b"\x93NUMPY"


class NumpyKspace(RawReader):
    """A bare array of complex numbers."""

    name = "npy_kspace"
    summary = "NumPy .npy, complex k-space (coils, H, W) or (slices, coils, H, W)"
    uses = ("slices", "pixel", "size", "coords", "coords_units")

    def recognises(self, path: Path) -> bool:
        """Look for a .npy file of any content, by its first bytes."""
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC

    def info(self, path: Path) -> dict[str, Any]:
        """Return the shape; the samples stay on disk."""
        return of_raw(path, self, {"modality": "mri", "data": list(_stack(path).shape)})

    def read_scan(self, path: Path, options: RawOptions) -> Scan:
        """Read the slices asked for; the pixel is `pixel`, or 1 mm: the file holds no lengths.

        Raises:
            ValueError: names the file: truncated, not complex, another rank or order of axes, NaN and the slice.
        """
        if options.coords is not None:
            return _along(path, Path(options.coords), options)
        for name in ("size", "coords_units"):
            if getattr(options, name) is not None:
                raise OptionError(f"{name}: only with coords; on a grid the image has the size of k-space")
        stack = _stack(path)
        try:
            start, stop = options.range(len(stack))
            kspace = cartesian.single("k-space", stack[start:stop], start)
            facts = {"source": path.name, "format": "npy_kspace"}
            return cartesian.bare_scan(kspace, start, len(stack), options.pixel, facts)
        except ValueError as error:
            raise type(error)(f"{path}: {error}") from error


def _along(path: Path, coords: Path, options: RawOptions) -> Scan:
    """Samples (..., *item) along a trajectory, coordinates (*item, 2) in a file of their own."""
    from medrecon.acquisition.arrays.kspace import from_kspace

    if options.size is None:
        raise OptionError("size: needed with coords: rows of the image, which is square")
    if not coords.is_file():
        raise OptionError(f"coords: no such file, {coords}")
    array, places = _mapped(path), _mapped(coords)
    lead = array.ndim - places.ndim + 1
    count = len(array) if lead == 2 else 1
    start, stop = options.range(count)
    try:
        scan = from_kspace(
            array[start:stop] if lead == 2 else array,
            axes={1: "coil sample", 2: "slice coil sample"}.get(lead),
            coords=places,
            coords_units=options.coords_units,
            image_shape=options.size,
            spacing=options.pixel,
        )
    except ValueError as error:
        raise type(error)(f"{path}, with coords {coords.name}: {error}") from error
    affine = scan.affine.clone()
    affine[2, 3] = affine[2, 2] * (start - (count - 1) / 2)  # of all slices, not of those read
    facts = {**scan.provenance, "source": path.name, "format": "npy_kspace", "coords": coords.name}
    return replace(scan, affine=affine, provenance={**facts, "slices": [start, stop]})


def _mapped(path: Path) -> NDArray[Any]:
    """The array on disk."""
    try:
        _check_length(path)
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy parses the header as Python, and raises what that does
        raise ValueError(f"{path}: not a .npy array of numbers, truncated or damaged ({error})") from error
    return array


def _stack(path: Path) -> NDArray[np.complex64]:
    """(Z, C, H, W) on disk."""
    array = _mapped(path)
    try:
        _check(array)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return array[None] if array.ndim == 3 else array


def _check_length(path: Path) -> None:
    """Check that the shape of the header is one, and that of what follows, before anything is mapped.

    Raises:
        ValueError: a negative or too large shape, objects, an unknown version, trailing bytes.
    """
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version} of the format")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        left = path.stat().st_size - file.tell()
    if dtype.hasobject or any(n < 0 for n in shape):
        raise ValueError(f"shape {shape} of {dtype}")
    if (needed := math.prod(shape) * dtype.itemsize) != left:
        raise ValueError(f"shape {shape} of {dtype} needs {needed} bytes, and {left} follow")


def _check(array: NDArray[np.complex64]) -> None:
    if array.dtype.kind != "c":
        hint = "an image is not k-space (save it as NIfTI, and simulate a measurement of it)"
        if array.shape[-1:] == (2,):
            hint = "real and imaginary parts? Save array[..., 0] + 1j * array[..., 1]"
        if array.shape[-1:] in {(2,), (3,)}:
            hint += ". Coordinates of a trajectory? Give the file of the samples, and this one as coords"
        raise ValueError(f"expected complex k-space, got {array.dtype} of shape {array.shape}; {hint}")
    if array.ndim not in (3, 4) or not array.size:
        hint = "; of one coil save array[None]" if array.ndim == 2 else ""
        raise ValueError(f"expected (coils, H, W) or (slices, coils, H, W), got shape {array.shape}{hint}")
