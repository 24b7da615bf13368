"""Image and artefact together: exact where both are Gaussian, artefacts found where there are some, none where not."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import pytest
import torch
from gaussian_problems import rms
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.artefact import KINDS, Artefact, rings, spikes, zipper
from medrecon.geometry import ImageGrid, ParallelGeometry
from medrecon.models.exact.gaussian import GaussianPrior
from medrecon.models.prior import Prior
from medrecon.numerics.outliers import spike_and_slab
from medrecon.operators.algebra import Diagonal
from medrecon.operators.artefacts import WhiteningOf
from medrecon.operators.base import LinearOperator
from medrecon.operators.ct.operator import CTOperator
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.solvers.base import Solution
from medrecon.solvers.diffusion.base import example_prior
from medrecon.solvers.diffusion.gradient.mmps import MMPS
from medrecon.solvers.diffusion.proximal.joint import Joint, jointly

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE, NOISE, SCALE, SAMPLES = 6, 1.0, 2.0, 256


class Twin(NamedTuple):
    """A sum of two Gaussians: exact mean and deviation of the image and of the artefact."""

    prior: Prior
    artefact: Artefact
    A: LinearOperator
    y: Measurement
    image: tuple[Tensor, Tensor]
    h: tuple[Tensor, Tensor]


def matrix(A: LinearOperator) -> Tensor:
    basis = torch.eye(math.prod(A.in_shape)).reshape(-1, *A.in_shape).to(A.in_dtype)
    return A(basis).flatten(1).T.double()


@cache
def twin(kind: str) -> Twin:
    """Few views of a small Gaussian image and offsets of the elements, or zingers, as large as its projections."""
    prior, g = example_prior((SIZE, SIZE)), torch.Generator().manual_seed(0)
    angles = tuple(math.pi * k / 5 for k in range(5))
    A = CTOperator(ParallelGeometry(angles, 9, 1.0), ImageGrid((SIZE, SIZE), (1.0, 1.0)))
    oracle = prior.denoiser
    assert isinstance(oracle, GaussianPrior)
    W = (0.5 + torch.rand((1, *A.out_shape), generator=g)) / NOISE**2
    blank = KINDS[kind](A, Measurement(torch.zeros(1, *A.out_shape), W))
    h = SCALE * torch.randn((1, *blank.C.in_shape), generator=g)
    noise = torch.randn((1, *A.out_shape), generator=g) / W.sqrt()
    y = Measurement(A(oracle.sample(1, g)[:, 0]) + blank.C(h) + noise, W)
    both, root = torch.cat([matrix(A), matrix(blank.C)], 1), W.flatten().double().sqrt()
    n, count = SIZE**2, h.numel()
    covariance = torch.block_diag(oracle.covariance, SCALE**2 * torch.eye(count, dtype=torch.float64))
    centre = torch.cat([oracle.mean, torch.zeros(count, dtype=torch.float64)])
    pair = GaussianPrior(centre, covariance, (1, 1, n + count))
    mean, cov = pair.posterior(root[:, None] * both, root * y.data.flatten(), 1.0)
    mean, deviation = mean.float(), cov.diag().sqrt().float()
    image, artefact = ([part.reshape(shape) for part in (mean[of], deviation[of])] for of, shape in parts(n, blank))
    return Twin(prior, KINDS[kind](A, y), A, y, (image[0], image[1]), (artefact[0], artefact[1]))


def parts(n: int, artefact: Artefact) -> list[tuple[slice, tuple[int, ...]]]:
    return [(slice(n), (SIZE, SIZE)), (slice(n, None), artefact.C.in_shape)]


def solved(t: Twin, artefact: Artefact | None = None, scale: float = SCALE) -> Solution:
    method = MMPS(t.prior, steps=4, products=20, start=None, end=1e-3, samples=SAMPLES)
    g = torch.Generator().manual_seed(1)
    return jointly(method, artefact or t.artefact, t.A, t.y, generator=g, scale=scale)


def gaps(t: Twin, solution: Solution) -> list[float]:
    """Errors of the means over the posterior's deviation, and deviations over it, of the image and of the artefact."""
    told = solution.diagnostics
    found = ((solution.image[0], told["deviation"][0]), (told["artefact"][0], told["artefact_deviation"][0]))
    pairs = list(zip(found, (t.image, t.h), strict=True))
    return [rms(a[0] - b[0]) / rms(b[1]) for a, b in pairs] + [rms(a[1]) / rms(b[1]) for a, b in pairs]


def exact(found: list[float]) -> bool:
    """256 samples leave 0.06 to chance."""
    return max(found[:2]) < 0.13 and all(0.95 < ratio < 1.05 for ratio in found[2:])


@pytest.mark.parametrize("kind", ["rings", "spikes"])
def test_a_sum_of_two_gaussians_is_sampled_exactly(kind: str) -> None:
    t = twin(kind)
    found = gaps(t, solved(t))
    assert exact(found), found


class Mutant(Artefact):
    """Each is one thing wrong."""


