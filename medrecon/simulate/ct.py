"""A CT acquisition of an image: finer grid than the reconstruction, another projector if possible, counting noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate, pad

from medrecon.core.keeping import Keep, Tensors, made_now
from medrecon.core.noise import CTNoise, photons_by_view
from medrecon.core.progress import OnProgress, silent
from medrecon.core.scan import Scan
from medrecon.core.units import MU_WATER, hu_to_mu
from medrecon.core.volume import Volume
from medrecon.corrections.field_of_view import remove_couch
from medrecon.geometry import ImageGrid, Rays, VolumeGrid
from medrecon.operators.ct.operator import CTOperator
from medrecon.simulate.arguments import check_call
from medrecon.simulate.ct_rays import WHOLE, Kind, arc_of, scan_rays
from medrecon.simulate.source import provenance
from medrecon.simulate.tube_current import TubeCurrent
from medrecon.simulate.tube_current import tube_current as modulated
from medrecon.simulate.volume_checks import check_ct

CHUNK = 8
SQUARE = 1e-6
"""Relative difference of two lengths that counts as none."""
MATCHED = {"model_absolute": 0.0, "model_relative": 0.0}
"""Model error of an inverse crime."""


def simulate_ct(
    volume: Volume,
    *,
    geometry: Kind = "fan",
    views: int = 60,
    arc: float | None = None,
    i0: float = 5e4,
    sigma_e: float = 10.0,
    tube_current: TubeCurrent = "constant",
    size: int | None = None,
    couch: bool = True,
    matched: bool = False,
    generator: torch.Generator,
    keep: Keep = made_now,
    on_progress: OnProgress = silent,
) -> Scan:
    """Line integrals of all of a CT volume, with their noise model and the grid to reconstruct on.

    HU become attenuation (mu_water 0.0192 / mm, clamped at 0), projected on a grid at least twice as fine as the
    reconstruction's, to which the image is interpolated linearly where it is coarser; with the strip (area) model, of
    cone beams with the linear one. The reconstruction uses the linear model on `size` rows over the same field of view.
    Between the slices of a cone beam's volume there is what linear interpolation makes of them, in the data as in the
    reconstruction: no model error comes from there, as none does slice by slice.
    `matched` projects the reconstruction grid itself with the linear model instead: an inverse crime, recorded as such.

    Args:
        volume: HU, (Z, Y, X). For a cone beam there is air beyond its first and its last slice; such flat ends are
            what a circle measures worst, and FDK is far too low in the last slices.
        geometry: rays, see `simulate/ct_rays.py`: slice by slice 'fan' or 'parallel'; through the whole volume 'cone',
            a circle, or 'helix'. Detectors are flat, cover the image, and have one element per pixel at the isocentre.
        views: projections spread over [0, arc), end excluded; of a helix, those of each turn.
        arc: rad; half circle for parallel and full for the others by default; not for a helix.
        i0, sigma_e: photons a ray without object; standard deviation of the electronic noise in photons.
        tube_current: how the photons change from view to view around their mean i0 (`simulate/tube_current.py`).
        size: rows of the reconstructed image, its columns in proportion; the native matrix by default. The slices are
            those of the volume.
        couch: False puts air where the image shows something outside the body (`corrections/field_of_view.py`).
        keep: is given the line integrals without noise of every few slices, or of a whole cone beam
            (`core/keeping.py`).

    Raises:
        ValueError: not a CT volume in HU, pixels (of a cone beam slices) not at right angles, a size that is not in the
            range 8 .. native rows, an image that reaches the source, or an arc for a helix.
    """
    check_call(volume, generator, {"views": views, "size": size}, {"arc": arc, "sigma_e": sigma_e})
    if arc == 0:
        raise ValueError("arc: expected an angle in rad, got 0: all views would be one")
    check_ct(volume, whole=geometry in WHOLE)
    plane, affine = reconstruction_grid(volume, size)
    grid: ImageGrid | VolumeGrid = plane
    if geometry in WHOLE:
        grid = VolumeGrid((len(volume.data), *plane.shape), (volume.spacing[2], *plane.spacing))
    rays = scan_rays(geometry, views, arc, grid)
    hu = volume.data.float() if couch else remove_couch(volume.data.float(), volume.spacing[:2][::-1])
    clean, method = project(rays, grid, hu, matched, on_progress, keep)
    photons = modulated(tube_current, i0, rays.angles, clean)
    noise = CTNoise(photons_by_view(photons, clean.ndim), sigma_e, **(MATCHED if matched else {}))
    details = {
        "trajectory": geometry,
        "views": len(rays.angles),
        "arc_rad": arc_of(rays),
        **method,
        "inverse_crime": matched,
        "tube_current": tube_current,
        "couch": couch,
    }
    return Scan(
        modality="ct",
        data=noisy(clean, noise, generator),
        image_shape=grid.shape,
        affine=affine,
        units="HU",
        geometry=rays,
        noise=noise,
        mu_water=MU_WATER,
        provenance=provenance(volume, generator, details),
    )


def project(
    rays: Rays, grid: ImageGrid | VolumeGrid, hu: Tensor, matched: bool, on_progress: OnProgress, keep: Keep = made_now
) -> tuple[Tensor, dict[str, Any]]:
    """Line integrals of hu (Z, Y, X), slice by slice or through the volume, and of which grid and model they are."""
    count, whole = len(hu), isinstance(grid, VolumeGrid)
    if isinstance(grid, VolumeGrid):  # a slice of air at each end, to which the projector interpolates anyway
        hu, grid = pad(hu, (0, 0, 0, 0, 1, 1), value=-1000)[None], replace(grid, shape=(count + 2, *grid.shape[1:]))
    fine = grid if matched else fine_grid(hu.shape[-2:], grid)
    field = tuple(n * d for n, d in zip(grid.shape[-2:], grid.spacing[-2:], strict=True))
    A, parts = CTOperator(rays, fine, model="linear" if matched or whole else "strip"), []
    for start in range(0, len(hu), CHUNK):

        def projected(some: Tensor = hu[start : start + CHUNK]) -> Tensors:
            return {"clean": A(onto(hu_to_mu(some), field, fine))}

        parts.append(keep(f"{start:06d}", projected)["clean"])
        on_progress(count * min(start + CHUNK, len(hu)) / len(hu), count)
    return torch.cat(parts), {"simulation_grid": list(fine.shape), "simulation_model": A.model}


def noisy(clean: Tensor, noise: CTNoise, generator: torch.Generator) -> Tensor:
    """Noise a few slices, or views of a cone beam, at a time: the counts are drawn in float64."""
    photons = noise.photons(clean).expand(clean.shape).flatten(0, -3)
    parts = zip(clean.flatten(0, -3).split(CHUNK), photons.split(CHUNK), strict=True)
    drawn = [replace(noise, i0=i0).simulate(part, generator) for part, i0 in parts]
    return torch.cat(drawn).reshape(clean.shape)


def reconstruction_grid(volume: Volume, size: int | None) -> tuple[ImageGrid, Tensor]:
    """The grid of `size` rows over the volume's field of view, and its affine: outer edges stay where they are."""
    rows, columns = volume.data.shape[-2:]
    size = rows if size is None else size
    if not 8 <= size <= rows:
        raise ValueError(f"simulate_ct: size must be between 8 and the {rows} rows of the scan, got {size}")
    shape = (size, max(1, round(columns * size / rows)))
    x, y, _ = volume.spacing
    ratio = (rows / shape[0], columns / shape[1])
    affine = volume.affine.clone()
    affine[:3, 0] *= ratio[1]
    affine[:3, 1] *= ratio[0]
    # The first voxel's centre moves in by half the growth of the voxel.
    affine[:3, 3] += volume.affine[:3, 0] * (ratio[1] - 1) / 2 + volume.affine[:3, 1] * (ratio[0] - 1) / 2
    return ImageGrid(shape, (y * ratio[0], x * ratio[1])), affine


