"""Gaussian problems whose posterior is known exactly, and how far a solver is from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.reverse import reverse
from medrecon.models.exact.gaussian import GaussianPrior
from medrecon.models.prior import Prior
from medrecon.operators.algebra import Diagonal
from medrecon.solvers.base import Solver
from medrecon.solvers.diffusion.base import LevelSolver, example_prior

SIZE, NOISE, SEEN = 16, 0.05, 0.4
SLICES, ALONG = 4, 0.98
"""Of a stack, and the correlation of neighbours in it."""


@dataclass(frozen=True, eq=False)
class Oracle:
    """Pixels of a smooth Gaussian, some seen with noise, as `count` items that share their data."""

    prior: Prior
    A: Diagonal
    y: Measurement
    mean: Tensor
    deviation: Tensor

    @classmethod
    def draw(cls, seed: int) -> Oracle:
        prior, g = example_prior((SIZE, SIZE)), torch.Generator().manual_seed(seed)
        exact = prior.denoiser
        assert isinstance(exact, GaussianPrior)
        mask = (torch.rand(SIZE, SIZE, generator=g) < SEEN).float()
        truth = exact.sample(1, g)[:, 0]
        data = mask * (truth + NOISE * torch.randn(truth.shape, generator=g))
        seen = mask.flatten().bool()
        mean, covariance = exact.posterior(torch.eye(SIZE**2)[seen], data.flatten()[seen], NOISE)
        square = lambda v: v.reshape(SIZE, SIZE).float()  # noqa: E731
        y = Measurement(data, (mask / NOISE**2)[None])
        return cls(prior, Diagonal(mask), y, square(mean), square(covariance.diag().sqrt()))

    def errors(self, solver: LevelSolver, samples: int) -> tuple[float, float, float]:
        """Return |mean of the samples - mean| and the samples' deviation, both over the posterior's (rms of pixels),
        and the denoiser calls of a sample."""
        runs = [self.run(solver, k) for k in range(samples // solver.copies())]
        x = torch.cat([ends for ends, _ in runs])
        scale = self.deviation.square().mean().sqrt()
        centre = (x.mean(0) - self.mean).square().mean().sqrt() / scale
        return float(centre), float(x.var(0).mean().sqrt() / scale), runs[0][1]

    def run(self, solver: LevelSolver, seed: int) -> tuple[Tensor, float]:
        """Return the trajectories' ends (K, H, W), before they are averaged, and the denoiser calls of each."""
        with torch.no_grad():
            run = solver.prepare(self.A, self.y, generator=torch.Generator().manual_seed(seed))
            end = reverse(run.guide, run.sampler, run.sigmas, run.draw, run.start).before
        assert end is not None and end.image is not None
        return end.image, run.space.calls.denoiser / len(end.image)

    def point(self, solver: Solver) -> tuple[float, int]:
        """Return |image - mean| over the posterior's deviation, and the denoiser calls."""
        solved = solver(self.A, self.y, generator=torch.Generator().manual_seed(0))
        error = (solved.image[0] - self.mean).square().mean().sqrt() / self.deviation.square().mean().sqrt()
        return float(error), solved.diagnostics["network_calls"]["denoiser"]


@dataclass(frozen=True, eq=False)
class StackOracle:
    """Slices of a smooth Gaussian that are correlated with their neighbours, pixels of each seen with noise."""

    prior: Prior
    y: Measurement
    mean: Tensor
    deviation: Tensor

    @classmethod
    def draw(cls, seed: int, *, alike: bool) -> StackOracle:
        """Return a stack; of which pixels `alike` in all slices are seen, or others in each."""
        prior, g = example_prior((SIZE, SIZE)), torch.Generator().manual_seed(seed)
        exact = prior.denoiser
        assert isinstance(exact, GaussianPrior)
        along = ALONG ** (torch.arange(SLICES)[:, None] - torch.arange(SLICES)).abs().double()
        joint = GaussianPrior(exact.mean.repeat(SLICES), torch.kron(along, exact.covariance), (SLICES, SIZE, SIZE))
        truth = joint.sample(1, g)[0]
        mask = torch.rand(1 if alike else SLICES, SIZE, SIZE, generator=g) < SEEN
        mask = mask.float().expand(truth.shape).contiguous()
        data, seen = mask * (truth + NOISE * torch.randn(truth.shape, generator=g)), mask.flatten().bool()
        mean, covariance = joint.posterior(torch.eye(len(seen))[seen], data.flatten()[seen], NOISE)
        scale = covariance.diag().mean().sqrt()
        return cls(prior, Measurement(data, mask / NOISE**2), mean.reshape(truth.shape), scale)

    def error(self, solver: Solver, runs: int = 4) -> float:
        """Return |mean of some runs - mean| over the posterior's deviation."""
        A, g = Diagonal(torch.ones(SIZE, SIZE)), torch.Generator()
        x = torch.stack([solver(A, self.y, generator=g.manual_seed(k)).image for k in range(runs)]).mean(0)
        return float((x - self.mean).square().mean().sqrt() / self.deviation)
