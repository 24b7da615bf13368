"""from_kspace: k-space in memory to a scan."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from medrecon.acquisition.arrays import order as orders
from medrecon.acquisition.arrays.axes import ordered
from medrecon.acquisition.arrays.coils import coil_maps, noise_of
from medrecon.acquisition.arrays.order import Norm, Order
from medrecon.acquisition.arrays.trajectory import CoordsUnits, along
from medrecon.acquisition.arrays.values import complex_numbers, lengths, size, truths
from medrecon.acquisition.kspace import cartesian
from medrecon.core.scan import Scan
from medrecon.geometry import Cartesian, KSpace
from medrecon.geometry.placement import isocentre_affine

log = logging.getLogger(__name__)


def from_kspace(
    kspace: Any,
    *,
    axes: str | Sequence[str] | None = None,
    order: Order | None = None,
    norm: Norm | None = None,
    mask: Any = None,
    coords: Any = None,
    coords_units: CoordsUnits | None = None,
    density: Any = None,
    image_shape: int | Sequence[int] | None = None,
    maps: Any = None,
    normalise_maps: bool | None = None,
    noise: Any = None,
    noise_samples: Any = None,
    spacing: float | Sequence[float] | None = None,
    field_of_view: float | Sequence[float] | None = None,
    slice_spacing: float | None = None,
) -> Scan:
    """Make a scan of complex k-space, of NumPy or torch, which is copied: on a grid, or along a trajectory (`coords`).

    Args:
        kspace: (row, column); or with the axes that `axes` names. 0 where not sampled, unless `mask` tells it.
        axes: what the axes are, each a word: "coil row column", "slice coil row column" (fastMRI), or any other order
            of slice, coil, row and column; with coords of coil, slice and sample, which stands for all axes of coords.
        order: how it came of the image: "centred" (scanners, fastMRI, SigPy, BART), "fft2" (numpy.fft.fft2) or
            "fftshift(fft2)" (numpy.fft.fftshift of it). None: centred, and looked at whether it is.
        norm: that of numpy.fft.fft2: "ortho", or of order="fft2" and "fftshift(fft2)" NumPy's default, "backward".
        mask: what was sampled, in the order of kspace: of true and false, with a row and a column axis of its length or
            1, such as mask[None, :] for columns; (slice, row, column) where slices differ.
        coords: real (..., 2), (row, column) of every sample: k = sum over pixels r of image exp(-2 pi i coords r).
        coords_units: "cycles/fov", from -n/2 to n/2 as SigPy has them, "cycles/pixel" or "radians/pixel".
        density: (...) density compensation of the samples of coords, of any scale; by default computed.
        image_shape: (rows, columns) of the image, or one number; with coords.
        maps: complex (coil, row, column), or (slice, coil, row, column): coil sensitivities; by default estimated.
        normalise_maps: whether to divide maps by their root sum of squares, where that is not 1.
        noise: the standard deviation of a complex sample, sqrt(E|n|^2), or the covariance (coil, coil); by default
            estimated.
        noise_samples: complex (coil, sample), measured without an object, for the covariance.
        spacing: of pixels [mm], a number or (row, column); or field_of_view [mm] of the whole image.
        slice_spacing: from slice to slice [mm]; that of the columns by default.

    Raises:
        ValueError: names the argument, what was expected and what came, and what to say where the array cannot tell.
        TypeError: no array of numbers.
    """
    array = complex_numbers("kspace", kspace)
    if not array.numel():
        raise ValueError(f"kspace: no samples, shape {tuple(array.shape)}")
    facts: dict[str, Any] = {"source": "an array", "format": "array"}
    geometry: KSpace = Cartesian()
    sampled: Tensor | None = None
    if coords is None:
        _refuse("only with coords", image_shape=image_shape, density=density, coords_units=coords_units)
        data, sampled, told = _on_grid(array, axes, order, norm, mask)
        shape = (data.shape[-2], data.shape[-1])
        facts |= {"axes": told, "order": order or "centred"}
        scale = orders.scale_of(norm, order or "centred", shape)
    else:
        _refuse("not with coords, whose samples are all measured where they say", mask=mask, order=order)
        if image_shape is None:
            raise ValueError("image_shape: needed with coords: (rows, columns) of the image, or one number")
        rows, columns = size("image_shape", image_shape)
        shape = (rows, columns)
        data, geometry, told = along(array, coords, coords_units, density, shape, axes)
        facts |= {"axes": told, "coords_units": coords_units or "cycles/fov"}
        scale = orders.scale_of(norm, "centred", shape)
    data = cartesian.single("kspace", (data * scale).numpy(), 0)
    cartesian.check_finite("kspace", data, 0)
    cartesian.check_measured("kspace", data, 0)
    if sampled is not None:
        facts["acceleration"] = sampled.numel() / int(sampled.sum())
    (row, column), facts["pixel_from"] = _pixel(spacing, field_of_view, shape)
    pitch = _pitch(slice_spacing, column, len(data))
    facts |= {"pixel_mm": [row, column], "place": "not told: centred, shown like an axial slice"}
    model = noise_of(noise, noise_samples, scale, data)
    found = None if maps is None else coil_maps(maps, (*data.shape[:2], *shape), normalise_maps)
    affine = isocentre_affine(shape, (row, column), pitch, len(data))
    return Scan("mri", data, shape, affine, "a.u.", geometry, sampled, found, model, provenance=facts)


def _on_grid(
    array: Tensor, axes: str | Sequence[str] | None, order: Order | None, norm: Norm | None, mask: Any
) -> tuple[Tensor, Tensor, str]:
    """k-space (Z, C, H, W) in our order and its own scale, what of it was sampled, and the axes it had."""
    if order is not None:
        orders.check_choice("order", order, Order)
    stack, told = ordered("kspace", array, axes, ("row", "column"))
    data = orders.in_our_order(stack, order or "centred").contiguous()
    cartesian.check_coils("kspace", data)
    if order is None:
        orders.check_order(torch.nan_to_num(data))
    if mask is None:
        return data, cartesian.acquired(data), told
    sampled = orders.shifted(_mask(mask, data), order or "centred")
    each = sampled if sampled.ndim == 2 else sampled[:, None]
    if empty := int((sampled & (data == 0).all(1)).sum()):
        raise ValueError(
            f"mask: true for {empty} samples of kspace that are exactly 0 in every coil, which no scanner measures: is "
            "it of this k-space and in its order? mask=None takes what is not 0"
        )
    return data * each, sampled, told


def _mask(mask: Any, data: Tensor) -> Tensor:
    """(H, W), or (Z, H, W)."""
    found, shape = truths("mask", mask), tuple(data.shape[-2:])
    stack = (len(data), *shape)
    whole = stack if found.ndim == 3 else shape
    if found.ndim not in (2, 3) or any(n not in (1, m) for n, m in zip(found.shape, whole)):
        hint = "; mask[None, :] samples columns, mask[:, None] rows" if found.ndim == 1 else ""
        raise ValueError(f"mask: expected {shape} or {stack}, each axis as long or 1, got {tuple(found.shape)}{hint}")
    return found.expand(whole).contiguous()


def _pixel(spacing: Any, field_of_view: Any, shape: tuple[int, int]) -> tuple[tuple[float, float], str]:
    """(row, column) of a pixel [mm], and who said so."""
    if spacing is not None and field_of_view is not None:
        raise ValueError("spacing, field_of_view: give one of them, the other follows from the pixels of the image")
    if field_of_view is not None:
        height, width = lengths("field_of_view", field_of_view)
        return (height / shape[0], width / shape[1]), "given as field_of_view"
    if spacing is not None:
        return lengths("spacing", spacing), "given"
    log.warning("from_kspace: no pixel size: a pixel counts as 1 mm; spacing or field_of_view sets it")
    return (1.0, 1.0), "not given: taken as 1 mm"


def _pitch(slice_spacing: Any, column: float, slices: int) -> float:
    if slice_spacing is not None:
        return lengths("slice_spacing", slice_spacing)[0]
    if slices > 1:
        log.warning("from_kspace: no slice_spacing: the slices count as %.4g mm apart, as the columns are", column)
    return column


def _refuse(why: str, **given: Any) -> None:
    if names := [name for name, value in given.items() if value is not None]:
        raise ValueError(f"{', '.join(names)}: {why}")