class Ignored(Mutant):
    def marginal(self, A: LinearOperator, S: Tensor) -> tuple[LinearOperator, Measurement]:
        return super().marginal(A, 0 * S)


class Unshrunk(Mutant):
    def posterior(self, residual: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:
        return self.found(residual), super().posterior(residual, S)[1]


class Independent(Mutant):
    """Takes an offset for noise of its size, another in every view."""

    def marginal(self, A: LinearOperator, S: Tensor) -> tuple[LinearOperator, Measurement]:
        W = self.precision
        return A, Measurement(self.y.data, W / (1 + S[:, None] * W))


@pytest.mark.parametrize(("mutant", "kind"), [(Ignored, "rings"), (Unshrunk, "spikes"), (Independent, "rings")])
def test_a_wrong_joint_model_fails(mutant: type[Artefact], kind: str) -> None:
    t = twin(kind)
    a = t.artefact
    found = gaps(t, solved(t, mutant(a.C, a.y, a.precision, a.information, a.shared, a.dense)))
    assert not exact(found), found


@pytest.mark.parametrize("of", list(WhiteningOf.examples()))
def test_whitening_is_that_of_the_covariance(of: WhiteningOf) -> None:
    """D (W^-1 + C S C^H) D^H = 1, written out."""
    single = of.C.in_dtype.to_complex() if of.C.in_dtype.is_complex else of.C.in_dtype
    g = torch.Generator().manual_seed(1)
    W, S = 0.5 + torch.rand((1, *of.out_shape), generator=g), torch.rand((1, *of.C.in_shape), generator=g)
    if of.C.in_dtype.is_complex:
        W = W[..., :1, :].expand(W.shape) if of.C.readout == -2 else W[..., :1].expand(W.shape)  # type: ignore[attr-defined]
        information = W
    else:
        information = W.sum(1)
    D, C = dense(WhiteningOf(of.C, W, S, information)), dense(of.C)
    covariance = torch.diag(1 / W.flatten()).to(single) + C @ torch.diag(S.flatten()).to(single) @ C.mH
    assert torch.allclose(D @ covariance @ D.mH, torch.eye(len(D), dtype=single), atol=1e-4)


def dense(A: LinearOperator) -> Tensor:
    basis = torch.eye(math.prod(A.in_shape)).reshape(-1, *A.in_shape).to(A.in_dtype)
    return A(basis).flatten(1).T


def sinogram(elements: int = 400, noise: float = 0.01) -> tuple[Artefact, torch.Generator]:
    views, g = 60, torch.Generator().manual_seed(0)
    A = Diagonal(torch.ones(views, elements))
    return rings(A, Measurement(torch.zeros(1, views, elements), torch.full((1, 1, 1), noise**-2))), g


def test_rings_have_the_size_that_they_have() -> None:
    """Gains of 0.01 in all elements and 0.2 in five of a hundred, read off data of noise and a smooth object."""
    artefact, g = sinogram()
    few = torch.rand(400, generator=g) < 0.05
    h = 0.01 * torch.randn(400, generator=g) + 0.2 * few * torch.randn(400, generator=g)
    noise = 0.01 * torch.randn((1, 60, 400), generator=g)
    slope = torch.sin(torch.arange(400.0) / 40)
    residual = artefact.C(h[None]) + noise + slope
    S = artefact.variance(residual)
    small = S[0, ~few].median().sqrt()
    assert 0.008 < small < 0.014, small
    strong = S[0, few & (h.abs() > 0.1)].sqrt()
    assert bool(((0.12 < strong) & (strong < 0.3)).all()), strong
    mean, deviation = artefact.posterior(residual - slope, S)
    assert rms(mean[0] - h) < 0.15 * rms(h) and 0.8 < rms((mean[0] - h) / deviation[0]) < 1.25


def test_what_is_smooth_over_the_elements_is_left_to_the_object() -> None:
    """An offset of all elements, the object's mean over the views, noise: no rings."""
    artefact, g = sinogram()
    noise = 0.01 * torch.randn((2, 60, 400), generator=g)
    smooth = torch.stack([torch.full((400,), 0.3), torch.linspace(-1, 1, 400) ** 2])
    S = artefact.variance(noise + smooth[:, None])
    assert float(S.max()) < 0.5 * 0.01**2 / 60


def kspace(lines: int = 4) -> tuple[CartesianMRI, Measurement, torch.Generator]:
    g, shape = torch.Generator().manual_seed(0), (48, 40)
    mask = (torch.arange(40) % lines == 0).float().expand(shape)
    A = CartesianMRI(torch.ones((2, *shape), dtype=torch.complex64), mask)
    noise = torch.randn((1, *A.out_shape), dtype=torch.complex64, generator=g) * mask
    return A, Measurement(noise, mask.expand(1, *A.out_shape)), g


def test_noise_alone_has_no_spikes_and_no_zipper() -> None:
    A, y, g = kspace()
    swell = torch.exp(-((torch.arange(48.0)[:, None] - 24) ** 2 + (torch.arange(40.0) - 20) ** 2) / 200)
    for kind in (spikes, zipper):
        artefact = kind(A, y)
        assert float(artefact.variance(y.data).max()) == 0
        left, same = artefact.marginal(A, artefact.variance(y.data))
        assert torch.allclose(same.chi2(left(torch.zeros(1, *A.in_shape, dtype=torch.complex64))), y.chi2(0 * y.data))
    assert float(spikes(A, y).variance(y.data * (1 + 5 * swell)).max()) == 0, "what the image still lacks"


def test_spikes_and_zippers_are_found_where_they_are() -> None:
    A, y, g = kspace()
    hit = torch.zeros(48, 40)
    hit[5, 4] = hit[30, 20] = hit[40, 36] = 1
    artefact = spikes(A, y)
    S = artefact.variance(y.data + 30 * hit * torch.randn(1, 2, 48, 40, dtype=torch.complex64, generator=g))
    assert torch.equal(S[0, 0] > 0, hit > 0) and bool((S[:, :, hit > 0] > 30).all())
    artefact = zipper(A, y)
    h = torch.zeros(1, 2, 48, 40, dtype=torch.complex64)
    h[:, :, 17] = 10 * torch.randn(1, 2, 40, dtype=torch.complex64, generator=g)
    tone = artefact.C(h) * (y.precision > 0)
    S = artefact.variance(y.data + tone)
    assert (S[0, 0, :, 0] > 0).nonzero().flatten().tolist() == [17]
    found, _ = artefact.posterior(y.data + tone, S)
    seen = y.precision > 0
    assert rms(((found - h) * seen).abs()) < 0.12 * rms((h * seen).abs())


def test_the_peak_of_k_space_is_no_spike_and_a_spike_is() -> None:
    """Read off the data themselves, before there is an image."""
    A, y, _ = kspace(1)
    rows, columns = torch.meshgrid(torch.arange(48.0) - 24, torch.arange(40.0) - 20, indexing="ij")
    data = y.data + A(60 * ((rows / 17) ** 2 + (columns / 13) ** 2 < 1).to(torch.complex64)[None])
    for kind in (spikes, zipper):
        assert float(kind(A, y).variance(data, first=True).max()) == 0, kind
    data[:, :, 8, 9] += 200
    S = spikes(A, y).variance(data, first=True)
    assert (S[0, 0] > 0).nonzero().tolist() == [[8, 9]]


def test_spike_and_slab_is_the_most_likely() -> None:
    """No share and variance on a grid are more likely, and those the values were drawn of are found."""
    g = torch.Generator().manual_seed(0)
    outlier = torch.rand((1, 3000), generator=g) < 0.05
    q = ((1 + 99 * outlier) * torch.randn((1, 3000), generator=g) ** 2).double()
    chance, slab = spike_and_slab(q, torch.ones(1, 1), torch.ones(1, 1))
    share = float(chance.mean())

    def likelihood(share: float, slab: float) -> float:
        parts = [w * torch.exp(-q / (2 * v)) / v**0.5 for w, v in ((1 - share, 1.0), (share, 1 + slab))]
        return float(sum(parts).log().sum())  # type: ignore[union-attr]

    best = max(likelihood(s, v) for s in (0.03, 0.04, 0.05, 0.06, 0.07) for v in (60.0, 80.0, 100.0, 120.0, 150.0))
    assert likelihood(share, float(slab)) > best - 0.5
    assert 0.04 < share < 0.06 and 75 < slab < 130


def test_a_batch_is_learned_item_by_item() -> None:
    artefact, g = sinogram()
    residual = artefact.C(torch.randn((2, 400), generator=g) * torch.tensor([[0.0], [0.05]]))
    residual = residual + 0.01 * torch.randn(residual.shape, generator=g)
    both = artefact.variance(residual)
    assert torch.equal(both, torch.cat([artefact.variance(r[None]) for r in residual]))
    assert float(both[0].median()) < 1e-5 < float(both[1].median())


def test_what_has_no_such_artefact_is_refused() -> None:
    A, y, _ = kspace()
    with pytest.raises(ValueError, match="rings are of sinograms"):
        rings(A, y)
    with pytest.raises(ValueError, match="whole readouts"):
        zipper(A, Measurement(y.data, y.precision * torch.rand(y.precision.shape)))
    with pytest.raises(ValueError, match="Cartesian k-space"):
        zipper(*(Diagonal(torch.ones(4, 5)), Measurement(torch.ones(1, 4, 5), torch.ones(1, 1, 1))))
    for settings, match in (
        ({"artefact": "streaks"}, "unknown artefact"),
        ({"method": "tv"}, "unknown method"),
        ({"scale": 0.0}, "scale > 0"),
        ({"method": "resample", "samples": 4}, "draws no samples"),
    ):
        with pytest.raises(ValueError, match=match):
            Joint(example_prior(), **settings)  # type: ignore[arg-type]
