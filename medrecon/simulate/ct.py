"""A CT acquisition of an image: other projector and finer grid than the reconstruction, counting noise."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from medrecon.io.scan import Scan
from medrecon.noise import CTNoise
from medrecon.operators.ct import CTOperator, FanGeometry, Geometry, ImageGrid, ParallelGeometry
from medrecon.simulate.source import OnProgress, provenance, silent
from medrecon.units import MU_WATER, hu_to_mu
from medrecon.volume import Volume

SOURCE_ORIGIN = 595.0
"""Source to isocentre [mm], as in common clinical scanners."""
ORIGIN_DETECTOR = 490.6
"""Isocentre to detector [mm]."""
CHUNK = 8


def simulate_ct(
    volume: Volume, *, geometry: Literal["fan", "parallel"] = "fan", views: int = 60, arc: float | None = None,
    i0: float = 5e4, sigma_e: float = 10.0, size: int | None = None, matched: bool = False,
    generator: torch.Generator, on_progress: OnProgress = silent,
) -> Scan:  # fmt: skip
    """Sinograms of all slices of a CT volume, with its noise model and the grid to reconstruct on.

    HU become attenuation (mu_water 0.0192 / mm, clamped at 0), projected with the strip (area) model on a grid at
    least twice as fine as the reconstruction's, to which the image is interpolated bilinearly where it is coarser;
    the reconstruction uses the linear model on `size` rows over the same field of view. `matched` projects
    the reconstruction grid itself with the linear model instead: an inverse crime, recorded as such.

    Args:
        volume: HU, (Z, Y, X).
        geometry: rays; the detector has one element per reconstruction pixel at the isocentre and covers the
            image's diagonal. Fan: flat detector, 595 mm source to isocentre, 490.6 mm isocentre to detector.
        views: projections spread over [0, arc), end excluded.
        arc: rad; full circle for fan and half for parallel by default.
        i0, sigma_e: photons a ray without object; standard deviation of the electronic noise in photons.
        size: rows of the reconstructed image, its columns in proportion; the native matrix by default.

    Raises:
        ValueError: not a CT volume in HU, or a size that is not in the range 8 .. native rows.
    """
    if volume.units != "HU" or volume.data.is_complex():
        raise ValueError(f"simulate_ct: needs a CT volume in HU, got {volume.modality} in {volume.units}")
    grid, affine = reconstruction_grid(volume, size)
    default = 2 * math.pi if geometry == "fan" else math.pi
    rays = scan_geometry(geometry, views, default if arc is None else arc, grid)
    fine = grid if matched else fine_grid(volume, grid)
    A = CTOperator(rays, fine, model="linear" if matched else "strip")
    noise = CTNoise(i0, sigma_e) if not matched else CTNoise(i0, sigma_e, model_absolute=0.0, model_relative=0.0)
    count, parts = volume.data.shape[0], []
    for start in range(0, count, CHUNK):
        mu = hu_to_mu(volume.data[start : start + CHUNK].float())
        parts.append(noise.simulate(A(resize(mu, fine.shape)), generator))
        on_progress(min(start + CHUNK, count), count)
    details = {
        "views": views, "arc_rad": default if arc is None else arc, "simulation_grid": list(fine.shape),
        "simulation_model": A.model, "inverse_crime": matched,
    }  # fmt: skip
    angles = torch.tensor(rays.angles, dtype=torch.float64)
    return Scan(
        modality="ct", data=torch.cat(parts), image_shape=grid.shape, affine=affine, units="HU",
        geometry={"type": geometry, **asdict(rays), "angles": angles, "pixel_spacing": list(grid.spacing)},
        noise={**asdict(noise), "mu_water": MU_WATER}, provenance=provenance(volume, generator, details),
    )  # fmt: skip


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


def scan_geometry(kind: Literal["fan", "parallel"], views: int, arc: float, grid: ImageGrid) -> Geometry:
    """Rays one pixel apart at the isocentre that see the whole image from every side."""
    angles = tuple(arc * i / views for i in range(views))
    pitch, reach = min(grid.spacing), grid.reach
    if kind == "parallel":
        return ParallelGeometry(angles, 2 * math.ceil(reach / pitch) + 2, pitch)
    if reach >= SOURCE_ORIGIN:
        raise ValueError(f"simulate_ct: the image reaches {reach:.0f} mm from its middle, beyond the source")
    half = SOURCE_ORIGIN * math.tan(math.asin(reach / SOURCE_ORIGIN))
    magnified = pitch * (SOURCE_ORIGIN + ORIGIN_DETECTOR) / SOURCE_ORIGIN
    return FanGeometry(angles, 2 * math.ceil(half / pitch) + 2, magnified, SOURCE_ORIGIN, ORIGIN_DETECTOR)


def fine_grid(volume: Volume, grid: ImageGrid) -> ImageGrid:
    """The image's own grid where it is twice as fine as `grid`, else twice `grid`."""
    rows, columns = volume.data.shape[-2:]
    native = rows >= 2 * grid.shape[0] and columns >= 2 * grid.shape[1]
    shape = (rows, columns) if native else (2 * grid.shape[0], 2 * grid.shape[1])
    height, width = (n * d for n, d in zip(grid.shape, grid.spacing, strict=True))
    return ImageGrid(shape, (height / shape[0], width / shape[1]), grid.center)


def resize(image: Tensor, shape: tuple[int, int]) -> Tensor:
    """(B, H, W) to (B, *shape): bilinear upwards, area-averaging downwards; outer edges stay where they are."""
    if tuple(image.shape[-2:]) == shape:
        return image
    mode = "area" if shape[0] < image.shape[-2] else "bilinear"
    return interpolate(image[:, None], shape, mode=mode)[:, 0]
