"""What diffusion solvers have in common: the run of the reverse process around the one thing of their own, a guide."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.draw import Draw, Independent
from medrecon.diffusion.guide import Guide
from medrecon.diffusion.latent import LatentSpace
from medrecon.diffusion.reverse import State, reverse
from medrecon.diffusion.samplers.base import Sampler, sampler_named
from medrecon.diffusion.schedules import log_uniform
from medrecon.models.exact.gaussian import IdentityAutoencoder, smooth_gaussian
from medrecon.models.prior import Prior
from medrecon.models.values import Linear
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import Monitor, OnStep, Solution, Solver, check_fit
from medrecon.solvers.variational.tv import TV


@dataclass(frozen=True, eq=False)
class Task:
    """What a guide is made of: K trajectories of the B images measured, as one batch of N = K B.

    Several trajectories may start at one latent, `copies` of each view of the images. `views` and `start` are of the
    views alone, so that nothing is computed twice; `copies` of them, one after another, make up `space` and `data`.
    """

    space: LatentSpace
    """the networks, for all trajectories"""
    data: DataConsistency
    """operator and measurement, for all trajectories"""
    views: LatentSpace
    """the networks, for the views"""
    start: Tensor
    """latents (V B, C, h, w) that the views start at, without noise"""
    warm: bool
    """whether they are of an image, rather than 0"""
    draw: Draw
    """the noise of the run, from which a guide that is random draws too"""


@dataclass(frozen=True, eq=False)
class Run:
    """A reverse process ready to go: `reverse(run.guide, run.sampler, run.sigmas, run.draw, state)` from `start`."""

    guide: Guide
    sampler: Sampler
    sigmas: Sequence[float]
    draw: Draw
    start: State
    space: LatentSpace
    """the networks, for the B images"""
    data: DataConsistency
    """operator and measurement of the B images"""


@dataclass(frozen=True, eq=False)
class DiffusionSolver(Solver):
    """x from y = A x + n with a diffusion prior. A method gives its levels, its sampler and its guide."""

    prior: Prior

    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("ct", "mri")
    needs_prior: ClassVar[bool] = True

    @abstractmethod
    def levels(self) -> list[float]:
        """Return the falling noise levels, the last of which may be 0."""

    @abstractmethod
    def stepper(self) -> Sampler:
        """Return the sampler."""

    @abstractmethod
    def guide(self, task: Task) -> Guide:
        """Return the guide."""

    def views(self) -> Tensor:
        """Return for each view of the images whether it is one in a mirror, (V,) bool."""
        return torch.zeros(1, dtype=torch.bool)

    def copies(self) -> int:
        """Return how many trajectories start at each view."""
        return 1

    def draw(self, generator: torch.Generator, shape: tuple[int, ...]) -> Draw:
        """Return who shares noise; shape: of a latent (C, h, w)."""
        return Independent(generator, each=len(self.views()) * self.copies())

    def consistency(self, A: LinearOperator, y: Measurement) -> DataConsistency:
        """Return how the data are met."""
        return DataConsistency(A, y)

    def warm_start(
        self, space: LatentSpace, A: LinearOperator, y: Measurement, generator: torch.Generator
    ) -> Tensor | None:
        """Return the image to start from if none is given: that of total variation, the best start without training.

        None where the levels begin at the prior's sigma_max: the start is pure noise, and the data enter by data
        consistency alone.
        """
        return TV()(A, y, generator=generator).image if self.levels()[0] < self.prior.denoiser.sigma_max else None

    def noisy(self, start: Tensor, draw: Draw) -> Tensor:
        """Return the latents (N, C, h, w) at the first level, from those without noise."""
        return start + self.levels()[0] * draw(start)

    def image(self, run: Run, state: State) -> tuple[Tensor, dict[str, Any]]:
        """Return the reconstruction (B, *in_shape) at the end and what else there is to tell."""
        assert state.before is not None and state.before.image is not None
        return _mean(state.before.image, len(run.data.y.data)), {}

    @torch.no_grad()
    def prepare(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, warm: Tensor | None = None
    ) -> Run:
        """Return the run that a call does to its end; for whoever wants to stop, keep and resume it.

        Args:
            warm: the image (B, *in_shape) to start from; by default that of `warm_start`.
        """
        check_fit(A, y)
        space, data, sigmas = LatentSpace(self.prior, A, y), self.consistency(A, y), self.levels()
        warm = self.warm_start(space, A, y, generator) if warm is None else warm
        mirror, copies = self.views(), self.copies()
        views = space.repeated(len(mirror), mirror)
        start = views.encode((A.adjoint(y.data) if warm is None else warm).repeat(len(mirror), *(1,) * len(A.in_shape)))
        start = torch.zeros_like(start) if warm is None else start
        draw = self.draw(generator, tuple(start.shape[1:]))
        every = views.repeated(copies)
        z = self.noisy(start.repeat(copies, *(1,) * (start.ndim - 1)), draw)
        task = Task(every, data.repeated(len(mirror) * copies), views, start, warm is not None, draw)
        return Run(self.guide(task), self.stepper(), sigmas, draw, State.start(z, draw), space, data)

    @torch.no_grad()
    def __call__(
        self,
        A: LinearOperator,
        y: Measurement,
        *,
        generator: torch.Generator,
        on_step: OnStep | None = None,
        warm: Tensor | None = None,
    ) -> Solution:
        """Reconstruct; `warm` as in `prepare`."""
        run = self.prepare(A, y, generator=generator, warm=warm)
        monitor = Monitor(y, len(run.sigmas) - 1, on_step)
        state = completed(run, monitor)
        image, facts = self.image(run, state)
        finished = state.step == len(run.sigmas) - 1
        return monitor.solution(A, image, finished, network_calls=vars(run.space.calls), **facts)


@dataclass(frozen=True, eq=False)
class LevelSolver(DiffusionSolver):
    """A diffusion solver that goes down as many noise levels as asked for.

    Raises:
        ValueError: steps, start or end not positive.
    """

    steps: int | None = 50
    """noise levels"""
    start: float | None = None
    """first noise level; default: the prior's sigma_max, pure noise"""
    end: float | None = None
    """last noise level; default: the prior's sigma_min"""

    def __post_init__(self) -> None:
        levels = [level for level in (self.start, self.end) if level is not None]
        if (self.steps is not None and self.steps < 1) or min(levels, default=1.0) <= 0:
            raise ValueError(
                f"{type(self).__name__}: expected steps >= 1, start > 0 and end > 0, got {self.steps}, {self.start}, "
                f"{self.end}"
            )

    def span(self) -> tuple[float, float]:
        """Return the first and the last noise level asked for."""
        denoiser = self.prior.denoiser
        return (
            denoiser.sigma_max if self.start is None else self.start,
            denoiser.sigma_min if self.end is None else self.end,
        )

    def count(self) -> int:
        """Return how many noise levels there are."""
        assert self.steps is not None  # who allows None tells the number here
        return self.steps

    def levels(self) -> list[float]:
        (start, end), denoiser = self.span(), self.prior.denoiser
        start, end = min(start, denoiser.sigma_max), max(end, denoiser.sigma_min)
        return self.schedule(min(end, start), start)

    def schedule(self, low: float, high: float) -> list[float]:
        """Return as many levels as asked for, from high to low, then 0."""
        levels: list[float] = log_uniform(self.count(), low, high).tolist()
        return levels


