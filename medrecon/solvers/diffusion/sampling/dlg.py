"""DLG: one chain at one noise level, and a short way down from every few of its states (arXiv 2209.14593)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from medrecon.diffusion.draw import Draw
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.reverse import State
from medrecon.diffusion.samplers.base import Sampler
from medrecon.diffusion.samplers.multistep import Multistep
from medrecon.diffusion.schedules import log_uniform
from medrecon.numerics.linalg import averaged, expand, summed
from medrecon.solvers.diffusion.base import Run, Task, example_prior
from medrecon.solvers.diffusion.gradient.mmps import MMPSGuide
from medrecon.solvers.diffusion.posterior import SampledSolver


def noise_level(z: Tensor, clean: Tensor, moved: Tensor, noise: Tensor, size: float) -> Tensor:
    """Return how noisy z is, (N,), read off its own estimate `clean` = E[z0 | z] or E[z0 | z, y]; all (N, C, h, w).

    |z - clean|^2 / d alone is too little: E|z - clean|^2 / d = sigma^2 (1 - tr J / d), J the Jacobian of the estimate,
    for some of the noise passes for image. By Stein's identity the trace is that of `noise`, white, of which `size`
    went into z last, and of `moved`, by how much the estimate changed.
    """
    passed = summed((moved * noise).flatten(1), 1) / (size * summed(noise.square().flatten(1), 1))
    return (averaged((z - clean).square().flatten(1), 1) / (1 - passed).clamp_min(0.05)).sqrt()


@dataclass(frozen=True)
class Chain(Sampler):
    """Down to a level by `Multistep`; where the next level is the same, a step of Langevin dynamics there.

    z' = z + a (clean - z) + sqrt(2 a) sigma n leaves z more noisy, by the length of the step. Its own noise is
    measured, and z' moved along the flow back to sigma: what the published method asks a classifier for.
    Every `skip`-th state goes down `below` by steps of its own, and what it ends at is a sample.
    """

    length: float
    """a"""
    skip: int
    below: tuple[float, ...]
    """levels after sigma, the last of which is 0"""

    def step(
        self, guide: Guide, z: Tensor, sigma: float, sigma_next: float, before: Estimate | None, draw: Draw
    ) -> tuple[Tensor, Estimate]:
        if sigma_next < sigma:
            return Multistep().step(guide, z, sigma, sigma_next, before, draw)
        states, clean, image, squares = self.known(guide, z, sigma, before)
        n, size = draw(z), math.sqrt(2 * self.length) * sigma
        z = torch.lerp(z, clean, self.length) + size * n
        estimate = guide(z, sigma)
        found = estimate.clean
        level = noise_level(z, found, found - clean, n, size)
        z = found + expand((sigma / level).clamp(0.5, 2), z.ndim - 1) * (z - found)
        states += 1
        if states % self.skip == 0:
            x, count = self.sample(guide, z, sigma, draw), states // self.skip
            old = torch.zeros_like(x) if image is None else image
            image = old + (x - old) / count
            squares = squares + (x - old).abs() * (x - image).abs()
        shown = estimate.image if image is None else image
        return z, Estimate(found, found, shown, sigma, memory=((states, found), (sigma, squares)))

    def known(
        self, guide: Guide, z: Tensor, sigma: float, before: Estimate | None
    ) -> tuple[int, Tensor, Tensor | None, Tensor]:
        """Return the number of states so far, the last estimate, the mean of the samples and their squared deviations
        from it, summed."""
        if before is None or not before.memory:
            return 0, guide(z, sigma).clean, None, torch.zeros((), device=z.device)
        (states, clean), (_, squares) = before.memory
        return int(states), clean, before.image if states >= self.skip else None, squares

    def sample(self, guide: Guide, z: Tensor, sigma: float, draw: Draw) -> Tensor:
        """Return the images that a state leads to."""
        last: Estimate | None = None
        for level, lower in pairwise((sigma, *self.below)):
            z, last = Multistep().step(guide, z, level, lower, last, draw)
        assert last is not None and last.image is not None
        return last.image


@dataclass(frozen=True, eq=False)
class DLG(SampledSolver):
    """Down to noise level sigma once; there Langevin dynamics along grad log p(z | y), and every `skip` steps a short
    way down. Independent runs pay the whole way for each sample.

    The score is that of moment matching (`mmps`), exact for a Gaussian; `mmps` with draws needs fewer calls still.

    Raises:
        ValueError: sigma or a count not positive, or length not above 0, up to 1; or what `SampledSolver` refuses.
    """

    steps: int = 10
    """noise levels down to the chain"""
    start: float | None = None
    """first of them; default: the prior's sigma_max, pure noise"""
    sigma: float = 2.0
    """noise level of the chain: a state at 0.1 is remembered for hundreds of steps, one at 2 for a few"""
    states: int = 8
    """samples of each chain; there are `samples` chains side by side"""
    skip: int = 4
    """steps of the chain from one sample to the next"""
    length: float = 0.5
    """of a step, in units of sigma^2"""
    short: int = 8
    """noise levels from the chain to a sample"""
    products: int = 10
    """with the Jacobian, each about as much as a network call"""

    name: ClassVar[str] = "dlg"
    summary: ClassVar[str] = "denoising MCMC: a chain at one noise level, a posterior sample from every few states"
    slow: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = (self.states, self.skip, self.short, self.products)
        if min(counts) < 1 or self.sigma <= 0 or not 0 < self.length <= 1:
            raise ValueError(
                "DLG: expected states, skip, short and products >= 1, sigma > 0 and length above 0, up to 1, got "
                f"{counts}, {self.sigma:g}, {self.length:g}"
            )

    def below(self) -> list[float]:
        """Return the levels of a short way down, from that of the chain, then 0."""
        low, high = sorted(min(level, self.prior.denoiser.sigma_max) for level in (self.span()[1], self.sigma))
        levels: list[float] = log_uniform(self.short, max(low, self.prior.denoiser.sigma_min), high).tolist()
        return levels

    def levels(self) -> list[float]:
        sigma, start = self.below()[0], min(self.span()[0], self.prior.denoiser.sigma_max)
        down = log_uniform(self.steps, sigma, start).tolist()[:-1] if start > sigma else [sigma]
        return [*down[:-1], *[sigma] * (self.states * self.skip + 1)]

    def stepper(self) -> Chain:
        return Chain(self.length, self.skip, tuple(self.below()[1:]))

    def guide(self, task: Task) -> MMPSGuide:
        return MMPSGuide(task.space, task.data, None, self.products)

    def image(self, run: Run, state: State) -> tuple[Tensor, dict[str, Any]]:
        """Return the mean of all samples (B, *in_shape), and the deviation of each pixel where there are several."""
        assert state.before is not None and state.before.image is not None
        each = state.before.image.unflatten(0, (self.samples, -1))
        image, facts = each.mean(0), dict[str, Any]()
        of_chain = int(state.before.memory[0][0]) // self.skip if state.before.memory else 0
        if of_chain * self.samples > 1:
            squares = state.before.memory[1][1].unflatten(0, (self.samples, -1)).sum(0)
            spread = squares + of_chain * (each - image).abs().square().sum(0)
            facts["deviation"] = (spread / (of_chain * self.samples - 1)).sqrt()
        return image, facts

    @classmethod
    def examples(cls) -> Iterator[DLG]:
        yield cls(example_prior(), steps=3, start=None, states=2, skip=2, short=2, products=5)
