"""Draw: standard normal noise for K trajectories of B items, and who shares it.

The B items of a trajectory always share their noise: neighbouring slices then agree, and a batch of two slices is two
runs of one. Numbers come from generators on the CPU in float32, whatever the device, so that devices agree too.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor


class Draw(ABC):
    """A call draws noise for all items; `state` and `restore` let a run go on to the same bits."""

    def __init__(self, *generators: torch.Generator) -> None:
        self.generators = generators

    @property
    @abstractmethod
    def trajectories(self) -> int:
        """K."""

    @abstractmethod
    def noise(self, shape: tuple[int, ...]) -> Tensor:
        """Draw for items of `shape`, one a trajectory: (K, *shape), float32, on the CPU."""

    @final
    def __call__(self, like: Tensor) -> Tensor:
        """Draw n ~ N(0, I) of the shape of `like`, (K B, *item).

        Raises:
            ValueError: `like` is not K trajectories of equally many items.
        """
        if len(like) % self.trajectories:
            raise ValueError(f"{len(like)} items are not {self.trajectories} trajectories of equally many")
        noise = self.noise(tuple(like.shape[1:])).to(like)
        return noise.repeat_interleave(len(like) // self.trajectories, 0)

    @final
    def state(self) -> tuple[Tensor, ...]:
        """Return the states of the generators."""
        return tuple(g.get_state() for g in self.generators)

    @final
    def restore(self, state: tuple[Tensor, ...]) -> None:
        """Put the generators back into a `state`."""
        for generator, before in zip(self.generators, state, strict=True):
            generator.set_state(before)


@final
class Independent(Draw):
    """Every trajectory has noise of its own: particles, posterior samples, samples of a prior.

    Args:
        generators: each serves `each` trajectories, one after another in the batch.
    """

    def __init__(self, *generators: torch.Generator, each: int = 1) -> None:
        super().__init__(*generators)
        self.each = each

    @property
    def trajectories(self) -> int:
        return self.each * len(self.generators)

    def noise(self, shape: tuple[int, ...]) -> Tensor:
        return torch.cat([torch.randn((self.each, *shape), generator=g) for g in self.generators])


@final
class Antithetic(Draw):
    """Trajectory k + P has the opposite noise of trajectory k < P: P pairs, one generator each.

    What the noise does to the mean of a pair cancels to first order (Hammersley and Morton, Proc. Camb. Phil. Soc. 52
    (1956) 449).
    """

    @property
    def trajectories(self) -> int:
        return 2 * len(self.generators)

    def noise(self, shape: tuple[int, ...]) -> Tensor:
        first = torch.stack([torch.randn(shape, generator=g) for g in self.generators])
        return torch.cat([first, -first])


def white(draw: Draw, like: Tensor) -> Tensor:
    """Draw n with E|n|^2 = 1 of the shape of `like`, complex where that is."""
    if not like.is_complex():
        return draw(like)
    return torch.complex(draw(like.real), draw(like.real)) / math.sqrt(2)


def streams(generator: torch.Generator, count: int, draws: int, shape: tuple[int, ...]) -> list[torch.Generator]:
    """Split a generator into `count`, each `draws` draws of `shape` further on; they overlap if more are drawn.

    The k-th gives what a k-th run in a row with `generator` would draw.
    """
    found = []
    for _ in range(count):
        found.append(generator.clone_state())
        for _ in range(draws):
            torch.empty(math.prod(shape)).normal_(generator=generator)
    return found
