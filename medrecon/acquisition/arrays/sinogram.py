"""from_sinogram: line integrals or counts in memory, and where they were measured, to a scan."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medrecon.acquisition.arrays import consistency
from medrecon.acquisition.arrays.opposite_rays import check_opposite
from medrecon.acquisition.arrays.values import lengths, real_numbers, size
from medrecon.acquisition.flat_field import flat_field
from medrecon.acquisition.line_integrals import check_line_integrals
from medrecon.core.scan import Scan
from medrecon.core.scan_ranges import check_rays
from medrecon.core.scan_values import noise_model
from medrecon.core.volume import Units
from medrecon.geometry import ConeGeometry, FanGeometry, ImageGrid, ParallelGeometry, Rays
from medrecon.geometry.placement import rotation_axis_affine

log = logging.getLogger(__name__)


def from_sinogram(
    sinogram: Any,
    geometry: Rays,
    *,
    flat: Any = None,
    dark: Any = None,
    i0: Any = None,
    sigma_e: float | None = None,
    image_shape: int | Sequence[int] | None = None,
    spacing: float | None = None,
    slice_spacing: float | None = None,
    mu_water: float | None = None,
    consistent: bool = True,
) -> Scan:
    """Make a scan of line integrals, or of counts and their flat field, of NumPy or torch, which are copied.

    The image is attenuation in 1/mm, or with `mu_water` HU.

    Args:
        sinogram: (view, element), or (slice, view, element); of a cone beam (view, row, element). Line integrals
            -ln(N / N0), of no unit; with `flat` counts of any gain.
        geometry: ParallelGeometry, FanGeometry or ConeGeometry, in mm and rad.
        flat: counts without an object: a number, or (element,), (slice, element), of a cone beam (row, element).
        dark: counts without a beam, as flat; 0 by default.
        i0: photons a ray without an object, for the noise: a number, or of each view (view,); by default the noise is
            estimated.
        sigma_e: standard deviation of the electronic noise [photons], with i0.
        image_shape: (rows, columns), or one number; of a cone beam (slices, rows, columns). By default as many
            pixels as elements.
        spacing: of the square pixels [mm]; by default what the detector sees over image_shape.
        slice_spacing: from slice to slice [mm]; by default that of the pixels, of a cone beam that of the rows.
        mu_water: attenuation of water [1/mm] at the scan's energy, 0.0192 for clinical CT: makes HU.
        consistent: whether to refuse what no object that turns by these angles can give.

    Raises:
        ValueError: names the argument, what was expected and what came.
        TypeError: no array of numbers, or no geometry.
    """
    if not isinstance(geometry, ParallelGeometry | FanGeometry | ConeGeometry):
        raise TypeError(
            f"geometry: expected ParallelGeometry, FanGeometry or ConeGeometry of medrecon.geometry, got {geometry!r}"
        )
    check_rays(geometry)
    cone = isinstance(geometry, ConeGeometry)
    data = _stack(real_numbers("sinogram", sinogram, "; zero counts before the logarithm?"), geometry)
    facts: dict[str, Any] = {"source": "an array", "format": "array", "line_integrals": "given"}
    if flat is None:
        if dark is not None:
            raise ValueError("dark: only with flat, for counts")
    else:
        data, mended = _of_counts(data, flat, dark, cone)
        facts |= {"line_integrals": "-ln((counts - dark) / (flat - dark))", **mended}
    lines = data.float().contiguous()
    try:
        check_line_integrals(lines, "sinogram")
    except ValueError as error:
        raise ValueError(f"sinogram: {error}, or give flat with the counts") from error
    shape, pixel, pitch = _grid(geometry, image_shape, spacing, slice_spacing)
    if consistent:
        _check_consistent(lines, geometry, ImageGrid((shape[-2], shape[-1]), (pixel, pixel)))
    if i0 is None and sigma_e is not None:
        raise ValueError("sigma_e: only with i0, the photons that it is relative to")
    known = {"i0": None if i0 is None else _photons(i0), "sigma_e": sigma_e}
    noise = noise_model("ct", {k: v for k, v in known.items() if v is not None}, tuple(lines.shape))
    affine = rotation_axis_affine((shape[-2], shape[-1]), pixel, pitch)
    if cone:
        affine[2, 3] = -pitch * (shape[0] - 1) / 2
    facts |= {"pixel_mm": pixel, "place": "not told: centred, shown like an axial slice"}
    units: Units = "1/mm" if mu_water is None else "HU"
    return Scan("ct", lines, shape, affine, units, geometry, noise=noise, mu_water=mu_water, provenance=facts)


def _stack(found: Tensor, geometry: Rays) -> Tensor:
    """(Z, V, D) or (1, V, R, D)."""
    item, shape = geometry.shape, tuple(found.shape)
    if shape[-len(item) :] == item and found.ndim in (len(item), len(item) + 1):
        if isinstance(geometry, ConeGeometry) and found.ndim > len(item) and len(found) != 1:
            raise ValueError(f"sinogram: one cone-beam scan (view, row, element) = {item}, got {shape}")
        if not found.numel():
            raise ValueError(f"sinogram: no slices, shape {shape}")
        return found if found.ndim > len(item) else found[None]
    names = "(view, row, element)" if len(item) == 3 else "(view, element)"
    hint = ""
    if shape == item[::-1]:
        hint = "; its axes are exchanged, as skimage.transform.radon has them: give sinogram.T"
    elif found.ndim in (len(item), len(item) + 1) and set(item) <= set(shape):
        hint = "; another order of axes? numpy.moveaxis brings them into this one"
    raise ValueError(f"sinogram: expected {names} = {item} of geometry, slices before them, got {shape}{hint}")


def _of_counts(counts: Tensor, flat: Any, dark: Any, cone: bool) -> tuple[Tensor, dict[str, int]]:
    """Line integrals shaped like counts (Z, V, D) or (1, V, R, D), and what had to be mended."""
    by_row = counts[0].transpose(0, 1) if cone else counts  # (Z or R, V, D)
    rows, _, elements = by_row.shape
    fields = []
    for name, values in (("flat", flat), ("dark", 0.0 if dark is None else dark)):
        field = real_numbers(name, values)
        if tuple(field.shape) not in {(), (elements,), (rows, elements)}:
            raise ValueError(
                f"{name}: expected a number, ({elements},) or ({rows}, {elements}); of several take the mean, got "
                f"{tuple(field.shape)}"
            )
        fields.append(field.expand(rows, elements).numpy())
    corrected = flat_field(by_row.numpy(), *fields)
    lines = torch.from_numpy(corrected.lines)
    return (lines.transpose(0, 1)[None] if cone else lines), corrected.facts()


def _grid(
    geometry: Rays, image_shape: Any, spacing: float | None, slice_spacing: float | None
) -> tuple[tuple[int, ...], float, float]:
    """Shape (H, W) or (Z, H, W), pixel and distance of slices [mm]."""
    cone = geometry if isinstance(geometry, ConeGeometry) else None
    plane = geometry.plane() if isinstance(geometry, ConeGeometry) else geometry
    count = plane.det_count
    default: tuple[int, ...] = (count, count) if cone is None else (cone.det_shape[0], count, count)
    shape = default if image_shape is None else size("image_shape", image_shape, len(default))
    if spacing is None:
        pixel = count * plane.iso_spacing / max(shape[-2:])
    else:
        if not isinstance(spacing, Real):
            raise ValueError(f"spacing: expected mm, one number of square pixels, got {spacing!r}")
        pixel = lengths("spacing", spacing)[0]
        if image_shape is None:
            side = max(1, int(np.ceil(count * plane.iso_spacing / pixel)))
            shape = (*shape[:-2], side, side)
    if slice_spacing is not None:
        return shape, pixel, lengths("slice_spacing", slice_spacing)[0]
    return shape, pixel, pixel if cone is None else cone.det_spacing[0] / cone.plane().magnification


def _check_consistent(lines: Tensor, geometry: Rays, grid: ImageGrid) -> None:
    if isinstance(geometry, ConeGeometry):
        return
    consistency.check_exchanged(lines)
    if isinstance(geometry, ParallelGeometry):
        consistency.check_moments(lines, geometry)
    else:
        check_opposite(lines, geometry)
    missed = consistency.beside_image(lines, geometry, grid)
    height, width = grid.shape
    text = (
        f"rays beside the image of {height} x {width} pixels of {grid.spacing[0]:.4g} mm see {100 * missed:.0f} % of "
        "the object, which is left out; check image_shape, spacing and the geometry's mm"
    )
    if missed > consistency.MISSED[1]:
        raise ValueError(f"spacing: {text}; consistent=False takes it as it is")
    if missed > consistency.MISSED[0]:
        log.warning("from_sinogram: %s", text)


def _photons(i0: Any) -> Any:
    return i0 if isinstance(i0, Real) else real_numbers("i0", i0)
