"""DiffusionMBIR: a 2D prior slice by slice, total variation across slices (arXiv 2211.10655, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from medrecon.diffusion.guide import Estimate
from medrecon.diffusion.trust import PixelError
from medrecon.models.prior import Prior
from medrecon.numerics.linalg import cg
from medrecon.solvers.diffusion.base import Task, example_prior
from medrecon.solvers.diffusion.proximal.dds import DDS, DDSGuide


@dataclass(frozen=True, eq=False)
class Stack:
    """D, the difference of neighbouring slices, (B, H, W) -> (B - 1, H, W): the last one has no next, and D none of it.

    Of complex images without their known phases, which are another for each slice.
    """

    phase: Tensor | None
    """unit-modulus complex (B or 1, H, W), or None"""

    def forward(self, x: Tensor) -> Tensor:
        return torch.diff(x if self.phase is None else x * self.phase.conj(), dim=0)

    def adjoint(self, d: Tensor) -> Tensor:
        none = torch.zeros_like(d[:1])
        x = -torch.diff(d, dim=0, prepend=none, append=none)
        return x if self.phase is None else x * self.phase


def shrunk(d: Tensor, threshold: float) -> Tensor:
    """Return d with its modulus less `threshold`, 0 at least: the proximal point of threshold |.|."""
    size = d.abs()
    return d * ((size - threshold).clamp_min(0) / size.clamp_min(torch.finfo(size.dtype).tiny))


@dataclass(frozen=True, eq=False)
class DiffusionMBIRGuide(DDSGuide):
    """One step of ADMM a noise level, from v = D(z0):

    x = argmin |W^(1/2) (A x - y)|^2 + |(x - v) / tau|^2 + rho |D x - q + u|^2, q = shrink(D x + u), u += D x - q.
    """

    rho: float = 0.0
    """1 / (image units)^2"""
    threshold: float = 0.0
    """of `shrunk`, image units"""
    split: tuple[Tensor, ...] = ()
    """q and u (B - 1, H, W) of the step before"""

    def after(self, before: Estimate | None) -> DiffusionMBIRGuide:
        return self if before is None else replace(self, split=before.split)

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        if len(z) == 1:
            return super().__call__(z, sigma)
        clean = self.space.denoise(z, sigma)
        v = self.space.decode(clean)
        projection = self.data.A(v)
        tau = self.deviation(v, projection, sigma)
        stack = Stack(self.space.prior.phase)
        q, u = self.split or (shrunk(stack.forward(v), self.threshold), torch.zeros_like(v[1:]))
        x = self.coupled(stack, v, tau, projection, q - u)
        d = stack.forward(x) + u
        q = shrunk(d, self.threshold)
        return Estimate(clean, self.space.carried(clean, v, x), x, sigma, split=(q, d - q))

    def coupled(self, stack: Stack, v: Tensor, tau: Tensor, projection: Tensor, goal: Tensor) -> Tensor:
        """Return the x above for q - u = `goal`, by CG on s in x = v + tau s, the stack being one vector."""
        data = self.data
        pull = data.A.adjoint(data.y.precision * (data.y.data - projection))
        pull = pull + self.rho * stack.adjoint(goal - stack.forward(v))

        def matrix(s: Tensor) -> Tensor:
            w = tau * s
            return s + tau * (data.normal(w) + self.rho * stack.adjoint(stack.forward(w)))

        s = cg(matrix, tau * pull, ndim=v.ndim, iterations=data.iterations, tolerance=data.tolerance).x
        return v + tau * s


@dataclass(frozen=True, eq=False)
class DiffusionMBIR(DDS):
    """DDS on a stack of neighbouring slices with total variation from each to the next, none from the last to the first
    as in the published code; of one slice it is DDS.

    rho and the threshold are in units of the stack's own mean |D x|, that of the reconstruction it starts from: thick
    slices, which differ more, are coupled less, whatever their distance in mm. On a CPU each slice of 256 x 256 takes
    10 MB of memory; on a GPU the networks run on the whole stack at once.

    Raises:
        ValueError: rho or the threshold negative, or what `GuidedSolver` refuses.
    """

    rho: float = 0.1
    """weight of the differences of neighbours against `threshold`'s split, over the mean square of |D x|"""
    threshold: float = 1.0
    """difference that is taken for none, lambda / rho of the paper, over the mean |D x|"""

    name: ClassVar[str] = "diffusion-mbir"
    summary: ClassVar[str] = "a 2D prior slice by slice, total variation across the slices of a stack"
    couples: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rho < 0 or self.threshold < 0:
            raise ValueError(f"DiffusionMBIR: expected rho and threshold >= 0, got {self.rho}, {self.threshold}")

    def guide(self, task: Task) -> DiffusionMBIRGuide:
        dds = super().guide(task)
        unit = typical_difference(dds.error, task.space.prior.phase)
        return DiffusionMBIRGuide(dds.space, dds.data, dds.error, dds.anneal, self.rho / unit**2, self.threshold * unit)

    @classmethod
    def paper(cls, prior: Prior) -> DiffusionMBIR:
        """Return it with the published numbers, second-hand: lambda 0.04 and rho 10 for images from 0 to 1, one CG step
        a level, predictor and corrector on 2000 levels from pure noise."""
        # Its threshold, 0.004 of the range of CT, is 16 HU; the mean |D x| of validation slices is 19 HU. rho has the
        # published number, not its unit, which is that of a projector that is not normalised.
        return cls(prior, steps=2000, start=None, sampler="pc", eta=1.0, rho=10.0, threshold=0.9, cg_iterations=1)

    @classmethod
    def examples(cls) -> Iterator[DiffusionMBIR]:
        yield cls(example_prior(), steps=4)


def typical_difference(error: PixelError, phase: Tensor | None) -> float:
    """Return the mean |D x| of the start in image units; of none, a quarter of what images of the prior deviate.

    At least a hundredth of that: slices that are all alike would be coupled infinitely.
    """
    deviation = float(error.size.mean())
    if not error.warm or len(error.start) == 1:
        return 0.25 * deviation
    return max(float(Stack(phase).forward(error.start).abs().mean()), 0.01 * deviation)
