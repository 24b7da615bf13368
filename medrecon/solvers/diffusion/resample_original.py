"""ReSample as published (arXiv 2307.08123, algorithm 1) and as its public reference code behaves.

The reference code (commit 3e332b2) deviates from the paper: a latent-DPS gradient at every step, (1 - abar)
instead of its root in the estimate handed to data consistency, look-ahead coefficients one index late, and
another variance in the stochastic resampling. `reference=True` reproduces that; it is for comparison only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.latent import LatentSpace
from medrecon.models.adapters.discrete_vp import linear_beta_abar
from medrecon.numerics.linalg import expand
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import Monitor, Solution


@dataclass(frozen=True)
class Original:
    """Settings of the published schedule; images count in [-1, 1] over the value range, operators have norm 1."""

    steps: int = 500
    """DDIM steps out of 1000"""
    skip: int = 10
    """data consistency at every skip-th step"""
    travel: int = 5
    """look-ahead DDIM steps before data consistency (time travel)"""
    gamma: float = 40.0
    """variance factor of stochastic resampling"""
    pixel_lr: float = 1e-2
    pixel_iterations: int = 2000
    latent_lr: float = 5e-3
    latent_iterations: int = 500
    patience: int = 200
    """the latent stage stops when its loss exceeds that of this many iterations ago"""
    tolerance: float = 1e-6
    """both stages stop below this mean squared residual"""
    guidance: float = 0.5
    """strength of the latent-DPS gradient (reference only)"""


def timesteps(steps: int, total: int = 1000) -> list[int]:
    """Rising timesteps 1, 1 + c, ... with c = total // steps, below `total`."""
    if not 2 <= steps <= total:
        raise ValueError(f"ReSample: expected 2 to {total} original steps, got {steps}")
    return [min(total - 1, i * (total // steps) + 1) for i in range(steps)]


def stage(index: int, steps: int, skip: int) -> Literal["none", "pixel", "latent"]:
    """What happens at a falling step index: a third without consistency, a third in pixels, a third in latents."""
    third = steps // 3
    if not 0 < index <= steps - third or index % skip:
        return "none"
    return "pixel" if index >= third else "latent"


class _Process:
    """The variance-preserving process on a prior's denoiser, and the misfit in [-1, 1] units."""

    def __init__(self, A: LinearOperator, y: Measurement, space: LatentSpace, settings: Original, reference: bool):
        self.A, self.space, self.reference, self.settings = A, space, reference, settings
        self.ts = timesteps(settings.steps)
        self.abar = linear_beta_abar().tolist()
        values = space.prior.values
        self.half = (values.high - values.low) / 2 / abs(space.prior.slope)
        # The published step sizes and tolerances are for operators of norm 1.
        self.unit = self.half * max(A.norm(device=y.data.device), 1e-30)
        self.data = y.data / self.unit

    def level(self, index: int) -> float:
        """abar at a step index; index -1 is the end of the process."""
        return self.abar[self.ts[index]] if index >= 0 else self.abar[0]

    def epsilon(self, z: Tensor, index: int) -> Tensor:
        a = self.level(index)
        sigma = ((1 - a) / a) ** 0.5
        ve = z / a**0.5
        return (ve - self.space.denoise(ve, sigma)) / sigma

    def ddim(self, z: Tensor, index: int, network_index: int) -> tuple[Tensor, Tensor]:
        """z at index - 1 and the estimate handed to data consistency, with the network run at network_index."""
        a, ap = self.level(index), self.level(index - 1)
        e = self.epsilon(z, network_index)
        z0 = (z - (1 - a) ** 0.5 * e) / a**0.5
        wrong = (z - (1 - a) * e) / a**0.5
        return ap**0.5 * z0 + (1 - ap) ** 0.5 * e, wrong if self.reference else z0

    def loss(self, x: Tensor) -> Tensor:
        """Mean squared residual per item (B,)."""
        return (self.A(x) / self.unit - self.data).abs().square().flatten(1).mean(1)

    def optimise(
        self, start: Tensor, loss: Callable[[Tensor], Tensor], lr: float, iterations: int, patience: int | None
    ) -> Tensor:
        """AdamW from `start`; an item stops at the tolerance, or when it is worse than `patience` steps ago."""
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

    def pixel(self, z0: Tensor) -> Tensor:
        s = self.settings
        u = self.space.decode(z0) / self.half
        x = self.optimise(u, lambda v: self.loss(v * self.half), s.pixel_lr, s.pixel_iterations, None)
        return self.space.encode(x * self.half)

    def latent(self, z0: Tensor) -> Tensor:
        s = self.settings
        misfit = lambda v: self.loss(self.space.decode(v))  # noqa: E731
        return self.optimise(z0, misfit, s.latent_lr, s.latent_iterations, s.patience)

    def guided(self, z: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """A DDIM step minus guidance * abar * gradient of |y - A D(z0)| with respect to z (reference only)."""
        with torch.enable_grad():
            leaf = z.detach().requires_grad_(True)
            moved, z0 = self.ddim(leaf, index, index)
            misfit = (self.loss(self.space.decode(z0)) * self.data[0].numel()).sqrt().sum()
            gradient = torch.autograd.grad(misfit, leaf)[0]
        return moved.detach() - self.settings.guidance * self.level(index) * gradient, z0.detach()

    def resample(self, z0: Tensor, moved: Tensor, index: int, noise: Tensor) -> Tensor:
        """Product of N(z; sqrt(ap) z0, 1 - ap) and N(moved; z, s2) (paper, eq. 11-12)."""
        a, ap = self.level(index), self.level(index - 1)
        s2 = self.settings.gamma * (1 - ap) / ((1 - a) if self.reference else a) * (1 - a / ap)
        v = 1 - ap
        return (s2 * ap**0.5 * z0 + v * moved) / (s2 + v) + (s2 * v / (s2 + v)) ** 0.5 * noise


def resample_original(
    A: LinearOperator,
    y: Measurement,
    space: LatentSpace,
    settings: Original,
    generator: torch.Generator,
    monitor: Monitor,
    *,
    reference: bool,
) -> Solution:
    """Run the published algorithm, or the reference code's behaviour; chi^2/m is recorded at every consistency step."""
    process = _Process(A, y, space, settings, reference)
    latent_shape = space.encode(A.adjoint(y.data)).shape
    z = space.noise(torch.zeros(latent_shape, device=space.device), generator)
    counts = {"none": 0, "pixel": 0, "latent": 0}
    stopped = False
    for index in range(settings.steps - 1, -1, -1):
        moved, z0 = process.guided(z, index) if reference else process.ddim(z, index, index)
        kind = stage(index, settings.steps, settings.skip)
        counts[kind] += 1
        z = moved
        if kind == "none":
            continue
        for ahead in range(index - 1, max(index - 1 - settings.travel, -1), -1):
            # The reference code runs the network one index ahead of its coefficients.
            moved, z0 = process.ddim(moved, ahead + 1 if reference else ahead, ahead)
        consistent = process.pixel(z0) if kind == "pixel" else process.latent(z0)
        z = process.resample(consistent, z, index, space.noise(z, generator))
        stopped = monitor(A(space.decode(consistent)))
        if stopped:
            break
    z = z if stopped else process.latent(z)
    image = space.decode(z if not stopped else consistent)
    return monitor.solution(A, image, not stopped, network_calls=vars(space.calls), stages=counts)
