"""A structured artefact beside the image, y = A x + C h + n: how large it is, and the problem with it marginal.

h is Gaussian given its variances S, one an entry; then C h + n is Gaussian noise of another covariance, and every
solver that knows y = A x + noise samples x of p(x, h | y). What h is given x has a closed form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.numerics.linalg import expand
from medrecon.numerics.outliers import (
    detail,
    largest_beside,
    median_over_mean,
    mixed_variance,
    running_median,
    spike_and_slab,
)
from medrecon.operators.algebra import Diagonal
from medrecon.operators.artefacts import Offsets, Tones, WhiteningOf
from medrecon.operators.base import LinearOperator

Kind = Literal["rings", "spikes", "zipper"]
WINDOW = 9
"""Neighbours that an artefact stands out from, along an axis."""
PEAK = 10.0
"""Power over that of the largest neighbour that no peak of an object has."""
NEGLIGIBLE = 1e-2
"""A variance of h below this share of the noise's is none: where there is no artefact, the data stay as they are."""


@dataclass(frozen=True, eq=False)
class Artefact:
    """One kind of artefact for the data of a batch.

    Attributes:
        C: from h to the data.
        y: the data.
        precision: W, of every sample (B or 1, *data).
        information: diag(C^H W C) (B or 1, *h): 1 / variance that the noise leaves of an entry.
        shared: axes of h over which entries come and go together (coils, lines).
        dense: whether every entry has a little of it, beside few that have much.
    """

    C: LinearOperator
    y: Measurement
    precision: Tensor
    information: Tensor
    shared: tuple[int, ...] = ()
    dense: bool = False

    def found(self, residual: Tensor) -> Tensor:
        """Return h (B, *h) of least squares, from y - A x."""
        g = self.information
        weighted = self.C.adjoint(self.y.precision * residual)
        return torch.where(g > 0, weighted / g.clamp_min(torch.finfo(g.dtype).tiny), 0)

    def variance(self, residual: Tensor, *, first: bool = False) -> Tensor:
        """Return S (B, *h) read off a residual y - A x (B, *data): empirical Bayes.

        Entries stand out from their neighbours: the object, or what an estimate x lacks of it, is smooth where h is
        not. So the level without artefact is the larger of the noise and the running median, and a spike-and-slab
        posterior tells which entries are more. Dense artefacts also have a variance that all entries share.

        Args:
            first: the residual is the data themselves, x = 0, whose peaks are the object's: an entry then has to stand
                out from the largest beside it. What was taken for an artefact at first would not be fitted after that.
        """
        m, g = self.found(residual), self.information.expand(len(residual), *self.C.in_shape)
        if self.dense:
            m = detail(m)
        real = 2 if m.is_complex() else 1
        total = self._over(g)
        freedom = real * self._over((g > 0).to(g.dtype))
        power = self._over(g * m.abs().square()) / total.clamp_min(torch.finfo(g.dtype).tiny)
        noise = torch.where(total > 0, freedom / real / total.clamp_min(torch.finfo(g.dtype).tiny), 0)
        level = torch.where(total > 0, power / median_over_mean(freedom), torch.nan)
        base, floor = torch.zeros_like(noise), noise
        if self.dense:
            common = (level - noise).flatten(1).nanmedian(1).values.nan_to_num(0.0).clamp_min(0)
            base = expand(common, level.ndim - 1).expand(level.shape)
        else:
            floor = torch.maximum(noise, self._around(level, first).nan_to_num(0.0))
        chance, slab = spike_and_slab(power, floor + base, freedom)
        S = mixed_variance(chance, noise + base, noise + base + expand(slab, base.ndim - 1)) - noise
        return torch.where((S > NEGLIGIBLE * noise) & (total > 0), S, 0).expand(g.shape)

    def _over(self, v: Tensor) -> Tensor:
        return v.sum(self.shared, keepdim=True) if self.shared else v

    def _around(self, level: Tensor, first: bool) -> Tensor:
        """The running median, or the largest neighbour, over the axes that are not shared, at most two."""
        kept = [axis for axis in range(1, level.ndim) if level.shape[axis] > 1][-2:]
        if not kept:
            return level
        moved = level.movedim(kept, list(range(-len(kept), 0)))
        found = PEAK * largest_beside(moved, len(kept)) if first else running_median(moved, WINDOW, len(kept))
        return found.movedim(list(range(-len(kept), 0)), kept)

    def marginal(self, A: LinearOperator, S: Tensor) -> tuple[LinearOperator, Measurement]:
        """Return the problem in x alone, its noise C h + n: y' = A' x + n'."""
        W = self.precision
        if isinstance(self.C, Diagonal):
            return A, Measurement(self.y.data, W / (1 + S * W))
        white = WhiteningOf(self.C, W, S, self.information)
        return white @ A, Measurement(white(self.y.data), (white.root > 0).to(W.dtype))

    def posterior(self, residual: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and deviation (B, *h) of h given x and y, from y - A x; it is linear in x."""
        share = S * self.information / (1 + S * self.information)
        return share * self.found(residual), (S / (1 + S * self.information)).sqrt()


def rings(A: LinearOperator, y: Measurement) -> Artefact:
    """Return offsets of the detector elements, constant over the views; sparse large ones and small ones in all."""
    if len(A.out_shape) != 2 or y.data.is_complex():
        raise ValueError(f"rings are of sinograms (views, elements), and {A!r} has data of another kind")
    C = Offsets(*A.out_shape, dtype=A.out_dtype)
    W = _every(A, y)
    return Artefact(C, y, W, W.sum(1), dense=True)


def spikes(A: LinearOperator, y: Measurement) -> Artefact:
    """Return outliers of single samples; the coils of k-space have theirs at the same time."""
    C = Diagonal(torch.ones(A.out_shape, dtype=A.out_dtype, device=y.data.device))
    coils = (1,) if len(A.out_shape) == 3 else ()
    W = _every(A, y)
    return Artefact(C, y, W, W, coils)


def zipper(A: LinearOperator, y: Measurement) -> Artefact:
    """Return interference of few frequencies: positions along the readout, all lines and coils alike."""
    if len(A.out_shape) != 3 or not y.data.is_complex() or A.sampled is None:
        raise ValueError(f"a zipper is one of Cartesian k-space (coils, H, W), and {A!r} has data of another kind")
    W = _every(A, y)
    along = [axis for axis in (-2, -1) if bool((W == W.narrow(axis, 0, 1)).all())]
    if not along:
        raise ValueError("a zipper is one of whole readouts, and here no axis of k-space is measured as a whole alike")
    return Artefact(Tones(A.out_shape, along[0]), y, W, W, (1, -3 - along[0]))


def _every(A: LinearOperator, y: Measurement) -> Tensor:
    """The precision of every sample, (B or 1, *data)."""
    W = y.precision[(None,) * (len(A.out_shape) + 1 - y.precision.ndim)]
    return W.expand(-1, *A.out_shape)


KINDS: dict[str, Callable[[LinearOperator, Measurement], Artefact]] = {
    "rings": rings,
    "spikes": spikes,
    "zipper": zipper,
}