def fine_grid(image: Sequence[int], grid: ImageGrid | VolumeGrid) -> ImageGrid | VolumeGrid:
    """In the plane the image's own pixels (H, W) where they are twice as fine as those of `grid`, else twice as many.

    Three times as many slices: they hold all that linear interpolation makes of the volume's, as twice would not.
    The pixels of a plane are square, which the strip model needs, of the finer of the two pitches: the last row and
    column may reach a part of a pixel beyond the image.
    """
    *slices, height, width = grid.shape
    plane = (max(own, 2 * n) for own, n in zip(image, (height, width), strict=True))
    shape: Any = (*(3 * n for n in slices), *plane)
    spacing: Any = tuple(n * d / m for n, d, m in zip(grid.shape, grid.spacing, shape, strict=True))
    if isinstance(grid, ImageGrid) and not math.isclose(*spacing, rel_tol=SQUARE):
        pitch = min(spacing)
        shape = tuple(math.ceil(m * d / pitch * (1 - SQUARE)) for m, d in zip(shape, spacing, strict=True))
        spacing = (pitch, pitch)
    return replace(grid, shape=shape, spacing=spacing)


def onto(image: Tensor, field: tuple[float, ...], grid: ImageGrid | VolumeGrid) -> Tensor:
    """(B, H, W) or (B, Z, H, W) over a field (height, width) [mm] to the pixels of a grid of the same middle."""
    reach = [n * d / f for n, d, f in zip(grid.shape[-2:], grid.spacing[-2:], field, strict=True)]
    if all(math.isclose(r, 1, rel_tol=SQUARE) for r in reach):
        return resize(image, grid.shape)
    y, x = (r * ((torch.arange(n) * 2 + 1) / n - 1) for r, n in zip(reach, grid.shape[-2:], strict=True))
    places = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=-1)
    places = places.to(image).expand(len(image), -1, -1, -1)
    return grid_sample(image[:, None], places, mode="bilinear", padding_mode="border", align_corners=False)[:, 0]


def resize(image: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(B, H, W) or (B, Z, H, W) to (B, *shape): linear upwards, area-averaging downwards; outer edges stay."""
    if tuple(image.shape[1:]) == shape:
        return image
    mode = "area" if shape[-2] < image.shape[-2] else {2: "bilinear", 3: "trilinear"}[len(shape)]
    return interpolate(image[:, None], shape, mode=mode)[:, 0]
