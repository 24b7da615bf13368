"""The latent space of several trajectories: views in a mirror, phases and maps of each slice, counts, gradients."""

import pytest
import torch

from medrecon.coils.combine import birdcage_maps
from medrecon.core.measurement import Measurement
from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.latent import LatentSpace
from medrecon.models.exact.gaussian import IdentityAutoencoder, smooth_gaussian
from medrecon.models.networks.pixel_space import PixelSpace
from medrecon.models.prior import Prior
from medrecon.models.values import Asinh, Linear
from medrecon.operators.algebra import Diagonal
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.operators.repeated import Repeated
from medrecon.solvers.diffusion.base import example_prior

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = (8, 11)


def slices(generator: torch.Generator) -> tuple[CartesianMRI, Measurement, Prior, torch.Tensor]:
    """Two slices, each with coil maps, mask and phase of its own, and images."""
    maps = torch.stack([birdcage_maps(3, SHAPE, generator) for _ in range(2)])
    mask = (torch.rand(2, *SHAPE[1:], generator=generator) < 0.6).float()[:, None].expand(2, *SHAPE)
    A = CartesianMRI(maps, mask)
    phase = torch.polar(torch.ones(2, *SHAPE), torch.randn(2, *SHAPE, generator=generator))
    x = torch.randn(2, *SHAPE, generator=generator) * phase
    y = Measurement(A(x), (mask[:, None] * torch.tensor([4.0, 9.0]).view(2, 1, 1, 1)).expand(2, *A.out_shape))
    prior = Prior(IdentityAutoencoder(), smooth_gaussian((1, *SHAPE)), Linear(-1.0, 1.0), "a.u.", "MR", error=0.0)
    return A, y, prior.with_phase(phase), x


def test_trajectories_in_one_batch_are_trajectories_one_by_one(generator: torch.Generator) -> None:
    A, y, prior, x = slices(generator)
    space, mirror = LatentSpace(prior, A, y), torch.tensor([False, True, True])
    every = space.repeated(3, mirror)
    images = torch.cat([x, 2 * x, 3 * x])
    z = every.encode(images)
    for k, part in enumerate(z.split(2)):
        one = LatentSpace(prior.mirrored() if mirror[k] else prior, A, y)
        torch.testing.assert_close(part, one.encode((k + 1) * x))
        torch.testing.assert_close(every.decode(z)[2 * k : 2 * k + 2], one.decode(part))
        variance = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(k))
        torch.testing.assert_close(
            every.over_pixels(variance.repeat(3, 1, 1))[2 * k : 2 * k + 2], one.over_pixels(variance)
        )
    assert not torch.allclose(z[:2] * 2, z[2:4])  # the second is in a mirror
    torch.testing.assert_close(prior.mirrored().mirrored().encode(x), prior.encode(x))


def test_calls_are_counted_for_each_item_of_the_batch(generator: torch.Generator) -> None:
    A, y, prior, x = slices(generator)
    space = LatentSpace(prior, A, y)
    every = space.repeated(3)
    z = every.encode(x.repeat(3, 1, 1))
    every.denoise(z, 0.5)
    space.decode(space.encode(x))
    assert vars(space.calls) == {"denoiser": 3, "encoder": 4, "decoder": 1}
    every.carried(z, x.repeat(3, 1, 1), x.repeat(3, 1, 1))
    assert space.calls.encoder == 4 + 2 * 3


