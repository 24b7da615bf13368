"""The rotation centre: exact phantoms at known offsets, with noise, cut off, drifting; and real data."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from raw_maker import lines, noisy, parallel

from medrecon.acquisition.options import RawOptions
from medrecon.acquisition.rotation_centre import (
    air_margins,
    full_turn,
    full_turn_centre,
    mirror_centre,
    opposite_centre,
    parallel_centre,
)
from medrecon.formats.raw_data import read_raw
from medrecon.geometry import FanGeometry
from medrecon.operators.ct.filtered.fbp import fbp

SHIFTS = (0.25, -0.25, 3.4, -11.7)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("views", [60, 181])
@pytest.mark.parametrize("i0", [None, 2e4])
def test_half_turn(shift: float, views: int, i0: float | None) -> None:
    geometry = parallel(views, 256, shift)
    p = lines(geometry)
    p = p if i0 is None else noisy(p, i0)
    found, how = parallel_centre(p[None], np.array(geometry.angles))
    assert how == "centroid"
    assert abs(found - (255 / 2 + shift)) < 0.1


@pytest.mark.parametrize("shift", SHIFTS)
def test_opposite_views_alone_without_and_with_noise(shift: float) -> None:
    """Two independent ways: the one that needs no air around the object is as exact, and somewhat noisier."""
    geometry = parallel(181, 256, shift)
    p, angles = lines(geometry), np.array(geometry.angles)
    assert abs(opposite_centre(p[None].double().numpy(), angles) - (255 / 2 + shift)) < 0.1
    assert abs(opposite_centre(noisy(p, 2e4)[None].double().numpy(), angles) - (255 / 2 + shift)) < 0.2


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("beam", ["parallel", "fan"])
def test_full_turn_is_symmetric(shift: float, beam: str) -> None:
    around = parallel(240, 256, shift, arc=2 * math.pi)
    fan = FanGeometry(around.angles, 256, 1.5, 400.0, 200.0, det_offset=-1.5 * shift)
    p = noisy(lines(fan if beam == "fan" else around), 5e3)[None]
    assert full_turn(np.array(around.angles))
    assert abs(full_turn_centre(p) - (255 / 2 + shift)) < 0.1
    if beam == "parallel":
        assert parallel_centre(p, np.array(around.angles))[1] == "symmetry"


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("twice", [False, True])
def test_a_full_turn_with_the_axis_near_an_end_of_the_detector(side: int, twice: bool) -> None:
    """As scans are done that widen their field of view; with 360 degrees beside 0, too."""
    around = parallel(120, 160, 60.3 * side, arc=2 * math.pi)
    p, angles = noisy(lines(around), 2e4), np.array(around.angles)
    if twice:
        p, angles = torch.cat([p, p[:1]]), np.append(angles, 2 * math.pi)
    found, how = parallel_centre(p[None], angles)
    assert how == "opposite views" and abs(found - (159 / 2 + 60.3 * side)) < 0.3


def test_a_full_turn_of_an_object_cut_off_at_one_end() -> None:
    around = parallel(120, 256, -35.0, arc=2 * math.pi)
    found, how = parallel_centre(lines(around)[None], np.array(around.angles))
    assert how == "symmetry" and abs(found - (255 / 2 - 35)) < 0.1


def test_views_that_are_nowhere_mirror_images_are_refused() -> None:
    p = (torch.arange(64.0) / 64).expand(1, 40, 64)
    with pytest.raises(ValueError, match=r"opposite views fit nowhere.*give `centre`"):
        parallel_centre(p, np.arange(40) * 2 * math.pi / 40)


def test_a_single_view_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a single view.*give `centre`"):
        parallel_centre(torch.ones(1, 1, 64), np.zeros(1))


def test_cut_off_object_uses_opposite_views() -> None:
    """No air on both sides, no centroid."""
    geometry = parallel(181, 150, 3.4)
    p, angles = noisy(lines(geometry), 2e4)[None], np.array(geometry.angles)
    found, how = parallel_centre(p, angles)
    assert how == "opposite views" and abs(found - (149 / 2 + 3.4)) < 0.5
    assert min(air_margins(p.double().numpy())) == 0


def test_drifting_background_is_noticed() -> None:
    """Scatter that comes and goes pulls the centroid; the opposite views disagree and win."""
    geometry = parallel(181, 256, 3.4)
    angles = np.array(geometry.angles)
    bump = np.exp(-(((np.arange(256) - 200) / 30) ** 2))[None] * np.cos(angles)[:, None] ** 2
    found, how = parallel_centre((lines(geometry) + 0.1 * torch.from_numpy(bump).float())[None], angles)
    assert how == "opposite views" and abs(found - (255 / 2 + 3.4)) < 0.2


def test_arc_too_short_for_opposite_views() -> None:
    """A whole object still has its centroid; a cut-off one has nothing, and that is said."""
    whole, cut = (parallel(120, n, 3.4, arc=math.radians(120)) for n in (256, 150))
    found, how = parallel_centre(lines(whole)[None], np.array(whole.angles))
    assert how == "centroid" and abs(found - (255 / 2 + 3.4)) < 0.1
    with pytest.raises(ValueError, match=r"span 119\.0 degrees.*cut off.*give `centre`"):
        parallel_centre(lines(cut)[None], np.array(cut.angles))


def test_mirror_of_a_profile() -> None:
    x = np.arange(80.0)
    a, b = (np.exp(-(((x - centre) / 6) ** 2))[None] for centre in (50.3, 20.0))
    assert mirror_centre(a, b) == pytest.approx(35.15, abs=0.01)


def test_tooth(corpus: Path) -> None:
    """Real: the image is least negative (Donath's Q_IN) at the centre found, and clearly worse an element away."""
    path = corpus / "raw" / "raw_ct_tooth" / "tooth.h5"
    centre = read_raw(path).provenance["rotation_centre_elements"]
    assert centre == pytest.approx(296.05, abs=0.15)

    def negative(shift: float) -> float:
        scan = read_raw(path, RawOptions(slices=(0, 1), size=200, centre=centre + shift))
        return float(fbp(scan.data, scan.rays, scan.grid).clamp_max(0).abs().mean())

    right = negative(0)
    assert negative(-1) > right and negative(1) > right
