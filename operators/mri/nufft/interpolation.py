"""Interpolation between a periodic 2D grid and samples at any place, with a Kaiser-Bessel kernel; its exact transpose.

On the CPU compiled loops with separable weights, on a GPU a real sparse matrix and its transpose, for all channels at
once.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medrecon.numerics.threads import compiled


@dataclass(frozen=True, eq=False)
class Interpolation:
    """Samples (n, S) from grids (n, G_0, G_1): sums of the nearest width^2 points times a Kaiser-Bessel kernel.

    Attributes:
        place: (S, 2) float64 on the CPU, in grid points; the grid is periodic.
        grid_shape: (G_0, G_1).
        width: grid points the kernel I_0(beta sqrt(1 - (2 d / width)^2)) covers along an axis, 2 to 16.
        beta: of both axes.
    """

    place: Tensor
    grid_shape: tuple[int, int]
    width: int
    beta: tuple[float, float]

    def to_samples(self, grid: Tensor) -> Tensor:
        """Interpolate grids, complex (n, G_0, G_1) -> (n, S), in their precision and on their device."""
        y = grid.new_empty(len(grid), len(self.place))
        if grid.device.type != "cpu":
            y[:, self._samples[0].to(grid.device)] = _product(self._matrices(grid)[0], grid.flatten(1))
            return y
        from medrecon.operators.mri.nufft import interpolation_kernels as kernels

        for g, out in zip(grid.split(kernels.CHANNELS), y.split(kernels.CHANNELS), strict=True):
            lanes = self._lanes(g)
            compiled(kernels, "lanes_last")(g.contiguous().numpy(), lanes)
            interpolate, _ = compiled(kernels, "loops")(self.width, len(g) == kernels.CHANNELS)
            interpolate(lanes, out.numpy(), *self._arguments(grid.real.dtype))
        return y

    def to_grid(self, y: Tensor) -> Tensor:
        """Spread samples (n, S) on grids (n, G_0, G_1): the transpose."""
        if y.device.type != "cpu":
            in_order = y[:, self._samples[0].to(y.device)]
            return _product(self._matrices(y)[1], in_order).view(len(y), *self.grid_shape)
        from medrecon.operators.mri.nufft import interpolation_kernels as kernels

        grid = y.new_empty(len(y), *self.grid_shape)
        for part, out in zip(y.split(kernels.CHANNELS), grid.split(kernels.CHANNELS), strict=True):
            lanes = self._lanes(part)
            _, spread = compiled(kernels, "loops")(self.width, len(part) == kernels.CHANNELS)
            spread(lanes, part.contiguous().numpy(), *self._arguments(y.real.dtype))
            compiled(kernels, "lanes_first")(lanes, out.numpy())
        return grid

    @functools.cached_property
    def _samples(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Samples in the order of tiles of the grid: order (S,), first grid point (S, 2), weights (S, 2, width), and
        where each band of rows begins."""
        from medrecon.operators.mri.nufft.interpolation_kernels import BAND

        starts, weights = [], []
        for place, g, beta in zip(self.place.T, self.grid_shape, self.beta, strict=True):
            first = torch.ceil(place - self.width / 2)
            distance = (place - first)[:, None] - torch.arange(self.width, dtype=torch.float64)
            inside = (1 - (2 * distance / self.width).square()).clamp_min(0).sqrt()
            weights.append(torch.special.i0(beta * inside))
            starts.append(first.long() % g)
        start = torch.stack(starts, 1)
        tile = (start // BAND).to(torch.int64)
        columns = self.grid_shape[1] // BAND + 1
        order = torch.argsort(tile[:, 0] * columns + tile[:, 1], stable=True)
        rows = self.grid_shape[0] // BAND + 1
        bands = torch.searchsorted(tile[order, 0].contiguous(), torch.arange(rows + 1))
        return order.int(), start[order].int(), torch.stack(weights, 1)[order], bands

    @functools.cached_property
    def _tables(self) -> dict[Any, tuple[Any, ...]]:
        """What the loops and products read, for each precision and device that was used."""
        return {}

    def _arguments(self, dtype: torch.dtype) -> tuple[Any, ...]:
        """The samples for the compiled loops."""
        if dtype not in self._tables:
            order, start, weights, bands = self._samples
            self._tables[dtype] = tuple(t.numpy() for t in (order, start, weights.to(dtype), bands))
        return self._tables[dtype]

    def _matrices(self, like: Tensor) -> tuple[Any, ...]:
        """The interpolation (S, G_0 G_1), samples sorted, as a real CSR matrix, and its transpose: for a GPU."""
        key = (like.real.dtype, like.device)
        if key not in self._tables:
            (_, start, weights, _), (height, width) = self._samples, self.grid_shape
            reach = torch.arange(self.width, device=like.device)
            rows, columns = ((start[:, i].to(like.device)[:, None] + reach) % g for i, g in ((0, height), (1, width)))
            place = (rows[:, :, None] * width + columns[:, None, :]).flatten()
            w = weights.to(like.device, like.real.dtype)
            value = (w[:, 0, :, None] * w[:, 1, None, :]).flatten()
            ends = torch.arange(len(start) + 1, device=like.device) * self.width**2
            by_place = torch.argsort(place, stable=True)
            grid_ends = torch.searchsorted(place[by_place], torch.arange(height * width + 1, device=like.device))
            sample = by_place // self.width**2
            sizes = (len(start), height * width), (height * width, len(start))
            self._tables[key] = (
                torch.sparse_csr_tensor(ends, place, value, sizes[0], check_invariants=False),
                torch.sparse_csr_tensor(grid_ends, sample, value[by_place], sizes[1], check_invariants=False),
            )
        return self._tables[key]

    def _lanes(self, like: Tensor) -> Any:
        height, width = (g + self.width for g in self.grid_shape)
        return torch.zeros(height, width * 2 * len(like), dtype=like.real.dtype).numpy()


def _product(matrix: Tensor, x: Tensor) -> Tensor:
    """Complex (n, columns) -> (n, rows) by a real matrix."""
    parts = torch.view_as_real(x.T.contiguous()).flatten(1)
    return torch.view_as_complex((matrix @ parts).view(-1, len(x), 2)).T.contiguous()
