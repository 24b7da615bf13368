"""Sampler: one step of a reverse process, composed with any guide, draw and schedule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Self

from torch import Tensor

from medrecon.core.discover import named
from medrecon.diffusion.draw import Draw
from medrecon.diffusion.guide import Estimate, Guide


class Sampler(ABC):
    """step: z at sigma -> z at sigma_next < sigma, and the estimate made at sigma.

    Everything is in variance-exploding units, z = z0 + sigma n. A variance-preserving state is x = alpha z with
    alpha = (1 + sigma^2)^-1/2, so the steps are the usual VP ones after division by alpha.

    Attributes:
        draws: how often a step draws noise, at most.
    """

    draws: ClassVar[int] = 1

    @abstractmethod
    def step(
        self, guide: Guide, z: Tensor, sigma: float, sigma_next: float, before: Estimate | None, draw: Draw
    ) -> tuple[Tensor, Estimate]:
        """Go from z (N, C, h, w) at sigma to sigma_next; with sigma_next = 0 that is the target.

        Args:
            before: the estimate of the step before, None at the first.
            draw: called `draws` times at most.
        """


class NamedSampler(Sampler):
    """A sampler that serves every guide, chosen by its name; one file in this folder makes one.

    Attributes:
        name: in settings, such as "ddim".
        order: of convergence of the deterministic part, proved against the Gaussian oracle.
        takes_estimates: whether the targets may be E[z0 | z, y], or near it.
        takes_samples: whether they may be samples of p(z0 | z, y).
    """

    name: ClassVar[str]
    order: ClassVar[int]
    takes_estimates: ClassVar[bool] = True
    takes_samples: ClassVar[bool] = False

    @property
    @abstractmethod
    def stochastic(self) -> bool:
        """Whether fresh noise is added."""

    @classmethod
    @abstractmethod
    def with_noise(cls, eta: float) -> NamedSampler:
        """Return the sampler that adds the share eta of the most noise it can add a step, from 0 to 1.

        Raises:
            ValueError: it cannot do that.
        """

    @classmethod
    @abstractmethod
    def examples(cls) -> Iterator[NamedSampler]:
        """Yield settings the contract tests run."""


class NoiselessSampler(NamedSampler):
    """A sampler that adds no noise."""

    @property
    def stochastic(self) -> bool:
        return False

    @classmethod
    def with_noise(cls, eta: float) -> Self:
        if eta:
            raise ValueError(f"{cls.name}: it adds no noise, eta = 0, got {eta:g}; ddim takes any eta")
        return cls()


def sampler_named(name: str, eta: float) -> NamedSampler:
    """Return the sampler of that name, adding the share `eta` of the most noise it can add.

    Raises:
        ValueError: no such sampler (names those there are), or one that cannot add that much.
    """
    known = named("medrecon.diffusion.samplers", NamedSampler, "order")  # type: ignore[type-abstract]  # a base
    if name not in known:
        raise ValueError(f"unknown sampler {name!r}; there are: {', '.join(sorted(known))}")
    return known[name].with_noise(eta)
