"""A prior seen in other units and in a mirror: what it says of an image does not change."""

from dataclasses import replace

import pytest
import torch

from medrecon.models.exact.gaussian import IdentityAutoencoder, smooth_gaussian
from medrecon.models.prior import Prior
from medrecon.models.values import Asinh, Linear, ValueMap


def make(values: ValueMap, shape: tuple[int, int] = (4, 6)) -> Prior:
    return Prior(IdentityAutoencoder(), smooth_gaussian((1, *shape)), values, "HU", "CT", error=20.0)


@pytest.mark.parametrize("values", [Asinh(), Linear(-1024.0, 3071.0)], ids=["asinh", "linear"])
@pytest.mark.parametrize("slopes", [(1.0,), (50_000.0,), (-3.0,), (50_000.0, 0.25)], ids=str)
def test_spread_is_the_derivative_of_the_image_by_the_network_value(
    values: ValueMap, slopes: tuple[float, ...]
) -> None:
    """|d decode / du| by autograd, whatever the units and however often they were changed."""
    prior = make(values)
    for slope in slopes:
        prior = prior.with_units(slope, -1000.0 / slope)
    hu = torch.linspace(-900, 1500, 24, dtype=torch.float64).reshape(1, 4, 6)
    x = (hu - prior.intercept) / prior.slope
    u = prior.network_values(x).requires_grad_()
    (slope,) = torch.autograd.grad(prior.decode(u[:, None], (4, 6)).sum(), u)
    torch.testing.assert_close(prior.spread(x), slope.abs())
    torch.testing.assert_close(prior.decode(prior.encode(x), (4, 6)), x)


def test_units_compose_and_the_error_follows() -> None:
    """HU = 2 (10 v + 3) - 1000 = 20 v - 994; an error of 20 HU is one of 1 there."""
    prior = make(Asinh()).with_units(2.0, -1000.0).with_units(10.0, 3.0)
    assert (prior.slope, prior.intercept, prior.error) == (20.0, -994.0, 1.0)
    assert make(Asinh()).with_units(-2.0).error == 10.0


def test_phase_is_taken_off_and_put_back() -> None:
    prior = replace(make(Linear(0.0, 2.0)), modality="MR")
    magnitude = torch.linspace(0, 2, 24, dtype=torch.float64).reshape(1, 4, 6)
    phase = torch.polar(torch.ones_like(magnitude), torch.linspace(-3, 3, 24, dtype=torch.float64).reshape(1, 4, 6))
    x = prior.with_phase(phase)
    torch.testing.assert_close(x.network_values(magnitude * phase), magnitude - 1)
    torch.testing.assert_close(x.decode(x.encode(magnitude * phase), (4, 6)), magnitude * phase)


def test_a_mirror_is_seen_by_the_network_alone() -> None:
    prior = make(Linear(-1.0, 1.0))
    x = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(1, 4, 6)
    mirrored = prior.mirrored()
    torch.testing.assert_close(mirrored.encode(x), prior.encode(x).flip(-1))
    torch.testing.assert_close(mirrored.decode(mirrored.encode(x), (4, 6)), x)
    assert torch.equal(mirrored.mirrored().encode(x), prior.encode(x))
