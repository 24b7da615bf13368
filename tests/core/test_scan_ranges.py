"""What a scan cannot be: angles in degrees, all at one place, sheared pixels, k-space beyond single precision."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scans import UPRIGHT, cone, ct, mri

from medrecon.core.noise import MRINoise
from medrecon.core.scan_ranges import check_noise, check_rays, check_right_angles, check_scale
from medrecon.geometry import ConeGeometry, FanGeometry, ParallelGeometry

GOLDEN = (math.sqrt(5) - 1) / 2
IN_DEGREES = {
    "every 9": np.arange(40) * 9.0,
    "every 9, from half": 0.5 + np.arange(40) * 9.0,
    "end included": np.linspace(0, 359, 40),
    "half a turn, end included": np.linspace(0, 179, 60),
    "descending": np.linspace(359, 0, 40),
    "jittering": np.linspace(0, 359, 40) + 0.2 * np.sin(np.arange(40) * 7.0),
    "interlaced": np.concatenate([np.arange(i, 360, 4) + 0.013 for i in range(4)]),
    "shuffled": np.random.default_rng(0).permutation(np.linspace(0, 359, 400)),
    "fine": np.linspace(0, 359.9, 2000),
    "an arc": np.linspace(0, 30, 61),
}
IN_RAD = {
    "one turn": np.linspace(0, 2 * math.pi, 40, endpoint=False),
    "half a turn, each twice": np.repeat(np.linspace(0, math.pi, 40), 2),
    "three turns": np.linspace(0, 6 * math.pi, 180, endpoint=False),
    "golden": np.arange(100) * GOLDEN * math.pi,
    "golden of a turn": np.arange(100) * (1 - GOLDEN) * 2 * math.pi,
    "large golden of a turn": np.arange(100) * GOLDEN * 2 * math.pi,
    "tiny golden": np.arange(300) * math.pi / (GOLDEN + 7),
    "many turns": np.linspace(0, 60 * math.pi, 30 * 360, endpoint=False),
    "four views": np.array([0.0, 1.5, 3.1, 4.7]),
}


@pytest.mark.parametrize("angles", IN_DEGREES.values(), ids=IN_DEGREES)
def test_degrees_are_refused(angles: np.ndarray) -> None:
    for rays in (ParallelGeometry(tuple(angles), 9, 1.0), FanGeometry(tuple(angles), 9, 1.0, 500.0, 400.0)):
        with pytest.raises(ValueError, match=r"geometry/angles: .* look like degrees; .*degrees \* pi / 180"):
            check_rays(rays)


@pytest.mark.parametrize("angles", IN_RAD.values(), ids=IN_RAD)
def test_rad_are_taken(angles: np.ndarray) -> None:
    check_rays(ParallelGeometry(tuple(angles), 9, 1.0))
    check_rays(FanGeometry(tuple(-angles), 9, 1.0, 500.0, 400.0))


def test_a_helix_has_many_turns_of_few_views() -> None:
    check_rays(ConeGeometry.helix(40, 30, 10.0, (4, 9), (1.0, 1.0), 500.0, 400.0))
    coarse = ConeGeometry(tuple(np.arange(60) * 9.2), (4, 9), (1.0, 1.0), 500.0, 400.0, tuple(np.arange(60.0)))
    with pytest.raises(ValueError, match="look like degrees"):
        check_rays(coarse)


def test_all_views_at_one_angle() -> None:
    with pytest.raises(ValueError, match=r"geometry/angles: all 7 views are at 0\.3 rad"):
        replace(ct(), geometry=replace(ct().geometry, angles=(0.3,) * 7))
    check_rays(ParallelGeometry((0.3,), 9, 1.0))


def turned(shear: float = 0.0, tilt: float = 0.0, mirror: float = 1.0) -> torch.Tensor:
    """An oblique grid of voxels 0.7 x 0.9 x 2 mm: rows that lean by `shear`, slices by `tilt`."""
    axes = np.linalg.qr(np.array([[1.0, 2, 3], [0, 1, 4], [5, 6, 0]]))[0] * [1, 1, mirror]
    lean = np.array([[1, shear, tilt], [0, 1, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = axes @ lean @ np.diag([0.7, 0.9, 2.0])
    return torch.from_numpy(affine)


@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_shear(mirror: float) -> None:
    """Of half a pixel over the image; by slices only where they are measured together."""
    shape = (20, 64, 64)
    for slices in (True, False):
        check_right_angles(turned(mirror=mirror), shape, slices=slices)
        check_right_angles(turned(1e-3, mirror=mirror), shape, slices=slices)  # 0.08 of a pixel
        with pytest.raises(ValueError, match=r"rows and columns meet at 8\d.* degrees.*resample"):
            check_right_angles(turned(0.1, mirror=mirror), shape, slices=slices)
    check_right_angles(turned(tilt=0.3, mirror=mirror), shape, slices=False)
    with pytest.raises(ValueError, match=r"not straight above one another but at 7\d.* tilted gantry"):
        check_right_angles(turned(tilt=0.3, mirror=mirror), shape, slices=True)


def test_no_scan_is_sheared() -> None:
    sheared = UPRIGHT.clone()
    sheared[0, 1] = 0.3
    for scan in (ct(), cone()):
        with pytest.raises(ValueError, match="the grid is sheared"):
            replace(scan, affine=sheared)
    tilted = UPRIGHT.clone()
    tilted[0, 2] = 0.7
    replace(ct(), affine=tilted)
    with pytest.raises(ValueError, match="not straight above one another"):
        replace(cone(), affine=tilted)


def test_kspace_that_single_precision_cannot_weigh() -> None:
    data = mri().data
    for factor in (1e-20, 1e16):
        with pytest.raises(ValueError, match=r"data: the largest sample is .*: multiply all by"):
            replace(mri(), data=factor * data, noise=None)
    for factor in (1e-8, 1e8):
        replace(mri(), data=factor * data, noise=None)
    check_scale("data", 0.0)


@pytest.mark.parametrize("noise", [MRINoise(1e15), MRINoise(5.0), MRINoise(25 * torch.eye(2))])
def test_noise_above_all_samples(noise: MRINoise) -> None:
    assert 2 < float(mri().data.abs().max()) < 4
    with pytest.raises(ValueError, match=r"noise/(sigma|covariance): noise of .* no sample .* above .*check its scale"):
        check_noise(mri().data, noise)
    check_noise(mri().data, MRINoise(1.0))
    check_noise(torch.zeros(1, 2, 6, 8), MRINoise(1.0))
