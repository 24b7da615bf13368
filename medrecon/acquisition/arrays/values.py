"""The numbers of an array from outside, of NumPy, torch or what these understand, as a tensor of our own."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor


def complex_numbers(name: str, array: Any) -> Tensor:
    """Return complex numbers as they are, on the CPU.

    Raises:
        ValueError: names the argument: real numbers, and what they may be.
        TypeError: no array of numbers.
    """
    found = numbers(name, array)
    if not found.is_complex():
        raise ValueError(
            f"{name}: expected complex numbers, got {found.dtype} of shape {tuple(found.shape)}{real_hint(found.shape)}"
        )
    return found


def real_hint(shape: Sequence[int]) -> str:
    """Say what real numbers in the place of k-space may be."""
    if tuple(shape[-1:]) == (2,):
        return "; real and imaginary parts? Give array[..., 0] + 1j * array[..., 1]"
    return "; magnitudes, or an image? k-space is complex"


def real_numbers(name: str, array: Any, why: str = "") -> Tensor:
    """Return real numbers as float64, on the CPU.

    Raises:
        ValueError: names the argument: complex, NaN or infinite, how many and where the first is.
        TypeError: no array of numbers.
    """
    found = numbers(name, array)
    if found.is_complex():
        raise ValueError(f"{name}: expected real numbers, got {found.dtype} of shape {tuple(found.shape)}{why}")
    found = found.double()
    if bad := int((~found.isfinite()).sum()):
        first = (~found.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"{name}: {bad} NaN or infinite values, the first at {first}{why}")
    return found


def truths(name: str, array: Any) -> Tensor:
    """Return a mask, bool; of numbers 0 and 1.

    Raises:
        ValueError: names the argument: other numbers.
    """
    found = numbers(name, array)
    if found.is_complex() or not bool(((found == 0) | (found == 1)).all()):
        raise ValueError(f"{name}: expected true and false, or 1 and 0; of weights or probabilities give array > 0")
    return found.bool()


def numbers(name: str, array: Any) -> Tensor:
    """Return numbers of any kind, on the CPU.

    Raises:
        TypeError: names the argument: no array of numbers.
    """
    if isinstance(array, Tensor):
        if array.layout != torch.strided or array.device.type == "meta":
            raise TypeError(f"{name}: a {array.layout} tensor on {array.device}; give a dense one with its values")
        return array.detach().resolve_conj().resolve_neg().cpu()
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{name}: a masked array; say what its masked values are, such as {name}.filled(0)")
    try:
        found = np.asarray(array)
    except (TypeError, ValueError) as error:  # a list of unequal rows, or an array on a GPU
        raise TypeError(f"{name}: expected an array, got {type(array).__name__} ({error})") from error
    if found.dtype.kind not in "biufc":
        raise TypeError(f"{name}: expected an array of numbers, got {type(array).__name__} of {found.dtype}")
    precise = {"f": np.float64, "c": np.complex128}.get(found.dtype.kind, found.dtype)
    native = found.dtype.newbyteorder("=") if found.dtype.itemsize <= np.dtype(precise).itemsize else np.dtype(precise)
    native = np.dtype(np.int64) if native.kind == "u" and native.itemsize > 1 else native
    return torch.from_numpy(np.array(found, dtype=native, order="C"))


def lengths(name: str, value: Any) -> tuple[float, float]:
    """Return a length of rows and of columns [mm], from one number or two.

    Raises:
        ValueError: names the argument: neither, or not above 0.
    """
    pair = (value, value) if isinstance(value, Real) and not isinstance(value, bool) else value
    try:
        row, column = (float(length) for length in pair)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected mm, a number or (row, column), got {value!r}") from None
    if not (0 < row < np.inf and 0 < column < np.inf):
        raise ValueError(f"{name}: expected mm > 0, got {value!r}")
    return row, column


def size(name: str, value: Any, rank: int = 2) -> tuple[int, ...]:
    """Return a shape: `rank` whole numbers, or one of a square image.

    Raises:
        ValueError: names the argument: another number of them, or none above 0.
    """
    given = (value,) * rank if isinstance(value, int | np.integer) and rank == 2 else value
    try:
        found = tuple(int(n) for n in given)
        good = len(found) == rank and min(found) >= 1 and all(n == m for n, m in zip(found, given))
    except (TypeError, ValueError):
        good = False
    if not good:
        form = "(rows, columns)" if rank == 2 else "(slices, rows, columns)"
        raise ValueError(f"{name}: expected {form}, whole numbers, got {value!r}")
    return found