@dataclass(frozen=True, eq=False)
class GuidedSolver(LevelSolver):
    """A diffusion solver that is a guide: any sampler, any levels.

    Raises:
        ValueError: no such sampler, or one that cannot add that much noise; or what `LevelSolver` refuses.
    """

    sampler: str = "ddim"
    """ddim, heun, multistep, exponential, ancestral, pc, ..."""
    eta: float = 0.0
    """share of fresh noise a step, of the most that the sampler can add"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.stepper()

    def stepper(self) -> Sampler:
        return sampler_named(self.sampler, self.eta)


def completed(run: Run, monitor: Monitor) -> State:
    """Do a run to its end, or until the monitor, which is shown the mean of the trajectories, says stop."""
    watch = lambda e: e.image is not None and monitor(run.data.A(_mean(e.image, len(run.data.y.data))))  # noqa: E731
    return reverse(run.guide, run.sampler, run.sigmas, run.draw, run.start, watch)


def _mean(images: Tensor, batch: int) -> Tensor:
    """The mean (B, *in_shape) over trajectories of images (K B, *in_shape)."""
    return images.unflatten(0, (-1, batch)).mean(0)


@functools.cache
def example_prior(shape: tuple[int, int] = (32, 32)) -> Prior:
    """Return a Gaussian prior with an identity autoencoder, for examples and tests: images of order 1."""
    denoiser = smooth_gaussian((1, *shape))
    return Prior(IdentityAutoencoder(), denoiser, Linear(-1.0, 1.0), "a.u.", "CT", error=0.0, name="example")
