"""A fan beam over a full turn measures every line twice: what contradicts that is refused, round objects are not."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from medrecon import from_sinogram
from medrecon.geometry import FanGeometry

pytestmark = pytest.mark.usefixtures("one_thread")
VIEWS = np.arange(90) * 2 * np.pi / 90
DISCS = ((0.0, 0.0, 26.0, 0.02), (20.0, 24.0, 7.0, 0.02))
KINDS = pytest.mark.parametrize("detector", ["flat", "arc"])


def fan(detector: Any = "flat", **change: Any) -> FanGeometry:
    return dataclasses.replace(FanGeometry(tuple(VIEWS), 80, 2.0, 120.0, 150.0, detector=detector), **change)


def lines(geometry: FanGeometry, discs: tuple[tuple[float, ...], ...] = DISCS, photons: float = 1e4) -> np.ndarray:
    """(V, D) through discs (x, y, radius, attenuation), of counted photons."""
    points, directions = geometry.rays()
    normal = np.stack([-directions[..., 1], directions[..., 0]], -1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    total = np.zeros(geometry.shape)
    for x, y, radius, mu in discs:
        off = ((points - np.array([x, y])) * normal).sum(-1)
        total += 2 * mu * np.sqrt(np.clip(radius**2 - off**2, 0, None))
    counts = np.random.default_rng(0).poisson(photons * np.exp(-total))
    return -np.log(counts.clip(1) / photons)


@KINDS
def test_right_angles_pass_in_any_order(detector: str) -> None:
    order = np.random.default_rng(1).permutation(90)
    geometry = fan(detector, angles=tuple(VIEWS[order]))
    from_sinogram(lines(geometry), geometry)
    shifted = fan(detector, det_offset=6.0)
    from_sinogram(lines(shifted), shifted)


@KINDS
@pytest.mark.parametrize("wrong", ["order", "direction", "double"])
def test_other_angles_are_refused(detector: str, wrong: str) -> None:
    angles = {"order": np.random.default_rng(1).permutation(VIEWS), "direction": -VIEWS, "double": 2 * VIEWS}[wrong]
    with pytest.raises(ValueError, match="geometry: rays that were measured twice, from opposite sides, do not agree"):
        from_sinogram(lines(fan(detector)), fan(detector, angles=tuple(angles)))
    from_sinogram(lines(fan(detector)), fan(detector, angles=tuple(angles)), consistent=False)


@KINDS
def test_an_axis_beside_its_place_is_found(detector: str) -> None:
    shifted = fan(detector, det_offset=6.0)
    with pytest.raises(ValueError, match=r"axis of rotation is -[56]\.\d+ mm beside .*det_offset=[56]\.\d+;"):
        from_sinogram(lines(shifted), fan(detector))


def test_what_does_not_change_tells_nothing() -> None:
    """Of a disc in the middle only the noise changes from view to view; a short scan has no opposite rays."""
    swapped = fan(angles=tuple(-VIEWS))
    from_sinogram(lines(fan(), DISCS[:1]), swapped)
    from_sinogram(lines(fan(), DISCS[:1], 300.0), swapped)
    from_sinogram(lines(fan(), ()), fan())
    from_sinogram(0 * lines(fan()), fan())
    half = fan().subset(range(50))
    from_sinogram(lines(half), dataclasses.replace(half, angles=tuple(-VIEWS[:50])))