@pytest.mark.parametrize("tau", [0.2, "an item", "a pixel"])
def test_data_consistency_of_trajectories_is_that_of_each(tau: float | str, generator: torch.Generator) -> None:
    A, y, _, x = slices(generator)
    data = DataConsistency(A, y, iterations=60, tolerance=1e-7)
    every = data.repeated(3)
    v = x.repeat(3, 1, 1) + torch.randn(6, *SHAPE, generator=generator)
    given = {"an item": torch.rand(6, generator=generator), "a pixel": torch.rand(v.shape, generator=generator)}
    at = tau if isinstance(tau, float) else given[tau]
    found, chi2 = every.prox(v, at), every.chi2(every.A(v))
    deviation = every.deviation(every.A(v), torch.ones_like(v.real))
    for part in (slice(0, 2), slice(2, 4), slice(4, 6)):
        own = at if isinstance(at, float) else at[part]
        torch.testing.assert_close(found[part], data.prox(v[part], own), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(chi2[part], data.chi2(A(v[part])))
        torch.testing.assert_close(deviation[part], data.deviation(A(v[part]), torch.ones_like(v[part].real)))
        torch.testing.assert_close(every.gradient(v)[part], data.gradient(v[part]))


def test_a_white_error_is_left_to_the_operators_own_prox(generator: torch.Generator) -> None:
    """One precision an item: the closed form, the same as CG to its tolerance; an item with tau = 0 stays."""
    A, y, _, x = slices(generator)
    calls = []

    class Watched(CartesianMRI):
        def prox(self, *args, **kw):
            calls.append(kw)
            return super().prox(*args, **kw)

    data = DataConsistency(Watched(A.maps, A.mask), y, iterations=100, tolerance=1e-7)
    v, tau = x + torch.randn(x.shape, generator=generator), torch.tensor([0.3, 0.0])
    found = data.prox(v, tau)
    assert len(calls) == 1
    torch.testing.assert_close(found, data.prox(v, tau.view(2, 1, 1).expand(v.shape)), rtol=1e-4, atol=1e-4)
    assert torch.equal(found[1], v[1]) and not torch.allclose(found[0], v[0], atol=1e-2)
    uneven = Measurement(y.data, y.precision * (1 + torch.rand(y.precision.shape, generator=generator)))
    other = DataConsistency(Watched(A.maps, A.mask), uneven, iterations=100, tolerance=1e-7)
    torch.testing.assert_close(other.prox(v, 0.3), other.prox(v, torch.full(v.shape, 0.3)))
    assert len(calls) == 1  # no closed form: precision differs from sample to sample


def test_one_item_several_times_over_runs_at_once() -> None:
    calls = []

    class Counted(Diagonal):
        def _forward(self, x):
            calls.append(len(x))
            return super()._forward(x)

    A = Repeated(Counted(torch.ones(3, 4)), 5)
    A(torch.ones(5, 3, 4))
    assert calls == [5]
    A(torch.ones(10, 3, 4))
    assert calls == [5, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("kind", ["pixels", "folded", "complex"])
def test_pulled_is_the_gradient_through_both_networks(kind: str, generator: torch.Generator) -> None:
    """d/dz of <v, D(denoise(z))> by finite differences, in image units and with a curved value map."""
    values, shape = Asinh() if kind == "folded" else Linear(-1.0, 1.0), (8, 8)
    if kind == "complex":
        prior = Prior(IdentityAutoencoder(complex=True), smooth_gaussian((2, *shape)), values, "a.u.", "MR", error=0.0)
        A = Diagonal(torch.ones(shape, dtype=torch.complex128))
    else:
        space = PixelSpace(4).double() if kind == "folded" else IdentityAutoencoder()
        net = smooth_gaussian((16, 2, 2)) if kind == "folded" else example_prior(shape).denoiser
        prior, A = Prior(space, net, values, "HU", "CT", error=0.0), Diagonal(torch.ones(shape, dtype=torch.float64))
    data = torch.zeros(2, *shape, dtype=A.in_dtype)
    latent = LatentSpace(prior.with_units(2.0), A, Measurement(data, torch.ones(1, 1, 1)))
    z = 0.3 * torch.randn(latent.encode(data).shape, generator=generator, dtype=torch.float64)
    v = torch.randn(data.shape, generator=generator, dtype=A.in_dtype)
    clean, x, back = latent.pulled(z, 0.4)
    assert not x.requires_grad and torch.equal(x, latent.decode(clean))
    direction = torch.randn(z.shape, generator=generator, dtype=torch.float64)
    image = lambda h: latent.decode(latent.denoise(z + h * direction, 0.4))  # noqa: E731
    slope = (v.conj() * (image(1e-4) - image(-1e-4))).real.flatten(1).sum(1) / 2e-4
    torch.testing.assert_close((back(v) * direction).flatten(1).sum(1), slope, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(back(2 * v), 2 * back(v))  # as often as one likes
