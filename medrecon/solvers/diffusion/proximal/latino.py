"""LATINO: latent consistency as a plug-and-play prior, without autograd (arXiv 2503.12615)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.draw import Draw
from medrecon.diffusion.flow import flow_end
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.latent import LatentSpace
from medrecon.diffusion.trust import PixelError, one_number
from medrecon.models.prior import Prior
from medrecon.solvers.diffusion.base import Task, example_prior
from medrecon.solvers.diffusion.posterior import PosteriorSolver


@dataclass(frozen=True, eq=False)
class LATINOGuide(Guide):
    """E(prox(Dec(G(z)))): the end of the flow decoded, met by the data, encoded; the sampler adds noise to that."""

    space: LatentSpace
    data: DataConsistency
    error: PixelError
    draw: Draw
    flow_steps: int

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        v = self.space.decode(flow_end(self.space, z, sigma, self.flow_steps, self.draw))
        tau = self.data.deviation(self.data.A(v), self.error(v, sigma, None))
        x = self.data.prox(v, one_number(tau))
        target = self.space.encode(x)
        return Estimate(target, target, x, sigma)


@dataclass(frozen=True, eq=False)
class LATINO(PosteriorSolver):
    """Every step: noise, the end of the flow, decode, the proximal point of the data, encode. No gradients.

    The flow takes the place of the published consistency model: any denoiser serves. How far the proximal step goes is
    read off the residual, where the published steps are tuned for each task. The image is that of the last proximal
    step, so that it is no sample: what is not measured is drawn, what is measured is not.
    """

    steps: int = 16
    """noise levels; published with 8"""
    start: float | None = 1.6
    end: float | None = 0.1
    samples: int = 4
    sampler: str = "renoise"
    eta: float = 1.0
    """share of fresh noise"""
    flow_steps: int = 2
    """denoiser calls a level"""

    name: ClassVar[str] = "latino"
    summary: ClassVar[str] = "encode, noise, denoise, decode, meet the data, again: a few levels, no gradients"
    slow: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.flow_steps < 1:
            raise ValueError(f"LATINO: expected flow_steps >= 1, got {self.flow_steps}")

    def guide(self, task: Task) -> LATINOGuide:
        return LATINOGuide(task.space, task.data, self.error(task), task.draw, self.flow_steps)

    @classmethod
    def paper(cls, prior: Prior) -> LATINO:
        """Return it with the published number of levels, from pure noise."""
        return cls(prior, steps=8, start=None, end=None, samples=1)

    @classmethod
    def examples(cls) -> Iterator[LATINO]:
        yield cls(example_prior(), steps=4, start=None, samples=1)
