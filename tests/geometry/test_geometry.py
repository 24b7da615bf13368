"""What a geometry refuses, by the name of the entry; and that views are taken from all that changes with them."""

import math
from collections.abc import Callable

import pytest
import torch
from scans import cone

from medrecon.geometry import Cartesian, ConeGeometry, FanGeometry, ImageGrid, ParallelGeometry, Trajectory


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ParallelGeometry((), 9, 1.0), "geometry/angles: expected at least one view"),
        (lambda: ParallelGeometry((math.nan,), 9, 1.0), "geometry/angles: NaN or infinite"),
        (lambda: ParallelGeometry((0.0,), 0, 1.0), "geometry/det_count: expected whole numbers of elements"),
        (lambda: ParallelGeometry((0.0,), 8.5, 1.0), "geometry/det_count"),
        (lambda: ParallelGeometry((0.0,), 9, (1.0, 1.0)), "geometry/det_spacing: expected one number"),
        (lambda: FanGeometry((0.0,), 9, 1.0, -5.0, 5.0), "geometry/source_origin: expected mm > 0, got -5.0"),
        (lambda: FanGeometry((0.0,), 9, 1.0, 5.0, -5.0), "geometry/origin_detector: expected mm >= 0"),
        (lambda: FanGeometry((0.0,), 9, 9.0, 5.0, 5.0, detector="arc"), "geometry/det_spacing: .* half a circle"),
        (
            lambda: ConeGeometry((0.0,), (4, 9), (1.0, 1.0), 5.0, 5.0, heights=(0.0, 1.0)),
            "geometry/heights: expected 1",
        ),
        (lambda: ImageGrid((4, 0), (1.0, 1.0)), r"ImageGrid: shape must be \(H, W\) >= 1, got \(4, 0\)"),
        (lambda: ImageGrid((4,), (1.0, 1.0)), "ImageGrid: shape"),
        (lambda: ImageGrid((4, 4), (1.0, 0.0)), "ImageGrid: spacing must be two lengths > 0 mm"),
        (lambda: ImageGrid((4, 4), (math.inf, 1.0)), "ImageGrid: spacing"),
        (lambda: ImageGrid((4, 4), (-1.0, -1.0)), "ImageGrid: spacing"),
        (lambda: ImageGrid((4, 4), (1.0, 1.0), (math.nan, 0.0)), "ImageGrid: center must be finite"),
        (lambda: Cartesian((0, 4)), "geometry/crop: expected rows and columns"),
        (lambda: Trajectory(torch.zeros(5, 3)), r"geometry/trajectory: expected \(S, 2\)"),
        (lambda: Trajectory(torch.zeros(5, 2, dtype=torch.complex64)), "geometry/trajectory: expected real"),
        (lambda: Trajectory(torch.zeros(5, 2), torch.ones(4)), r"geometry/density: expected \(5,\)"),
    ],
)
def test_wrong_values_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_entries_become_plain_numbers() -> None:
    """Arrays and lists are taken, so that equal scans compare equal whatever they were made of."""
    rays = cone().rays
    assert isinstance(rays, ConeGeometry)
    again = ConeGeometry(
        torch.tensor(rays.angles, dtype=torch.float64),  # type: ignore[arg-type]
        list(rays.det_shape),  # type: ignore[arg-type]
        torch.tensor(rays.det_spacing, dtype=torch.float64),  # type: ignore[arg-type]
        rays.source_origin,
        rays.origin_detector,
        list(rays.heights),  # type: ignore[arg-type]
        list(rays.det_offset),  # type: ignore[arg-type]
        rays.detector,
        [list(shift) for shift in rays.focal_shifts],  # type: ignore[misc]
    )
    assert again == rays and hash(again) == hash(rays)


def test_a_subset_takes_along_what_changes_with_the_view() -> None:
    rays = cone().rays
    assert isinstance(rays, ConeGeometry)
    part = rays.subset([5, 2])
    assert part.angles == (rays.angles[5], rays.angles[2]) and part.heights == (5.0, 2.0)
    assert part.focal_shifts == (rays.focal_shifts[5], rays.focal_shifts[2])


def test_a_grid_knows_where_its_pixels_lie() -> None:
    """3 rows of 2 mm and 4 columns of 1.5 mm about (10, -5): y falls with the row."""
    grid = ImageGrid((3, 4), (2.0, 1.5), (10.0, -5.0))
    assert grid.window == (7.0, 13.0, -8.0, -2.0)
    assert grid.reach == pytest.approx(math.hypot(13, 8))
    x, y = grid.coordinates()
    assert x.tolist() == [7.75, 9.25, 10.75, 12.25] and y.tolist() == [-3.0, -5.0, -7.0]
