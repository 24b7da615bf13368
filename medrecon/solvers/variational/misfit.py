"""chi^2 of an image from the normal operator alone: solvers that need no samples form none."""

from __future__ import annotations

from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.numerics.linalg import summed
from medrecon.operators.base import LinearOperator
from medrecon.operators.normal import normal


class Misfit:
    """chi^2(x) = |y|_W^2 - 2 Re<x, b> + <x, N x> with N = A^H W A, b = A^H W y, W = diag(precision).

    The sums are in float64, but N x and b have the rounding of the data: chi^2/m is good to about 1e-7 of |y|_W^2 / m,
    the mean square signal-to-noise of the samples. For progress and for noise-limited data that is enough; the chi^2
    of a `Solution` is always that of its projection.

    Attributes:
        target: b, (B, *in_shape). normal: x -> N x. gradient of chi^2 / 2 at x: N x - b.
    """

    def __init__(self, A: LinearOperator, y: Measurement) -> None:
        self.normal = normal(A, y.precision)
        self.target = A.adjoint(y.precision * y.data)
        self._energy, self._measured = _sum(y.precision * y.data.abs().square()), y.measured

    def chi2(self, x: Tensor, seen: Tensor) -> Tensor:
        """chi^2 / m of each item, (B,) float64, for x and seen = N x."""
        product = x.conj() * (seen - 2 * self.target)
        return ((self._energy + _sum(product.real)) / self._measured).clamp_min(0)


def _sum(values: Tensor) -> Tensor:
    return summed(values.double().flatten(1), 1)
