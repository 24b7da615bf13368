"""Noise maps: pseudo-replicas against the exact SD, Pruessmann's closed form, g = 1 without acceleration."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from medrecon.coils.combine import birdcage_maps
from medrecon.coils.whitening import whiten_coils
from medrecon.core.noise import MRINoise
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.quality.noise_maps import g_factor, pseudo_replica, sense_noise
from medrecon.sampling.lines import equispaced_mask, random_mask

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = (10, 12)


def _maps(coils: int = 6, shape: tuple[int, int] = SHAPE) -> Tensor:
    return birdcage_maps(coils, shape, torch.Generator().manual_seed(4)).to(torch.complex128)


def _mask(seed: int = 1) -> Tensor:
    return random_mask(SHAPE, 2.0, 3, torch.Generator().manual_seed(seed))


def _matrix(maps: Tensor, mask: Tensor) -> Tensor:
    """The operator, one column a pixel: (samples, pixels)."""
    n = mask.numel()
    return CartesianMRI(maps, mask)(torch.eye(n, dtype=torch.complex128).reshape(n, *mask.shape)).reshape(n, -1).T


def _sense(maps: Tensor, mask: Tensor) -> Callable[[Tensor], Tensor]:
    """The least-squares image by the pseudo-inverse."""
    inverse = torch.linalg.pinv(_matrix(maps, mask))
    return lambda y: (inverse @ y.flatten()).reshape(mask.shape)


def _dense(maps: Tensor, mask: Tensor) -> Tensor:
    """sqrt(diag((A^H A)^-1)) from the matrix of the operator itself."""
    matrix = _matrix(maps, mask)
    return torch.linalg.inv(matrix.mH @ matrix).diagonal().real.sqrt().reshape(mask.shape)


def _pattern(kind: str) -> Tensor:
    g = torch.Generator().manual_seed(2)
    return {
        "columns": _mask(),
        "rows": random_mask(SHAPE[::-1], 2.0, 3, g).T,
        "weighted": _mask() * torch.rand(12) + 0.1,
        "points": torch.rand(SHAPE, generator=g) < 0.6,
        "full": torch.ones(SHAPE),
    }[kind]


@pytest.mark.parametrize("kind", ["columns", "rows", "weighted", "points", "full"])
def test_the_lines_give_the_dense_inverse(kind: str) -> None:
    maps, mask = _maps(), _pattern(kind)
    exact = _dense(maps, mask)
    assert torch.allclose(sense_noise(maps, mask), exact, rtol=1e-8)
    odd = _maps(shape=(7, 11)), random_mask((7, 11), 2.0, 3, torch.Generator().manual_seed(0))
    assert torch.allclose(sense_noise(*odd), _dense(*odd), rtol=1e-8)


def test_pseudo_replicas_agree_within_their_sampling_error() -> None:
    """800 replicas of each of 120 pixels: 1.8 % of a pixel, chi^2 over all; the mean within 0.5 %."""
    maps, mask, count = _maps(), _mask(), 800
    exact = sense_noise(maps, mask)
    data = CartesianMRI(maps, mask)(100 * torch.ones(SHAPE, dtype=torch.complex128))
    noise = MRINoise(0.3)
    found = pseudo_replica(
        _sense(maps, mask),
        lambda g: noise.simulate(data, mask, g),
        replicas=count,
        generator=torch.Generator().manual_seed(0),
    )
    ratio = found / (0.3 * exact)
    assert float(ratio.mean()) == pytest.approx(1, abs=0.01)
    assert float((ratio - 1).square().mean().sqrt()) == pytest.approx(1 / math.sqrt(4 * count), rel=0.3)
    # A map that is off by a tenth anywhere would be seen.
    assert float((ratio - 1).abs().max()) < 0.1


def test_replicas_of_a_real_image_and_of_correlated_coils() -> None:
    """The magnitude of a strong signal has half the variance; correlated noise is whitened into the maps."""
    maps, mask = _maps(3), torch.ones(SHAPE)
    g = torch.Generator().manual_seed(3)
    root = torch.randn(3, 3, dtype=torch.complex128, generator=g) + 2 * torch.eye(3)
    noise = MRINoise(root @ root.mH)
    data = CartesianMRI(maps, mask)(1000 * torch.ones(SHAPE, dtype=torch.complex128))

    _, seen = whiten_coils(data, maps, noise.covariance)  # type: ignore[arg-type]
    solve = _sense(seen, mask)

    def reconstruct(y: Tensor) -> Tensor:
        return solve(whiten_coils(y, maps, noise.covariance)[0]).abs()  # type: ignore[arg-type]

    found = pseudo_replica(reconstruct, lambda g: noise.simulate(data, mask, g), replicas=300, generator=g)
    exact = sense_noise(seen, mask)
    assert float((found / exact).mean()) == pytest.approx(math.sqrt(0.5), rel=0.02)


def test_what_is_in_the_data_does_not_matter_for_a_linear_reconstruction() -> None:
    maps, mask = _maps(), _mask()
    maker = MRINoise(1.0)
    maps_of = []
    for level in (0.0, 1e4):
        data = level * torch.ones(6, *SHAPE, dtype=torch.complex128)
        maps_of.append(
            pseudo_replica(
                _sense(maps, mask),
                lambda g, d=data: maker.simulate(d, mask, g),
                replicas=20,
                generator=torch.Generator().manual_seed(0),
            )
        )
    assert torch.allclose(*maps_of, rtol=1e-6)


def test_full_sampling_has_g_one() -> None:
    assert torch.allclose(g_factor(_maps(), torch.ones(SHAPE)), torch.ones(SHAPE, dtype=torch.float64), rtol=1e-9)
    assert float(g_factor(_maps(), _mask()).min()) > 1 - 1e-9


def test_two_pixels_that_fold_follow_pruessmann() -> None:
    """R = 2: with rho = sum_c conj(S_c(r)) S_c(r') of the pixels half a field of view apart,
    g^2 = (S^H S)_rr ((S^H S)^-1)_rr = 1 / (1 - |rho|^2 / (|S(r)|^2 |S(r')|^2)) (MRM 42 (1999) eq. 22)."""
    maps, mask = 3.7 * _maps(4), torch.zeros(SHAPE)
    for offset in (0, 1):
        mask = torch.zeros(SHAPE)
        mask[:, offset::2] = 1
        partner = maps.roll(SHAPE[1] // 2, -1)
        rho = (maps.conj() * partner).sum(0).abs().square()
        powers = maps.abs().square().sum(0) * partner.abs().square().sum(0)
        assert torch.allclose(g_factor(maps, mask), (1 / (1 - rho / powers)).sqrt(), rtol=1e-9)


def test_masks_of_lower_r_and_more_coils_have_lower_g() -> None:
    few, many = _maps(4, (6, 24)), _maps(12, (6, 24))
    masks = [equispaced_mask((6, 24), accel, 0, offset=0) for accel in (2, 3, 4)]
    means = [float(g_factor(many, m).mean()) for m in masks]
    assert means == sorted(means)
    assert float(g_factor(few, masks[1]).mean()) > means[1]


def test_outside_the_support_it_is_zero_and_does_not_fold() -> None:
    maps, mask = _maps(), torch.zeros(SHAPE)
    mask[:, ::2] = 1
    maps[:, :, 6:] = 0  # the partner of every pixel
    g = g_factor(maps, mask)
    assert float(g[:, 6:].abs().max()) == 0 and torch.allclose(g[:, :6], torch.ones(10, 6).double())
    maps[:, 2] = 0
    assert float(sense_noise(maps, mask)[2].abs().max()) == 0


def test_refusals() -> None:
    with pytest.raises(ValueError, match="undetermined"):
        sense_noise(_maps(2), equispaced_mask(SHAPE, 4, 0, offset=0))
    with pytest.raises(ValueError, match="pseudo_replica"):
        sense_noise(torch.ones(1, 80, 80, dtype=torch.complex64), torch.eye(80))
    with pytest.raises(ValueError, match=r"maps \(C, H, W\)"):
        sense_noise(_maps(), torch.ones(3, 3))
    with pytest.raises(ValueError, match="at least 2"):
        pseudo_replica(lambda y: y, lambda g: torch.zeros(2), replicas=1, generator=torch.Generator())
