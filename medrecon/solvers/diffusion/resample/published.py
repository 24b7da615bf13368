"""What ReSample as published (arXiv 2307.08123, algorithm 1) and its reference code have in common.

Both run a variance-preserving process with deterministic DDIM steps; at every `skip`-th they look some steps ahead,
make the estimate found there consistent with the data by an optimiser, in pixels or in the latent, and go back to where
they were by stochastic resampling.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.draw import Draw
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.latent import LatentSpace
from medrecon.diffusion.process import Process
from medrecon.diffusion.reverse import State
from medrecon.diffusion.samplers.base import Sampler
from medrecon.models.adapters.discrete_vp import linear_beta_abar
from medrecon.numerics.linalg import expand
from medrecon.operators.base import LinearOperator
from medrecon.solvers.diffusion.base import DiffusionSolver, Run, Task

Stage = Literal["none", "pixel", "latent"]


def published_process() -> Process:
    """Return the variance-preserving process of latent diffusion in 1000 steps."""
    return Process.variance_preserving(linear_beta_abar())


def timesteps(steps: int, total: int = 1000) -> list[int]:
    """Return rising timesteps: 1, 1 + c, ... with c = total / steps, as published, where that is a whole number; else
    evenly from 1 to total - 1, since the process starts at pure noise.

    Raises:
        ValueError: fewer steps than 2, or not fewer than `total`.
    """
    if not 2 <= steps < total:
        raise ValueError(f"ReSample: expected 2 to {total - 1} steps, got {steps}")
    if total % steps == 0:
        return [i * (total // steps) + 1 for i in range(steps)]
    return [1 + round(i * (total - 2) / (steps - 1)) for i in range(steps)]


def stage(index: int, steps: int, skip: int) -> Stage:
    """Return what happens at a falling step index: a third without consistency, a third in pixels, then in latents."""
    third = steps // 3
    if not 0 < index <= steps - third or index % skip:
        return "none"
    return "pixel" if index >= third else "latent"


@dataclass(frozen=True, eq=False)
class HardConsistency:
    """Estimates made consistent with the data by AdamW; images count in [-1, 1] over the value range: its weight decay
    pulls towards the middle of that.

    The published step sizes and tolerances are for operators of norm 1, so A and y are brought there.
    """

    space: LatentSpace
    A: LinearOperator
    y: Measurement
    settings: Published

    @cached_property
    def half(self) -> float:
        """Half the value range, in image units."""
        values = self.space.prior.values
        return (values.high - values.low) / 2 / abs(self.space.prior.slope)

    @cached_property
    def middle(self) -> float | Tensor:
        """The middle of the value range, in image units: with the phase where images have one."""
        prior = self.space.prior
        middle = ((prior.values.low + prior.values.high) / 2 - prior.intercept) / prior.slope
        return middle if prior.phase is None or middle == 0 else middle * prior.phase

    @cached_property
    def unit(self) -> float:
        """What the data of an image of 1 are of the size of."""
        return self.half * max(self.A.norm(device=self.y.data.device), 1e-30)

    def loss(self, unit: float) -> Callable[[Tensor], Tensor]:
        """Return the mean squared residual of each item (N,) of images, in units of `unit`."""
        data = self.y.data / unit
        return lambda x: (self.A(x) / unit - data).abs().square().flatten(1).mean(1)

    def pixel(self, z0: Tensor) -> Tensor:
        """Return the latent of the image near D(z0) that meets the data."""
        s, half, middle, loss = self.settings, self.half, self.middle, self.loss(self.unit)
        start = (self.space.decode(z0) - middle) / half
        x = self.optimise(start, lambda v: loss(v * half + middle), s.pixel_lr, s.pixel_iterations, None)
        return self.space.encode(x * half + middle)

    def latent(self, z0: Tensor) -> Tensor:
        """Return the latent near z0 whose image meets the data."""
        s, loss = self.settings, self.loss(self.unit)
        return self.optimise(z0, lambda v: loss(self.space.decode(v)), s.latent_lr, s.latent_iterations, s.patience)

    def optimise(
        self, start: Tensor, loss: Callable[[Tensor], Tensor], lr: float, iterations: int, patience: int | None
    ) -> Tensor:
        """Run AdamW from `start`; an item stops at the tolerance, or when it is worse than `patience` steps ago."""
        with torch.enable_grad():
            v = start.detach().clone().requires_grad_(True)
            optimizer = torch.optim.AdamW([v], lr=lr)
            best, running = start.detach().clone(), torch.ones(len(start), dtype=torch.bool, device=start.device)
            history: list[Tensor] = []
            for step in range(iterations):
                value = loss(v)
                history.append(value.detach())
                best = torch.where(expand(running, v.ndim - 1), v.detach(), best)
                running = running & (history[-1] > self.settings.tolerance)
                if patience is not None and step > patience:
                    running = running & ~(history[-1] > history[-1 - patience])
                if not bool(running.any()):
                    return best
                optimizer.zero_grad()
                torch.autograd.backward(value.sum())
                optimizer.step()
            return torch.where(expand(running, v.ndim - 1), v.detach(), best)


@dataclass(frozen=True, eq=False)
class PublishedGuide(Guide):
    """The prior alone, at every step; and what makes an estimate consistent, at those steps that ask for it."""

    hard: HardConsistency

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        clean = self.hard.space.denoise(z, sigma)
        return Estimate(clean, clean, None, sigma)


@dataclass(frozen=True, eq=False)
class TimeTravel(Sampler):
    """DDIM with eta = 0 and, at the steps of `stage`, a look ahead, hard consistency and stochastic resampling.

    States x are variance-preserving here, x_t = sqrt(abar_t) z; a step has an index that falls to 0, at -1 it is over.
    """

    settings: Published

    @cached_property
    def process(self) -> Process:
        """The variance-preserving process of latent diffusion."""
        return published_process()

    @cached_property
    def levels(self) -> list[float]:
        """The noise levels of the run."""
        return self.settings.levels()

    def time(self, index: int) -> int:
        """Return the timestep of a step index; index -1 is the end of the process."""
        return timesteps(self.settings.steps)[index] if index >= 0 else 0

    def abar(self, index: int) -> float:
        """Return abar at a step index."""
        return float(self.process.a[self.time(index)]) ** 2

    def epsilon(self, guide: Guide, x: Tensor, index: int) -> Tensor:
        """Return the noise that the network sees in x, taken to be of `index`."""
        sigma = float(self.process.sigma[self.time(index)])
        z = self.process.to_engine(x, self.time(index))
        return (z - guide(z, sigma).clean) / sigma

    def ddim(self, guide: Guide, x: Tensor, index: int, network_index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return x at index - 1, the estimate z0 and the noise e, the network run at network_index."""
        a, following = self.abar(index), self.abar(index - 1)
        e = self.epsilon(guide, x, network_index)
        z0 = (x - (1 - a) ** 0.5 * e) / a**0.5
        return following**0.5 * z0 + (1 - following) ** 0.5 * e, z0, e

    def step(
        self, guide: Guide, z: Tensor, sigma: float, sigma_next: float, before: Estimate | None, draw: Draw
    ) -> tuple[Tensor, Estimate]:
        assert isinstance(guide, PublishedGuide)
        index = self.settings.steps - 1 - self.levels.index(sigma)
        end, kind = self.time(index - 1), stage(index, self.settings.steps, self.settings.skip)
        moved, z0 = self.first(guide, self.process.from_engine(z, self.time(index)), index)
        if kind == "none":
            return self.process.to_engine(moved, end), Estimate(z0, z0, guide.hard.space.decode(z0), sigma)
        looked = moved
        for ahead in range(index - 1, max(index - 1 - self.settings.travel, -1), -1):
            looked, z0 = self.ahead(guide, looked, ahead)
        target = guide.hard.pixel(z0) if kind == "pixel" else guide.hard.latent(z0)
        x = self.resampled(target, moved, index, draw(z))
        return self.process.to_engine(x, end), Estimate(z0, target, guide.hard.space.decode(target), sigma)

    def resampled(self, z0: Tensor, moved: Tensor, index: int, noise: Tensor) -> Tensor:
        """Return a draw from the product of N(x; sqrt(ap) z0, 1 - ap) and N(moved; x, s2) (paper, eq. 11-12)."""
        ap, s2 = self.abar(index - 1), self.variance(index)
        v = 1 - ap
        return (s2 * ap**0.5 * z0 + v * moved) / (s2 + v) + (s2 * v / (s2 + v)) ** 0.5 * noise

    @abstractmethod
    def first(self, guide: PublishedGuide, x: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Return x at index - 1, and the estimate."""

    @abstractmethod
    def ahead(self, guide: PublishedGuide, x: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Return the same of a step of the look ahead."""

    @abstractmethod
    def variance(self, index: int) -> float:
        """Return s2 of the stochastic resampling."""


@dataclass(frozen=True, eq=False)
class Published(DiffusionSolver):
    """The published schedule. A variant gives its `stepper`.

    Raises:
        ValueError: fewer steps than 2, or more than 999.
    """

    steps: int = 500
    """DDIM steps out of 1000"""
    skip: int = 10
    """data consistency at every skip-th step"""
    travel: int = 5
    """look-ahead DDIM steps before data consistency (time travel)"""
    gamma: float = 40.0
    """variance factor of stochastic resampling"""
    pixel_lr: float = 1e-2
    """step size of AdamW on the image"""
    pixel_iterations: int = 2000
    """of AdamW on the image, at most"""
    latent_lr: float = 5e-3
    """step size of AdamW on the latent"""
    latent_iterations: int = 500
    """of AdamW on the latent, at most"""
    patience: int = 200
    """the latent stage stops when its loss exceeds that of this many iterations ago"""
    tolerance: float = 1e-6
    """both stages stop below this mean squared residual"""

    def __post_init__(self) -> None:
        timesteps(self.steps)

    @abstractmethod
    def stepper(self) -> TimeTravel: ...

    def levels(self) -> list[float]:
        found: list[float] = published_process().sigma[[*timesteps(self.steps)[::-1], 0]].tolist()
        return found

    def warm_start(self, space: LatentSpace, A: LinearOperator, y: Measurement, generator: torch.Generator) -> None:
        """Start from pure noise."""

    def noisy(self, start: Tensor, draw: Draw) -> Tensor:
        """Return pure noise of variance 1 in variance-preserving units, as published."""
        return published_process().to_engine(draw(start), timesteps(self.steps)[-1])

    def guide(self, task: Task) -> PublishedGuide:
        return PublishedGuide(HardConsistency(task.space, task.data.A, task.data.y, self))

    def image(self, run: Run, state: State) -> tuple[Tensor, dict[str, Any]]:
        """Return D of the last latent, made consistent once more; or what there is if the run was stopped."""
        assert isinstance(run.guide, PublishedGuide) and state.before is not None
        kinds = Counter(stage(self.steps - 1 - i, self.steps, self.skip) for i in range(state.step))
        facts = {"stages": {kind: kinds[kind] for kind in ("none", "pixel", "latent")}}
        if state.step < len(run.sigmas) - 1 and state.before.image is not None:
            return state.before.image, facts
        x = published_process().from_engine(state.z, 0)
        return run.space.decode(run.guide.hard.latent(x)), facts
