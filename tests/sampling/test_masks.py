"""Sampling masks: true acceleration, centred ACS, determinism, no touch of global generators, what is reported."""

import math
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch

from medrecon.cli.options import MRIOptions
from medrecon.kspace.calibration import calibration_width
from medrecon.sampling.lines import (
    acceleration,
    centre,
    equispaced_mask,
    gaussian_mask,
    partial_fourier,
    random_mask,
    regular_mask,
)
from medrecon.sampling.pattern import PATTERNS, Sampling, draw
from medrecon.sampling.two_axes import GOLDEN_ANGLE, gaussian_2d_mask, golden_angle_mask, poisson_mask, spoke

pytestmark = pytest.mark.usefixtures("one_thread")

Maker = Callable[[tuple[int, int], float, int, torch.Generator], torch.Tensor]
COLUMNS: list[Maker] = [random_mask, equispaced_mask, gaussian_mask]
SQUARES: list[Maker] = [poisson_mask, gaussian_2d_mask, golden_angle_mask]
MAKERS = COLUMNS + SQUARES
ROUGH = {poisson_mask: 0.1, golden_angle_mask: 0.1}  # the others meet R to the rounding of W / R


def _seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(("shape", "accel", "acs"), [((96, 128), 4, 16), ((65, 97), 3, 9), ((65, 96), 2.5, 8)])
def test_true_acceleration_and_centred_acs(maker: Maker, shape: tuple[int, int], accel: float, acs: int) -> None:
    mask = maker(shape, accel, acs, _seeded())
    assert mask.shape == shape
    assert mask.dtype == torch.bool
    assert abs(acceleration(mask) / accel - 1) < ROUGH.get(maker, 0.03)
    inner = mask[centre(shape[0], acs), centre(shape[1], acs)]
    assert bool(inner.all())
    assert calibration_width(mask) >= acs
    assert bool(mask[shape[0] // 2, shape[1] // 2])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_seed_decides_and_global_generators_stay(pattern: str) -> None:
    before, torch_before = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # noqa: NPY002
    first, again = (draw(pattern, (64, 64), 4, 8, seed=1).mask for _ in range(2))
    others = [draw(pattern, (64, 64), 4, 8, seed=s).mask for s in range(2, 8)]
    assert torch.equal(first, again)
    assert not all(torch.equal(first, other) for other in others)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(torch_before, torch.random.get_rng_state())


def test_lines_are_whole_columns() -> None:
    for maker in (*COLUMNS, regular_mask):
        mask = maker((20, 64), 4, 8, _seeded())
        assert bool((mask == mask[:1]).all())
    for maker in SQUARES:
        mask = maker((64, 64), 4, 8, _seeded())
        assert not bool((mask == mask[:1]).all())


def test_equispaced_distances_are_equal_to_rounding() -> None:
    line = equispaced_mask((1, 128), 4, 0, _seeded())[0].nonzero()[:, 0]
    assert set(line.diff().tolist()) == {4}
    uneven = equispaced_mask((1, 101), 3, 0, _seeded())[0].nonzero()[:, 0].diff()
    assert int(uneven.max() - uneven.min()) <= 1


def test_regular_is_an_undisturbed_lattice_with_the_acs_on_top() -> None:
    mask = regular_mask((5, 64), 4, 10, offset=3)
    lattice = torch.zeros(64, dtype=torch.bool)
    lattice[3::4] = True
    expected = lattice.clone()
    expected[27:37] = True
    assert torch.equal(mask, expected.expand(5, 64))
    assert acceleration(mask) == 64 / (16 + 10 - int(lattice[27:37].sum())) < 4
    with pytest.raises(ValueError, match="whole number"):
        regular_mask((5, 64), 2.5, 4, offset=0)


@pytest.mark.parametrize("pattern", ["equispaced", "regular"])
@pytest.mark.parametrize("size", [64, 65])
def test_the_reported_offset_makes_the_mask_again(pattern: str, size: int) -> None:
    seen = set()
    for seed in range(12):
        drawn = draw(pattern, (4, size), 4, 8, seed=seed)
        assert torch.equal(draw(pattern, (4, size), 4, 8, seed=99, offset=drawn.offset).mask, drawn.mask)
        seen.add(drawn.offset)
    assert len(seen) >= 3
    with pytest.raises(ValueError, match="offset must be"):
        draw(pattern, (4, size), 4, 8, seed=0, offset=40)
    with pytest.raises(ValueError, match="generator"):
        regular_mask((4, size), 4, 8)


def test_gaussian_density_follows_the_gaussian() -> None:
    """Mean over many draws: dense in the middle, symmetric; first-order odds exp(-k^2 / 2) where few are drawn."""
    lines = torch.stack([gaussian_mask((1, 120), 20, 0, _seeded(s))[0] for s in range(200)]).double().mean(0)
    k = (torch.arange(120).double() - 60) / 20  # a width of 1/3 of the 60 columns on each side
    expected = torch.exp(-k.square() / 2)
    expected *= 6 / expected.sum()
    assert torch.allclose(lines.reshape(-1, 10).mean(1), expected.reshape(-1, 10).mean(1), atol=0.02)
    plane = torch.stack([gaussian_2d_mask((40, 60), 20, 0, _seeded(s)) for s in range(40)]).double().mean(0)
    assert float(plane[15:25, 22:38].mean()) > 5 * float(plane[:, :15].mean())
    assert float(plane[15:25, 22:38].mean()) > 5 * float(plane[:10].mean())


def test_spokes_are_lines_at_the_golden_angle() -> None:
    assert math.degrees(GOLDEN_ANGLE) == pytest.approx(111.246, abs=1e-3)
    for shape in ((33, 48), (48, 33)):
        for angle in (0.0, 0.3, 1.2, math.pi / 2, 2.5):
            rows, cols = (t - n // 2 for t, n in zip(spoke(shape, angle), shape, strict=True))
            away = (rows * math.cos(angle) - cols * math.sin(angle)).abs()  # distance from the line, <= half a step
            assert float(away.max()) <= 0.5 + 1e-9
            assert bool(((rows == 0) & (cols == 0)).any())
            assert len(rows) >= min(shape) - 1
    # With R so high that two spokes do: two lines, 180 - 111.246 degrees apart.
    mask = golden_angle_mask((201, 201), 100.0, 0, _seeded())
    rows, cols = (mask.nonzero().double() - 100).unbind(1)
    far = rows.hypot(cols) > 60
    angles = torch.rad2deg(torch.atan2(rows[far], cols[far])) % 180
    spread = (angles - angles[0] + 90) % 180 - 90
    other = spread[spread.abs() > 10].abs()
    assert float(spread[spread.abs() <= 10].abs().max()) < 1
    assert float((other - (180 - 111.246)).abs().max()) < 1 and len(other) > 50


@pytest.mark.parametrize("width", [64, 65])
@pytest.mark.parametrize("fraction", [0.5, 5 / 8, 6 / 8, 7 / 8, 1.0])
@pytest.mark.parametrize("side", ["left", "right"])
def test_partial_fourier(width: int, fraction: float, side: str) -> None:
    full = torch.ones(3, width)
    line = partial_fourier(full, fraction, side)[0]  # type: ignore[arg-type]
    assert abs(int(line.sum()) - fraction * width) <= 1 and bool(line[width // 2])
    assert bool((line if side == "right" else line.flip(0))[: width // 2].all())  # one half of k-space is complete
    assert bool(full.all())


def test_partial_fourier_combines_with_every_pattern() -> None:
    for pattern in PATTERNS:
        whole = draw(pattern, (64, 64), 4, 8, seed=1)
        part = whole.partial_fourier(0.75)
        assert not bool(part.mask[:, :16].any()) and torch.equal(part.mask[:, 16:], whole.mask[:, 16:])
        assert part.nominal == 4 and part.acceleration >= whole.acceleration and part.partial == 0.75
    with pytest.raises(ValueError, match="cuts into the ACS"):
        draw("random", (64, 64), 2, 20, seed=1).partial_fourier(5 / 8)
    for bad in (0.4, 1.1, math.nan):
        with pytest.raises(ValueError, match="fraction"):
            partial_fourier(torch.ones(4, 4), bad)


def test_padding_is_not_acquired_and_not_counted() -> None:
    whole = Sampling(torch.ones(4, 40, dtype=torch.bool), "full", 1.0, 40)
    padded = whole.padded(5, 33)
    assert padded.mask[0].nonzero()[:, 0].tolist() == list(range(5, 33))
    assert padded.acceleration == 1.0 and padded.padding == (5, 33) and bool(whole.mask.all())
    assert draw("regular", (4, 40), 4, 0, seed=0, offset=1).padded(5, 33).acceleration == 28 / 7
    for left, right in ((-1, 10), (10, 10), (0, 41)):
        with pytest.raises(ValueError, match="padded"):
            whole.padded(left, right)
    with pytest.raises(ValueError, match="no sample is left"):
        draw("regular", (4, 40), 8, 0, seed=0, offset=7).padded(0, 5)


def test_what_is_reported() -> None:
    sampling = draw("regular", (4, 64), 4, 8, seed=5, offset=2).partial_fourier(0.75)
    assert sampling.describe() == {
        "mask": "regular",
        "acceleration_nominal": 4,
        "acceleration": acceleration(sampling.mask),
        "acs": 8,
        "offset": 2,
        "mask_seed": 5,
        "partial_fourier": 0.75,
    }
    assert set(get_args(MRIOptions.model_fields["mask"].annotation)) == set(PATTERNS)
    with pytest.raises(ValueError, match="unknown; choose one of random"):
        draw("rings", (8, 8), 2, 2, seed=0)
    with pytest.raises(ValueError, match="has no offset"):
        draw("random", (8, 8), 2, 2, seed=0, offset=1)


def test_centre_is_around_zero_frequency() -> None:
    for size, width in [(8, 4), (8, 3), (9, 4), (9, 3), (7, 7)]:
        inner = centre(size, width)
        assert inner.stop - inner.start == width
        assert 0 <= inner.start <= size // 2 < inner.stop <= size


def test_full_sampling() -> None:
    for maker in (*MAKERS, regular_mask):
        assert acceleration(maker((16, 16), 1, 4, _seeded())) == 1


@pytest.mark.parametrize("maker", MAKERS)
def test_refusals(maker: Maker) -> None:
    nan = float("nan")
    for accel, acs, message in [(0.5, 4, "acceleration"), (nan, 4, "acceleration"), (4, 65, "acs"), (4, -1, "acs")]:
        with pytest.raises(ValueError, match=message):
            maker((64, 64), accel, acs, _seeded())
    with pytest.raises(ValueError, match="exceeds"):
        maker((64, 64), 8, 40, _seeded())
    with pytest.raises(ValueError, match="no sample"):
        acceleration(torch.zeros(4, 4))
