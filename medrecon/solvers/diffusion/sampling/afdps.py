"""AFDPS: an ensemble of weighted particles that samples the posterior, whatever guides them (arXiv 2506.03979)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.draw import Draw
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.latent import LatentSpace
from medrecon.diffusion.samplers.base import Sampler
from medrecon.numerics.linalg import summed
from medrecon.operators.base import LinearOperator
from medrecon.solvers.diffusion.base import Task, example_prior
from medrecon.solvers.diffusion.posterior import SampledSolver


@dataclass(frozen=True, eq=False)
class PotentialGuide(Guide):
    """D(z) as `clean`, D(z) - sigma^2 grad U as `target` and -U as log weight.

    U is -log p(y | z), z taken for the image to gamma sigma: half of min_x |W^(1/2) (A x - y)|^2 +
    |(x - z) / (gamma sigma)|^2. Where A has singular values 0 and 1 that is the published
    |A z - y|^2 / (2 sigma_y^2 + 2 gamma^2 sigma^2); elsewhere its gradient is as long for all that is seen, so that no
    step is too long for it.
    """

    space: LatentSpace
    data: DataConsistency
    deviation: Tensor
    """of the image at noise level 1, (N,)"""
    gamma: float

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        clean, v, tau = self.space.denoise(z, sigma), self.space.decode(z), self.gamma * sigma * self.deviation
        x = self.data.prox(v, tau)
        misfit = self.data.chi2(self.data.A(x)) * self.data.y.measured
        moved = summed((x - v).abs().double().square().flatten(1), 1) / tau.square()
        target = clean + (self.space.carried(z, v, x) - z) / self.gamma**2
        return Estimate(clean, target, self.space.decode(clean), sigma, -self.data.parts / 2 * (misfit + moved))


@dataclass(frozen=True)
class Particles(Sampler):
    """Ancestral steps with `target` in place of `clean`, weighted so that they sample what steps with `clean` would,
    times exp(log weight of the guide). Trajectories of little weight die for those of much; at the end all weigh alike.

    A step costs the ratio of the Gaussians that it may be from, N(m, s^2) and N(m + d, s^2). To first order in its
    length the logarithm of that is d log w of the paper. It holds for long steps too, and needs no Laplacian.
    """

    least: float
    """effective share of the particles below which they are resampled"""

    draws: ClassVar[int] = 2

    def step(
        self, guide: Guide, z: Tensor, sigma: float, sigma_next: float, before: Estimate | None, draw: Draw
    ) -> tuple[Tensor, Estimate]:
        estimate, chance = guide(z, sigma), torch.special.ndtr(draw(z.flatten(1)[:, :1]).double())
        assert estimate.image is not None and estimate.log_weight is not None
        potential, owed = estimate.log_weight, None if before is None else before.log_weight
        owed = torch.zeros_like(potential) if owed is None else owed
        weights, offset = (v.view(draw.trajectories, -1) for v in (potential + owed, chance))
        few = effective(weights) < (self.least if sigma_next else 2)
        items = torch.arange(len(z), device=z.device).view(weights.shape)
        index = torch.where(few, items.gather(0, survivors(weights, offset[0])), items).flatten()
        z, clean, target, image, potential = (
            v[index] for v in (z, estimate.clean, estimate.target, estimate.image, potential)
        )
        if sigma_next == 0:
            return target, Estimate(clean, target, image, sigma, potential)
        owed = torch.where(few.repeat(len(weights)), -potential, owed)
        ratio = (sigma_next / sigma) ** 2
        spread, shift, n = sigma_next * (1 - ratio) ** 0.5, (1 - ratio) * (target - clean), draw(z)
        moved = clean + ratio * (z - clean) + shift + spread * n
        gain = -summed(((shift / spread + n).double().square() - n.double().square()).flatten(1), 1) / 2
        return moved, Estimate(clean, target, image, sigma, owed + gain)


def effective(log_weight: Tensor) -> Tensor:
    """Return the effective share (B,) of particles with log weights (K, B)."""
    return 1 / log_weight.softmax(0).square().sum(0) / len(log_weight)


def survivors(log_weight: Tensor, offset: Tensor) -> Tensor:
    """Return which of K particles live on, (K, B), by systematic resampling: one offset in (0, 1) an item (B,)."""
    K = len(log_weight)
    ticks = (torch.arange(K, device=offset.device) + offset[:, None]) / K
    return torch.searchsorted(log_weight.softmax(0).T.cumsum(1).contiguous(), ticks).clamp_max(K - 1).T


@dataclass(frozen=True, eq=False)
class AFDPS(SampledSolver):
    """Every step: denoise, go on guided by the data, weigh what came of it, resample where few carry all the weight.

    With many particles, and levels that lie close, that samples the posterior itself: the only one of these solvers
    that does for any prior. How many are many grows fast with the number of samples measured and their precision; of a
    slice at usual noise a few particles all descend from one, and it is a guided sampler among others.

    Raises:
        ValueError: gamma not positive, or least not from 0 to 1; or what `SampledSolver` refuses.
    """

    samples: int = 8
    """particles"""
    gamma: float = 1.0
    """of the noisy image's own noise, how much the likelihood counts as its error: less pulls harder, and early"""
    least: float = 0.5
    """effective share of the particles below which they are resampled, the published value"""
    cg_iterations: int = 15
    """of the potential, where the operator knows no closed form"""

    name: ClassVar[str] = "afdps"
    summary: ClassVar[str] = "weighted particles: guided, weighed and resampled, exact for many of them"
    slow: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gamma <= 0 or not 0 <= self.least <= 1:
            raise ValueError(f"AFDPS: expected gamma > 0 and least from 0 to 1, got {self.gamma}, {self.least}")

    def stepper(self) -> Particles:
        return Particles(self.least)

    def consistency(self, A: LinearOperator, y: Measurement) -> DataConsistency:
        return DataConsistency(A, y, self.cg_iterations)

    def guide(self, task: Task) -> PotentialGuide:
        return PotentialGuide(task.space, task.data, self.deviation(task), self.gamma)

    @classmethod
    def examples(cls) -> Iterator[AFDPS]:
        yield cls(example_prior(), steps=4, samples=3)
