"""What plug-and-play solvers have in common: the loop, the denoiser of images, and the data's proximal step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.derivatives import check_finite
from medrecon.diffusion.latent import LatentSpace
from medrecon.diffusion.trust import PixelError, one_number
from medrecon.models.prior import Prior
from medrecon.numerics.linalg import dot, expand
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import Monitor, OnStep, Solution, Solver, check_fit

Images = tuple[Tensor, ...]
"""What an iteration goes on from, each (B, *in_shape)."""


class Bench:
    """The two halves of an iteration, both in image units: the prior's denoiser and the data.

    Noise levels are those of the prior, `size` what an image deviates at level 1.
    """

    def __init__(self, space: LatentSpace, data: DataConsistency) -> None:
        self.space, self.data = space, data
        middle = torch.zeros_like(self.space.encode(data.A.adjoint(data.y.data)))
        error = PixelError.around(self.space, middle, warm=False).isotropic
        self.middle, self.size = error.start, error.size

    def denoised(self, x: Tensor, sigma: float) -> Tensor:
        """Return images without noise of a level. What an autoencoder cannot express of them stays, but not what is at
        right angles to a known phase."""
        z, phase = self.space.encode(x), self.space.prior.phase
        x = x if phase is None else (x * phase.conj()).real * phase
        return x + self.space.decode(self.space.denoise(z, sigma)) - self.space.decode(z)

    @cached_property
    def curvature(self) -> Tensor:
        """The largest of -log p(y | x) along what the prior deviates by at level 1, (B,)."""
        return self.data.curvature(self.size)

    def descended(self, x: Tensor, length: Tensor) -> Tensor:
        """Return images a step of the gradient of -log p(y | x) on, `length` (B,) in units of the prior's variance."""
        scale = expand(length, x.ndim - 1) * self.size.square() / (2 if x.is_complex() else 1)
        return x - scale * self.data.gradient(x)

    def prox(self, v: Tensor, sigma: float) -> Tensor:
        """Return what the data make of images known to a noise level: argmin chi^2(x) + |(x - v) / (sigma size)|^2."""
        return self.data.prox(v, one_number(sigma * self.size))


@dataclass(frozen=True, eq=False)
class PlugAndPlay(Solver):
    """An iteration of denoiser and data at noise level `sigma`, from the image nearest the prior's middle.

    Both halves are in units of the noise: the denoiser is that of z = x + sigma n, and the data are whitened. A slice
    is done once a step changes it by less than `tolerance`. For a denoiser of your own: `models.adapters.function`.

    Raises:
        ValueError: a setting not positive, or a noise level that the denoiser does not know.
    """

    prior: Prior
    iterations: int = 50
    """at most"""
    sigma: float = 0.1
    """noise level of the denoiser, in deviations of what it works on"""
    tolerance: float = 1e-4
    """a slice is done once a step changes it by less than this fraction; 0: after all iterations"""

    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("ct", "mri")
    needs_prior: ClassVar[bool] = True

    def __post_init__(self) -> None:
        low, high = self.prior.denoiser.sigma_min, self.prior.denoiser.sigma_max
        if self.iterations < 1 or self.tolerance < 0 or not low <= self.sigma <= high:
            raise ValueError(
                f"{self.name}: expected iterations >= 1, tolerance >= 0 and sigma within what {self.prior.name} knows, "
                f"{low:g} to {high:g}, got {self.iterations}, {self.tolerance}, {self.sigma}"
            )

    def start(self, bench: Bench, x: Tensor) -> Images:
        """Return what the first iteration goes on from, the image first."""
        return (x,)

    @abstractmethod
    def advance(self, bench: Bench, images: Images, index: int) -> Images:
        """Return what the next iteration goes on from, the image first."""

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
        """Reconstruct; warm: the image (B, *in_shape) to start from, by default the one nearest the prior's middle."""
        check_fit(A, y)
        space, monitor = LatentSpace(self.prior, A, y), Monitor(y, self.iterations, on_step)
        bench = Bench(space, DataConsistency(A, y, iterations=30))
        first = bench.prox(bench.middle, 1.0) if warm is None else warm
        image, settled = self.iterated(bench, first, lambda x: monitor(A(x)))
        ended = self.tolerance == 0 and len(monitor.residuals) == self.iterations
        return monitor.solution(A, image, ended or settled, network_calls=vars(space.calls))

    def iterated(self, bench: Bench, x: Tensor, watch: Callable[[Tensor], bool]) -> tuple[Tensor, bool]:
        """Return the image (B, *in_shape) that the iteration comes to from x, and whether all slices are done.

        Args:
            watch: called with the image after every step; True stops.
        """
        images, ndim = self.start(bench, x), x.ndim - 1
        done = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for k in range(self.iterations):
            moved = self.advance(bench, images, k)
            check_finite(moved[0], f"{self.name}, step {k + 1} of {self.iterations}: the image")
            x, change = moved[0], moved[0] - images[0]
            settled = dot(change, change, ndim) < self.tolerance**2 * dot(x, x, ndim)
            still = expand(done, ndim)
            images = tuple(torch.where(still, old, new) for old, new in zip(images, moved, strict=True))
            done = done | settled
            if watch(images[0]) or bool(done.all()):
                break
        return images[0], bool(done.all())
