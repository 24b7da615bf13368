"""Exact solves of (A^H A + w) x = b for Cartesian masks that are constant along one axis, the readout.

The transforms along the readout cancel in A^H A = S^H F^H M^2 F S, so that it falls apart into one Hermitian n x n
system a readout position h, n the number of phase-encoding positions:

    N_h = P * (S_h^H S_h),  P[j, k] = p[(j - k) mod n],  p the inverse transform of mask^2 in FFT order,

elementwise product of a circulant and of the Gram matrix of the maps S_h (C, n). Cholesky factors of N_h + w are kept:
on one core they take 0.5 s for 320 x 320 pixels and serve one weight, an eigendecomposition would take 5 s.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import torch
from torch import Tensor

CACHE_BYTES = 2**30
"""Factors kept: of four slices of 320 x 320 in complex64 (262 MB each), the latest used."""
SHORT = 96
"""Systems up to this size are factored for their first use: that costs no more than 30 iterations of CG (8 coils)."""
_REMEMBERED = 256  # weights asked for
_BLOCK_BYTES = {"cpu": 2**22, "cuda": 2**28}  # of systems handled at once: on a CPU they stay in its cache

Key = tuple[int, int, float]
"""Index of the maps, of the mask, and the weight."""


class LineSystems:
    """(S^H F^H M^2 F S + w)^-1, w > 0, for one set of maps an item or for all, and the same of masks.

    Args:
        maps: (M, C, H, W).
        squared: mask^2 along the phase-encoding axis, centred, (K, n) float64.
        axis: the phase-encoding axis, -1 (n = W) or -2 (n = H).
    """

    def __init__(self, maps: Tensor, squared: Tensor, axis: int) -> None:
        self.maps, self.axis = maps, axis
        self.kernel = torch.fft.ifft(torch.fft.ifftshift(squared, dim=-1), dim=-1)
        self._factors: OrderedDict[tuple[Key, torch.dtype, torch.device], Tensor] = OrderedDict()
        self._asked: OrderedDict[float, None] = OrderedDict()

    def note(self, weights: list[float]) -> None:
        """Remember that these weights were asked for."""
        for weight in weights:
            self._asked[weight] = None
            self._asked.move_to_end(weight)
        while len(self._asked) > _REMEMBERED:
            self._asked.popitem(last=False)

    def pays(self, weights: list[float], dtype: torch.dtype) -> bool:
        """Tell whether factors are worth making, for one weight or one an item.

        They are when it was asked for before, or the lines are short, and all of them can be kept.
        """
        count = max(len(self.maps), len(self.kernel), len(weights))
        needed = len(set(self._keys(weights * count if len(weights) == 1 else weights)))
        again = all(weight in self._asked for weight in weights)
        return needed * self._bytes(dtype) <= CACHE_BYTES and (again or self.kernel.shape[-1] <= SHORT)

    def solve(self, b: Tensor, weights: list[float]) -> Tensor:
        """Return x (B, H, W) for b (B, H, W) and one weight an item; items that share a system are solved together."""
        keys = self._keys(weights)
        x = torch.empty_like(b)
        for key in dict.fromkeys(keys):
            items = [i for i, k in enumerate(keys) if k == key]
            right = (b[items] if self.axis == -1 else b[items].mT).permute(1, 2, 0).contiguous()  # (lines, n, items)
            factors = self._factor(key, b)
            for part in self._blocks(len(right), b):
                factor = factors[part]
                half = torch.linalg.solve_triangular(factor, right[part], upper=False)
                # Conjugates instead of the conjugate transpose, which would copy the factor.
                half = torch.linalg.solve_triangular(factor.mT, half.conj().resolve_conj(), upper=True)
                right[part] = half.conj()
            lines = right.permute(2, 0, 1)
            x[items] = lines if self.axis == -1 else lines.mT
        return x

    def _keys(self, weights: list[float]) -> list[Key]:
        maps, masks = len(self.maps) > 1, len(self.kernel) > 1
        return [(i * maps, i * masks, weight) for i, weight in enumerate(weights)]

    def _bytes(self, dtype: torch.dtype) -> int:
        height, width = self.maps.shape[-2:]
        return height * width * self.kernel.shape[-1] * dtype.itemsize

    def _factor(self, key: Key, like: Tensor) -> Tensor:
        """The factors (lines, n, n) of a key from the cache, which forgets the oldest."""
        full = (key, like.dtype, like.device)
        if full not in self._factors:
            size = self._bytes(like.dtype)
            while self._factors and sum(f.nbytes for f in self._factors.values()) + size > CACHE_BYTES:
                self._factors.popitem(last=False)
            factor = self._make(key, like)
            if size > CACHE_BYTES:
                return factor
            self._factors[full] = factor
        self._factors.move_to_end(full)
        return self._factors[full]

    def _blocks(self, lines: int, like: Tensor) -> Iterator[slice]:
        room = _BLOCK_BYTES["cpu" if like.device.type == "cpu" else "cuda"]
        step = max(1, room // (self.kernel.shape[-1] ** 2 * like.itemsize))
        yield from (slice(start, start + step) for start in range(0, lines, step))

    def _make(self, key: Key, like: Tensor) -> Tensor:
        n = self.kernel.shape[-1]
        maps = self.maps[key[0]]
        by_line = (maps if self.axis == -1 else maps.mT).transpose(0, 1)  # (lines, C, n)
        index = torch.arange(n)
        circulant = self.kernel[key[1]].cpu()[(index[:, None] - index) % n].to(like.device)
        factors = like.new_empty((len(by_line), n, n)).mT  # columns are contiguous, as LAPACK wants them
        for part in self._blocks(len(by_line), like):
            factor, info = _cholesky(by_line[part].to(like.device, like.dtype), circulant, key[2])
            if bool(info.any()):  # the weight is below the rounding of the system
                factor, info = _cholesky(by_line[part].to(like.device, torch.complex128), circulant, key[2])
            if bool(info.any()):
                raise ValueError(f"prox: weight {key[2]} is too small beside A^H A; take a larger one or method='cg'")
            factors[part] = factor
        return factors


def _cholesky(maps: Tensor, circulant: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Factors of P * (S^H S) + weight for maps (lines, C, n), and whether they failed."""
    system = (maps.mH @ maps).mul_(circulant.to(maps.dtype))
    system.diagonal(dim1=-2, dim2=-1).add_(weight)
    factor, info = torch.linalg.cholesky_ex(system)
    return factor, info
