"""Image and structured artefact from one posterior: two priors, y = A x + C h + n (after arXiv 2307.11204)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from medrecon.core.discover import named
from medrecon.core.measurement import Measurement
from medrecon.diffusion.artefact import KINDS, Artefact, Kind
from medrecon.models.prior import Prior
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import Monitor, OnStep, Solution, Solver, check_fit
from medrecon.solvers.diffusion.base import DiffusionSolver, completed, example_prior
from medrecon.solvers.diffusion.posterior import SampledSolver
from medrecon.solvers.variational.tv import TV


@torch.no_grad()
def jointly(
    method: DiffusionSolver,
    artefact: Artefact,
    A: LinearOperator,
    y: Measurement,
    *,
    generator: torch.Generator,
    scale: float | None = None,
    rounds: int = 3,
    on_step: OnStep | None = None,
) -> Solution:
    """Reconstruct by a method from the data whose artefact is marginal, and say what the artefact is.

    Args:
        scale: deviation of every entry of h, in units of the data; None: read off the data.
        rounds: how often it is, each time from what TV leaves of the data; the first from the data themselves.
    """
    S, warm = _variance(artefact, A, y, scale, rounds, generator)
    run = method.prepare(*artefact.marginal(A, S), generator=generator, warm=_start(method, warm))
    monitor, count = Monitor(run.data.y, len(run.sigmas) - 1, on_step), len(y.data)
    state = completed(run, monitor)
    image, facts = method.image(run, state)
    image = image if A.support is None else image * A.support
    h, spread = artefact.posterior(y.data - A(image), S)
    if isinstance(method, SampledSolver) and method.samples > 1 and state.before is not None:
        each = state.before.image
        assert each is not None
        found = torch.stack([artefact.posterior(y.data - A(x), S)[0] for x in each.unflatten(0, (-1, count))])
        spread = (spread.square() + (found - found.mean(0)).abs().square().sum(0) / (method.samples - 1)).sqrt()
    told = {"artefact": h, "artefact_deviation": spread, "artefact_variance": S}
    told["chi2_with_artefact"] = y.chi2(A(image) + artefact.C(h))
    finished = state.step == len(run.sigmas) - 1
    return Solution(
        image, monitor.residuals, y.chi2(A(image)), finished, {"network_calls": vars(run.space.calls), **facts, **told}
    )


def _variance(
    artefact: Artefact, A: LinearOperator, y: Measurement, scale: float | None, rounds: int, g: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """The variances of h, and the last image of TV; None: there is none."""
    if scale is not None:
        return torch.full_like(artefact.information.expand(len(y.data), *artefact.C.in_shape), scale**2), None
    S, image = artefact.variance(y.data, first=True), None
    for _ in range(rounds - 1):
        image = TV()(*artefact.marginal(A, S), generator=g).image
        S = artefact.variance(y.data - A(image))
    return S, image


def _start(method: DiffusionSolver, image: Tensor | None) -> Tensor | None:
    """The image to start from, where the method does not start from pure noise."""
    return image if method.levels()[0] < method.prior.denoiser.sigma_max else None


@dataclass(frozen=True, eq=False)
class Joint(Solver):
    """x and h of y = A x + C h + n: the image by any method here, with its prior; the artefact by one of its own.

    h is Gaussian with a variance an entry, read off the data: rings have one for all elements and one for few that are
    far off, spikes and zippers are few (spike and slab, by EM). Given the variances, C h + n is noise of a known
    covariance: the method samples x with h integrated out, and h given x has a closed form. The published method runs
    h through a diffusion of its own, which for these priors would come to the same.

    What of h looks like the object cannot be told from it: an offset of all elements alike, which h takes next to
    nothing of, and in general what is smooth over the elements and constant over the views.

    chi^2/m is that of the image alone, as for every solver, and large where there is an artefact: see
    `chi2_with_artefact`.

    Raises:
        ValueError: no such artefact or method, a scale that is not above 0, rounds or samples below 1.
    """

    prior: Prior
    artefact: Kind = "rings"
    """rings: offsets of detector elements; spikes: single samples; zipper: frequencies seen in every readout"""
    scale: float | None = None
    """deviation of every entry of the artefact, in units of the data; default: read off the data"""
    method: str = "resample"
    """the diffusion solver of the image, with its own defaults"""
    samples: int = 1
    """posterior samples, of methods that draw them"""
    rounds: int = 3
    """how often the variances are read off the data"""

    name: ClassVar[str] = "joint"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("ct", "mri")
    summary: ClassVar[str] = "image and artefact (rings, spikes, zipper) together, the image by another solver here"
    needs_prior: ClassVar[bool] = True
    slow: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.artefact not in KINDS:
            raise ValueError(f"Joint: unknown artefact {self.artefact!r}; there are: {', '.join(KINDS)}")
        if self.rounds < 1 or self.samples < 1 or (self.scale is not None and not self.scale > 0):
            raise ValueError(
                "Joint: expected rounds >= 1, samples >= 1 and scale > 0, got "
                f"{self.rounds}, {self.samples}, {self.scale}"
            )
        self.solver()

    def solver(self) -> DiffusionSolver:
        """Return the method."""
        known: dict[str, Any] = named("medrecon.solvers.diffusion", DiffusionSolver, "summary")
        if self.method not in known:
            raise ValueError(f"Joint: unknown method {self.method!r}; there are: {', '.join(sorted(known))}")
        cls = known[self.method]
        if self.samples == 1:
            solver: DiffusionSolver = cls(self.prior)
        elif issubclass(cls, SampledSolver):
            solver = cls(self.prior, samples=self.samples)
        else:
            raise ValueError(f"Joint: {self.method} draws no samples; leave samples at 1, or take daps or mmps")
        return solver

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        check_fit(A, y)
        settings: dict[str, Any] = {"scale": self.scale, "rounds": self.rounds, "on_step": on_step}
        return jointly(self.solver(), KINDS[self.artefact](A, y), A, y, generator=generator, **settings)

    @classmethod
    def examples(cls) -> Iterator[Joint]:
        yield cls(example_prior(), artefact="rings", method="daps", samples=2, rounds=2)
        yield cls(example_prior(), artefact="spikes", method="dds", rounds=2)
