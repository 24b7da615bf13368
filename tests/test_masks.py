"""Sampling masks: true acceleration, centred ACS, determinism, no touch of global generators."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from medrecon.operators.coils import calibration_width
from medrecon.operators.masks import acceleration, centre, equispaced_mask, poisson_mask, random_mask

Maker = Callable[[tuple[int, int], float, int, torch.Generator], torch.Tensor]
MAKERS: list[Maker] = [random_mask, equispaced_mask, poisson_mask]


def _seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(("shape", "accel", "acs"), [((96, 128), 4, 16), ((65, 97), 3, 9), ((65, 96), 2.5, 8)])
def test_true_acceleration_and_centred_acs(maker: Maker, shape: tuple[int, int], accel: float, acs: int) -> None:
    mask = maker(shape, accel, acs, _seeded())
    assert mask.shape == shape
    assert mask.dtype == torch.bool
    assert abs(acceleration(mask) / accel - 1) < (0.1 if maker is poisson_mask else 0.03)
    inner = mask[centre(shape[0], acs), centre(shape[1], acs)]
    assert bool(inner.all())
    assert calibration_width(mask) >= acs
    assert bool(mask[shape[0] // 2, shape[1] // 2])


@pytest.mark.parametrize("maker", MAKERS)
def test_seed_decides_and_global_generators_stay(maker: Maker) -> None:
    before, torch_before = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # noqa: NPY002
    first, again, other = (maker((64, 64), 4, 8, _seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(torch_before, torch.random.get_rng_state())


def test_lines_are_whole_columns() -> None:
    for maker in (random_mask, equispaced_mask):
        mask = maker((20, 64), 4, 8, _seeded())
        assert bool((mask == mask[:1]).all())
    poisson = poisson_mask((64, 64), 4, 8, _seeded())
    assert not bool((poisson == poisson[:1]).all())


def test_equispaced_distances_are_equal_to_rounding() -> None:
    line = equispaced_mask((1, 128), 4, 0, _seeded())[0].nonzero()[:, 0]
    assert set(line.diff().tolist()) == {4}
    uneven = equispaced_mask((1, 101), 3, 0, _seeded())[0].nonzero()[:, 0].diff()
    assert int(uneven.max() - uneven.min()) <= 1


def test_centre_is_around_zero_frequency() -> None:
    for size, width in [(8, 4), (8, 3), (9, 4), (9, 3), (7, 7)]:
        inner = centre(size, width)
        assert inner.stop - inner.start == width
        assert 0 <= inner.start <= size // 2 < inner.stop <= size


def test_full_sampling() -> None:
    for maker in MAKERS:
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
