"""Dose reduction by noise insertion against scans that were made at the lower dose."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from medrecon.core.noise import CTNoise
from medrecon.core.volume import Volume
from medrecon.geometry import Cartesian
from medrecon.simulate import simulate_ct
from medrecon.simulate.dose import insert_noise, reduce_dose

DRAWS = 100_000
# Counts at full dose 1e5 .. 91; at a tenth 1e4 .. 9, below the electronic noise of 10: photon-starved.
LEVELS = torch.tensor([0.0, 1.0, 3.0, 5.0, 6.0, 7.0])


def moments(p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean and variance over draws, and the standard error of the variance (heavy tails included)."""
    p = p.double()
    centred = (p - p.mean(0)).square()
    return p.mean(0), centred.mean(0), centred.std(0) / math.sqrt(len(p))


@pytest.mark.parametrize("fraction", [0.5, 0.25, 0.1])
@pytest.mark.parametrize("sigma_e", [0.0, 10.0])
def test_the_same_mean_and_variance_as_a_scan_at_that_dose(
    sigma_e: float, fraction: float, generator: torch.Generator
) -> None:
    full = CTNoise(1e5, sigma_e)
    low = replace(full, i0=fraction * 1e5)
    clean = LEVELS.expand(DRAWS, -1)
    got = moments(insert_noise(full.simulate(clean, generator), full, fraction, generator))
    want = moments(low.simulate(clean, generator))
    error = (got[2].square() + want[2].square()).sqrt()
    # Beyond the statistical error, 2 % where hardly a photon arrives: higher moments than the second may differ.
    assert bool(((got[1] - want[1]).abs() < 5 * error + 0.02 * want[1] * (LEVELS > 5)).all())
    standard_error = ((got[1] + want[1]) / DRAWS).sqrt()
    assert bool(((got[0] - want[0]).abs() < 5 * standard_error + 0.02 * want[1].sqrt() * (LEVELS > 5)).all())


def test_without_the_electronic_share_it_would_fail(generator: torch.Generator) -> None:
    """Negative control: binomial thinning alone lowers the electronic noise with the dose."""
    full, clean = CTNoise(1e5, 10.0), LEVELS[3:5].expand(DRAWS, -1)
    thinned = insert_noise(full.simulate(clean, generator), replace(full, sigma_e=0.0), 0.25, generator)
    got, want = moments(thinned), moments(replace(full, i0=2.5e4).simulate(clean, generator))
    assert bool((got[1] < 0.9 * want[1]).all())


def test_noise_is_not_correlated_with_the_place(generator: torch.Generator) -> None:
    full = CTNoise(1e5, 10.0)
    noise = insert_noise(torch.full((300, 400), 2.0), full, 0.5, generator) - 2.0
    assert abs(float((noise[:, 1:] * noise[:, :-1]).mean() / noise.var())) < 0.02


def test_full_dose_changes_nothing_and_input_stays(generator: torch.Generator) -> None:
    p = CTNoise(1e4, 10.0).simulate(torch.rand(2, 20, 30), generator)
    before = p.clone()
    same = insert_noise(p, CTNoise(1e4, 10.0), 1.0, generator)
    assert torch.equal(same, p) and same is not p
    lower = insert_noise(p, CTNoise(1e4, 10.0), 0.5, generator)
    assert torch.equal(p, before) and lower.dtype == p.dtype and bool(lower.isfinite().all())


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.01, math.nan, math.inf])
def test_dose_cannot_be_added(fraction: float, generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="fraction"):
        insert_noise(torch.zeros(3, 4), CTNoise(1e4), fraction, generator)


def test_a_scan_carries_its_new_dose(disc_volume: Callable[..., Volume], generator: torch.Generator) -> None:
    scan = simulate_ct(disc_volume("CT"), views=12, tube_current="attenuation", size=32, generator=generator)
    low = reduce_dose(reduce_dose(scan, 0.5, generator), 0.5, generator)
    torch.testing.assert_close(low.noise.i0, scan.noise.i0 / 4)
    assert low.noise.sigma_e == scan.noise.sigma_e and low.provenance["dose_fraction"] == 0.25
    clean = simulate_ct(disc_volume("CT"), views=12, i0=1e13, sigma_e=0.0, size=32, generator=generator).data
    counts = low.noise.i0 * torch.exp(-clean.double())
    variance = (counts + low.noise.sigma_e**2) / counts.square()
    assert float(((low.data - clean).double().square() / variance).mean()) == pytest.approx(1, abs=0.08)
    with pytest.raises(ValueError, match="noise/i0"):
        reduce_dose(replace(scan, noise=None), 0.5, generator)
    kspace = torch.zeros(1, 1, 32, 32, dtype=torch.complex64)
    mri = replace(scan, modality="mri", units="a.u.", geometry=Cartesian(), noise=None, mu_water=None, data=kspace)
    with pytest.raises(ValueError, match="CT scan"):
        reduce_dose(mri, 0.5, generator)
