"""Every solver with a prior, found by itself, names what is wrong: a network that breaks, a prior of other images."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from medrecon.core.discover import classes
from medrecon.core.measurement import Measurement
from medrecon.models.denoiser import Denoiser
from medrecon.models.exact.gaussian import IdentityAutoencoder, smooth_gaussian
from medrecon.models.prior import Prior
from medrecon.models.values import Linear
from medrecon.operators.algebra import Diagonal
from medrecon.solvers.base import Solution, Solver
from medrecon.solvers.diffusion.base import DiffusionSolver, LevelSolver

SIZE = 8
LEARNED = [cls for cls in classes("medrecon.solvers", Solver) if cls.needs_prior]
EXAMPLES = [pytest.param(next(iter(cls.examples())), id=cls.name) for cls in LEARNED]
every_solver = pytest.mark.parametrize("solver", EXAMPLES)


@dataclasses.dataclass(frozen=True, eq=False)
class Broken(Denoiser):
    """A denoiser that is right but for its fault."""

    inner: Denoiser
    fault: str
    count: list[int] = dataclasses.field(default_factory=list)

    @property
    def sigma_min(self) -> float:  # type: ignore[override]
        return self.inner.sigma_min

    @property
    def sigma_max(self) -> float:  # type: ignore[override]
        return self.inner.sigma_max

    def __call__(self, z: Tensor, sigma: Tensor) -> Tensor:
        self.count.append(1)
        clean: Tensor = self.inner(z, sigma)
        if self.fault == "nan at once" or (self.fault == "nan later" and len(self.count) > 1):
            return clean * float("nan")
        if self.fault == "one infinite pixel":
            return torch.where(torch.arange(SIZE) == 0, float("inf"), clean)
        return {"grows": 1e20 * z, "blind": z}.get(self.fault, clean)


def prior(denoiser: Denoiser | None = None) -> Prior:
    inner = smooth_gaussian((1, SIZE, SIZE)) if denoiser is None else denoiser
    return Prior(IdentityAutoencoder(), inner, Linear(-1.0, 1.0), "a.u.", "MR", error=0.0, name="faulty")


def solved(solver: Any, given: Prior) -> Solution:
    g = torch.Generator().manual_seed(0)
    mask = (torch.rand(SIZE, SIZE, generator=g) < 0.5).float()
    y = Measurement(mask * torch.randn(1, SIZE, SIZE, generator=g), (mask / 0.05**2)[None])
    warm = {"warm": y.data} if isinstance(solver, DiffusionSolver) else {}
    found: Solution = dataclasses.replace(solver, prior=given)(Diagonal(mask), y, generator=g, **warm)
    return found


@every_solver
@pytest.mark.parametrize("fault", ["nan at once", "nan later", "one infinite pixel"])
def test_a_network_that_breaks_is_named(solver: Any, fault: str) -> None:
    with pytest.raises(ValueError, match=r"noise level .*: what the denoiser of faulty gave is not finite"):
        solved(solver, prior(Broken(smooth_gaussian((1, SIZE, SIZE)), fault)))


@every_solver
def test_steps_that_grow_without_end_are_named(solver: Any) -> None:
    with pytest.raises(ValueError, match=r"noise level .* denoiser of faulty g.* (is not finite|the steps diverge)"):
        solved(solver, prior(Broken(smooth_gaussian((1, SIZE, SIZE)), "grows")))


def from_noise(solver: Any) -> Any:
    """The solver from pure noise; None: it has a start of its own, or no levels."""
    changed = dataclasses.replace(solver, start=None) if isinstance(solver, LevelSolver) else None
    return changed if changed is not None and changed.levels()[0] > 0.99 * changed.prior.denoiser.sigma_max else None


FROM_NOISE = [pytest.param(from_noise(p.values[0]), id=p.id) for p in EXAMPLES if from_noise(p.values[0]) is not None]


@pytest.mark.parametrize("solver", FROM_NOISE)
def test_a_denoiser_that_ignores_the_noise_level_is_named(solver: Any) -> None:
    """D(z) = z: finite, and the pure noise at which the levels begin would stay wherever nothing was measured."""
    with pytest.raises(ValueError, match="does not know this noise level"):
        solved(solver, prior(Broken(smooth_gaussian((1, SIZE, SIZE)), "blind")))


@every_solver
def test_a_prior_of_another_size_or_of_more_channels_is_named(solver: Any) -> None:
    for shape in ((1, SIZE + 4, SIZE), (2, SIZE, SIZE)):
        with pytest.raises(ValueError, match=r"latents of shape .* alone, got"):
            solved(solver, prior(smooth_gaussian(shape)))


@every_solver
def test_a_prior_of_complex_images_for_real_ones_is_named(solver: Any) -> None:
    both = dataclasses.replace(
        prior(), autoencoder=IdentityAutoencoder(complex=True), denoiser=smooth_gaussian((2, SIZE, SIZE))
    )
    with pytest.raises(ValueError, match="is a prior of complex ones"):
        solved(solver, both)
