"""What a geometry refuses, by the name of the entry; and that views are taken from all that changes with them."""

import math
from collections.abc import Callable

import pytest
import torch
from scans import cone

from medrecon.geometry import Cartesian, ConeGeometry, FanGeometry, ParallelGeometry, Trajectory


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ParallelGeometry((), 9, 1.0), "geometry/angles: expected at least one view"),
        (lambda: ParallelGeometry((math.nan,), 9, 1.0), "geometry/angles: NaN or infinite"),
        (lambda: ParallelGeometry((0.0,), 0, 1.0), "geometry/det_count: expected at least 1 element, got 0"),
        (lambda: ParallelGeometry((0.0,), 8.5, 1.0), "geometry/det_count"),
        (lambda: ParallelGeometry((0.0,), 9, (1.0, 1.0)), "geometry/det_spacing: expected one number"),
        (lambda: FanGeometry((0.0,), 9, 1.0, -5.0, 5.0), "geometry/source_origin: expected mm > 0, got -5.0"),
        (lambda: FanGeometry((0.0,), 9, 1.0, 5.0, -5.0), "geometry/origin_detector: expected mm >= 0"),
        (lambda: FanGeometry((0.0,), 9, 9.0, 5.0, 5.0, detector="arc"), "geometry/det_spacing: .* half a circle"),
        (
            lambda: ConeGeometry((0.0,), (4, 9), (1.0, 1.0), 5.0, 5.0, heights=(0.0, 1.0)),
            "geometry/heights: expected 1",
        ),
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
