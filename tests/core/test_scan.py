"""What a scan may hold: every field that is wrong is named, and geometry and noise fit the data."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from scans import AFFINE, UPRIGHT, cone, ct, mri, radial

from medrecon.core.noise import CTNoise, MRINoise
from medrecon.core.scan import Scan
from medrecon.geometry import Cartesian, ConeGeometry, FanGeometry, ImageGrid, Trajectory, VolumeGrid


def fan(**change: Any) -> FanGeometry:
    geometry = ct().geometry
    assert isinstance(geometry, FanGeometry)
    return replace(geometry, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modality": "pet"}, "modality"),
        ({"data": torch.zeros(4, 7, 9, dtype=torch.float64)}, "data: expected torch.float32"),
        ({"data": torch.zeros(7, 9)}, "data: expected torch.float32 of rank 3"),
        ({"image_shape": (3,)}, "image_shape"),
        ({"affine": AFFINE.float()}, "affine: expected float64"),
        ({"units": "kg"}, "units"),
        ({"geometry": Cartesian()}, "geometry: of ct expected one of ParallelGeometry, .* got Cartesian"),
        ({"geometry": {"type": "fan"}}, "geometry: of ct expected one of .* got dict"),
        ({"noise": {"i0": 1e4}}, "noise: of ct expected CTNoise or None, got dict"),
        ({"noise": MRINoise(1.0)}, "noise: of ct expected CTNoise or None, got MRINoise"),
        ({"mu_water": 0.0}, "noise/mu_water: expected 1/mm > 0"),
        ({"geometry": fan(angles=(0.0, 1.0, 2.0))}, "geometry/angles: expected 7, one per view, got 3"),
        ({"geometry": fan(det_count=8)}, "geometry/det_count: expected 9 as in data, got 8"),
    ],
)
def test_wrong_ct_fields_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(ct(), **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"geometry": ct().geometry}, "geometry: of mri expected one of Cartesian, Trajectory, got FanGeometry"),
        ({"noise": CTNoise(1e4)}, "noise: of mri expected MRINoise or None, got CTNoise"),
        ({"noise": MRINoise(torch.eye(3))}, r"noise/covariance: expected \(2, 2\) as in data, got \(3, 3\)"),
        ({"image_shape": (8, 6)}, "image_shape"),
        ({"mask": torch.ones(8, 6, dtype=torch.bool)}, "mask: expected"),
        ({"mask": torch.ones(6, 8)}, "mask: expected torch.bool"),
        ({"maps": mri().data[:, :1]}, "maps: expected"),
        ({"geometry": Cartesian((7, 8))}, r"geometry/crop: expected rows and columns within \(6, 8\), got \(7, 8\)"),
    ],
)
def test_wrong_mri_fields_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(mri(), **change)


def test_wrong_trajectories_are_named() -> None:
    for geometry, message in (
        (Trajectory(torch.zeros(39, 2)), r"geometry/trajectory: expected \(40, 2\), .* got \(39, 2\)"),
        (Trajectory(torch.full((40, 2), 3.5)), "geometry/trajectory: reaches"),
        (Trajectory(torch.zeros(40, 2), crop=(7, 8)), "geometry/crop: expected rows and columns within"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(radial(), geometry=geometry)
    with pytest.raises(ValueError, match="mask: not for"):
        replace(radial(), mask=torch.ones(6, 8, dtype=torch.bool))


def test_photons_of_a_wrong_shape_are_named() -> None:
    """Only the rank of the data is unambiguous: (V,) could be one value a view or one an element."""
    z, v, d = ct().data.shape
    for shape in ((v,), (d,), (z, v), (v, 1), (1, v + 1, 1), (z, v, d + 1), (z + 1, 1, 1)):
        with pytest.raises(ValueError, match=r"noise/i0: expected a number or \(4, 7, 9\)"):
            replace(ct(), noise=CTNoise(torch.full(shape, 1e4)))
    for shape in ((), (1, 1, 1), (1, v, 1), (z, v, 1), (1, 1, d), (z, 1, 1), (z, v, d)):
        replace(ct(), noise=CTNoise(torch.full(shape, 1e4)))


def test_slices_take_their_own_noise_along() -> None:
    scan = replace(ct(), data=ct().data / 100)
    z, v, d = scan.data.shape
    for shape in ((1, v, 1), (z, v, 1), (z, v, d), (1, 1, d)):
        i0 = 1e4 + torch.arange(float(torch.Size(shape).numel()), dtype=torch.float64).reshape(shape)
        noisy = replace(scan, noise=CTNoise(i0))
        part = noisy.slices(1, 3)
        assert isinstance(noisy.noise, CTNoise) and isinstance(part.noise, CTNoise)
        assert torch.equal(part.noise.precision(part.data), noisy.noise.precision(scan.data)[1:3])


def test_the_crop_keeps_the_middle_of_k_space_in_the_middle() -> None:
    assert radial().crop == (slice(1, 5), slice(2, 7))  # pixels 3 and 4 of 6 x 8 become 2 and 2 of 4 x 5
    assert mri().crop is None and ct().crop is None


def test_the_grid_has_the_pitch_of_the_affine() -> None:
    column, row, step = torch.linalg.vector_norm(UPRIGHT[:3, :3], dim=0).tolist()
    assert replace(ct(), affine=UPRIGHT).grid == ImageGrid((12, 10), (row, column))
    assert cone().grid == VolumeGrid((5, 6, 7), (step, row, column))


def test_rays_and_kspace_are_of_their_modality() -> None:
    assert isinstance(cone().rays, ConeGeometry) and isinstance(radial().kspace, Trajectory)
    with pytest.raises(ValueError, match="a scan of mri has no rays"):
        _ = mri().rays
    with pytest.raises(ValueError, match="a scan of ct has no k-space"):
        _ = ct().kspace


def test_cone_beams_are_checked_as_a_whole() -> None:
    scan: Scan = cone()
    for change, message in (
        ({"data": scan.data[0]}, "data: expected torch.float32 of rank 4"),
        ({"data": scan.data.expand(2, -1, -1, -1)}, r"data: expected \(1, V, R, D\)"),
        ({"image_shape": (6, 7)}, r"image_shape: expected \(Z, H, W\)"),
        ({"data": scan.data[:, :, :3]}, r"geometry/det_shape: expected \[3, 9\] as in data, got \[4, 9\]"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(scan, **change)
    with pytest.raises(ValueError, match="slices 0:1: a cone-beam scan measures its volume as a whole"):
        scan.slices(0, 1)
