"""ReSample, fast: latent diffusion with hard data consistency (after arXiv 2307.08123), ours."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.anneal import Anneal
from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.draw import Antithetic, Draw, Independent, streams
from medrecon.diffusion.latent import LatentSpace
from medrecon.diffusion.reverse import State
from medrecon.diffusion.trust import PixelError, nearby, round_trip_error
from medrecon.operators.base import LinearOperator
from medrecon.solvers.diffusion.base import GuidedSolver, Run, Task, example_prior
from medrecon.solvers.diffusion.resample.guide import ReSampleGuide
from medrecon.solvers.plug_and_play.base import Bench
from medrecon.solvers.plug_and_play.pnp_admm import PnPADMM

START, END, STEPS, PAIRS, LEVEL = 0.5, 0.12, 8, 2, 1.2
"""Those of a prior whose card tells none."""
LAST = 0.15
"""Noise level of the search's last iteration, or `search_level` if that is lower; chosen on validation slices."""


@dataclass(frozen=True, eq=False)
class ReSample(GuidedSolver):
    """Warm start from TV, carried on by a search if asked for; trajectories in pairs of opposite noise,
    encoder-residual data consistency whitened by the noise, variance-preserving re-noising, their mean polished in
    pixels: what the autoencoder cannot express comes from the data, and chi^2/m <= 1 as far as the error expected of it
    allows.

    docs/design/resample.md has the formulas, side by side with those of `resample-paper` and `resample-reference`.
    """

    steps: int | None = None
    """denoising steps; default: as the prior's card says, chosen on validation slices"""
    start: float | None = None
    """noise level of the first step; default: as the prior's card says, chosen on validation slices: the lower, the
    less the prior is trusted beyond the image it is given; sigma_max means from pure noise"""
    end: float | None = None
    """noise level of the last step; default: as the prior's card says: below it trajectories only part, each to a
    sample of its own, and take the noise of the data for anatomy; for a sample, with eta = 1, the prior's sigma_min"""
    eta: float = 0.0
    """share of fresh noise a step: 0 returns close to the posterior mean, 0.85 to 1 a sample"""
    antithetic: bool = True
    """average two trajectories with opposite noise: what the noise does to the image, to first order, cancels, so
    that two act like very many, and where they part tells where the denoiser is unsure; off takes single ones"""
    pairs: int | None = None
    """antithetic pairs, or single trajectories without `antithetic`, that are averaged; every second one in a mirror,
    where a prior trained on mirrored images errs elsewhere; default: as the prior's card says"""
    search: int | None = None
    """iterations of plug-and-play ADMM with the same prior between TV and the first step, towards the most probable
    image; default: as the prior's card says, those of CT and MRI have it"""
    search_level: float | None = None
    """noise level of its first iteration, from which it falls to 0.15; default: as the prior's card says"""
    search_below: float | None = None
    """search only where there are fewer samples per pixel than this; default: where `search` is not told, as the
    prior's card says: with many views the search believes their noise"""
    rounds: int = 1
    """encoder-residual updates a step"""
    cg_iterations: int = 15
    """CG iterations of every proximal problem, at most"""
    cg_tolerance: float = 1e-2
    """a proximal problem is solved once its residual is below this fraction"""
    anneal: float = 0.0
    """above 0, the data's weight falls with the noise level to this power; below 0 it rises; 0 is their own weight; the
    polish keeps it at that"""
    polish: bool = True
    """finish in pixel space: with the proximal point that knows how much the autoencoder loses, and where, and where
    it is further from the data than noise, with that of chi^2/m = 1, or as near as its expected error allows"""

    name: ClassVar[str] = "resample"
    summary: ClassVar[str] = "latent diffusion with hard data consistency, our fast form"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.pairs is not None and self.pairs < 1) or self.rounds < 1 or (self.search or 0) < 0:
            raise ValueError(
                "ReSample: expected pairs >= 1, rounds >= 1 and search >= 0, got "
                f"{self.pairs}, {self.rounds}, {self.search}"
            )
        if self.search_below is not None and not self.search_below > 0:
            raise ValueError(f"ReSample: expected search_below > 0 samples per pixel, got {self.search_below}")
        if self.search and self.levels()[0] >= self.prior.denoiser.sigma_max:
            raise ValueError(
                f"ReSample: search {self.search} with a start of pure noise, {self.levels()[0]:g}, which keeps nothing "
                "of what it finds; give a lower start, or search 0"
            )
        if self.searching():
            self.searcher()

    def span(self) -> tuple[float, float]:
        card = self.prior.card
        return (
            card.get("start", START) if self.start is None else self.start,
            card.get("end", END) if self.end is None else self.end,
        )

    def count(self) -> int:
        return int(self.prior.card.get("steps", STEPS)) if self.steps is None else self.steps

    def searching(self) -> int:
        """Return how many iterations the search has."""
        return int(self.prior.card.get("search", 0)) if self.search is None else self.search

    def plenty(self, A: LinearOperator) -> bool:
        """Tell whether there are so many samples that the search is left out."""
        below = self.prior.card.get("search_below") if self.search is None else None
        below = below if self.search_below is None else self.search_below
        return below is not None and math.prod(A.out_shape) >= below * math.prod(A.in_shape)

    def searcher(self) -> PnPADMM:
        """Return the search: it takes out what aliases over long ways, which few noisy steps leave."""
        level = self.prior.card.get("search_level", LEVEL) if self.search_level is None else self.search_level
        return PnPADMM(self.prior, iterations=self.searching(), sigma=min(LAST, level), high=level, tolerance=0)

    def warm_start(
        self, space: LatentSpace, A: LinearOperator, y: Measurement, generator: torch.Generator
    ) -> Tensor | None:
        image = super().warm_start(space, A, y, generator)
        if image is None or not self.searching() or self.plenty(A):
            return image
        return self.searcher().iterated(Bench(space, self.consistency(A, y)), image, lambda x: False)[0]

    def trajectories(self) -> int:
        """Return how many pairs, or single trajectories without `antithetic`, there are."""
        return int(self.prior.card.get("pairs", PAIRS)) if self.pairs is None else self.pairs

    def views(self) -> Tensor:
        return torch.arange(self.trajectories()) % 2 == 1

    def copies(self) -> int:
        return 1 + self.antithetic

    def draw(self, generator: torch.Generator, shape: tuple[int, ...]) -> Draw:
        """Return noise of its own for each pair, the same however many there are."""
        draws = self.count() * self.stepper().draws + 1
        each = streams(generator, self.trajectories(), draws, shape)
        return Antithetic(*each) if self.antithetic else Independent(*each)

    def consistency(self, A: LinearOperator, y: Measurement) -> DataConsistency:
        """Return how the data are met; benchmarks/design/oracles.py replaces it by one that knows more."""
        return DataConsistency(A, y, self.cg_iterations, self.cg_tolerance)

    def guide(self, task: Task) -> ReSampleGuide:
        error = PixelError.around(task.views, task.start, warm=task.warm).repeated(self.copies())
        levels = self.levels()
        anneal = Anneal.over(self.anneal, levels)
        return ReSampleGuide(task.space, task.data, error, self.rounds, self.antithetic, levels[-2], anneal)

    def image(self, run: Run, state: State) -> tuple[Tensor, dict[str, Any]]:
        """Return the mean of the trajectories with what the data say of all that the decoder could not express; then,
        where it is further from them than noise, moved towards them: up to that much and its own expected variance."""
        assert state.before is not None and state.before.image is not None and isinstance(run.guide, ReSampleGuide)
        every = state.before.image.unflatten(0, (-1, run.space.batch))
        x = image = every.mean(0)
        if self.polish:
            one = len(every) == 1
            variance = run.guide.error(x, state.before.sigma, None).square() if one else nearby(every.var(0))
            lost = round_trip_error(run.space, x)
            image = run.data.to_discrepancy(run.data.prox(x, lost), (lost.square() + variance).sqrt())
        change, size = (torch.linalg.vector_norm(v.flatten(1), dim=1) for v in (image - x, image))
        return image, {"latent_image": x, "correction": (change / size).tolist()}

    @classmethod
    def examples(cls) -> Iterator[ReSample]:
        yield cls(example_prior(), steps=4)
        yield cls(example_prior(), steps=3, search=4)
