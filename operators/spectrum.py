"""Spectrum: the singular value decomposition of an operator whose samples are the components of an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A x = d V^H x for every image x that is 0 where A sees nothing, V unitary: each sample is one component of x.

    With d = u s, |u| = 1, it is A = U diag(s) V^H, U = diag(u). Whitened data have the same V: W^(1/2) A x =
    (W^(1/2) d) V^H x, whatever the precision W of each sample, so that noise is known for every component.

    Attributes:
        d: singular values |d| with their phase, real or complex, broadcasts to (B, *out_shape); 0: not measured.
        components: V^H, (B, *in_shape) -> (B, *out_shape).
        image: V, (B, *out_shape) -> (B, *in_shape).
    """

    d: Tensor
    components: Callable[[Tensor], Tensor]
    image: Callable[[Tensor], Tensor]
