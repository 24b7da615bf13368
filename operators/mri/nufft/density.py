"""Density compensation: the area of k-space [(cycles per field of view)^2] that each sample stands for.

With these weights the adjoint of the samples is the conventional gridding reconstruction, amplitudes right: on a full
Cartesian grid every weight is 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medrecon.operators.mri.nufft.engine import checked_trajectory
from medrecon.operators.mri.nufft.interpolation import Interpolation
from medrecon.sampling.radial import readout


def radial_density(angles: Tensor, samples: int, shape: tuple[int, int]) -> Tensor:
    """Return weights (spokes * samples,) float64 of `trajectories.radial`: |k| dk times the angle of each spoke.

    A spoke's angle reaches half-way to its neighbours modulo pi; spokes at one angle share it. The cell at the centre
    is integrated, not zero: dk^2 / 4 times the angle.
    """
    order = torch.argsort(torch.remainder(angles.to("cpu", torch.float64), math.pi))
    theta = torch.remainder(angles.to("cpu", torch.float64), math.pi)[order]
    gap = torch.cat([theta, theta[:1] + math.pi]).diff()
    share = torch.empty_like(theta)
    share[order] = (gap + gap.roll(1)) / 2
    rho, half = readout(samples), 0.5 / samples
    outer, inner = rho + half, rho - half
    # Integral of |rho| over the cell.
    ramp = (outer * outer.abs() - inner * inner.abs()) / 2
    return math.prod(shape) * torch.outer(share, ramp).flatten()


def pipe_menon(trajectory: Tensor, shape: tuple[int, int], iterations: int = 30) -> Tensor:
    """Iterate weights (S,) float64 of any 2D trajectory: w <- w / (w * kernel), Pipe & Menon, MRM 41 (1999) 179.

    The kernel is a Kaiser-Bessel window 4 wide on the Cartesian grid, squared by gridding and back, as in
    `sigpy.mri.pipe_menon_dcf`; the scale is that of `as_area`. Right on average over the kernel only: near the
    centre of spokes `voronoi` is more exact.
    """
    k = checked_trajectory(trajectory, shape)
    width, beta = 4, 8.0
    # A margin, so that no two edges of k-space are neighbours.
    grid = (shape[0] + 2 * width, shape[1] + 2 * width)
    spread = Interpolation(k, grid, width, (beta, beta))
    w = torch.ones(1, len(k), dtype=torch.complex64)
    for _ in range(iterations):
        w = w / spread.to_samples(spread.to_grid(w)).real.clamp_min(torch.finfo(torch.float32).tiny)
    return as_area(w[0].real.double(), k)


def voronoi(trajectory: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return weights (S,) float64: areas of the Voronoi cells (Rasche et al., IEEE TMI 18 (1999) 385).

    Repeated samples share one cell. The cells at the edge are closed by their mirror images, half a cell's width
    outside.
    """
    from scipy.spatial import Voronoi

    k = checked_trajectory(trajectory, shape)
    scale = torch.tensor(shape, dtype=torch.float64)
    places, which, count = torch.unique((k / scale * 2**40).round(), dim=0, return_inverse=True, return_counts=True)
    places = places / 2**40
    radius = places.norm(dim=1, keepdim=True)
    edge = float(radius.max())
    border = edge + edge / math.sqrt(len(places))
    mirrored = (places * (2 * border / radius.clamp_min(1e-12) - 1))[radius[:, 0] > 0.5 * edge]
    cells = Voronoi(torch.cat([places, mirrored]).numpy())
    regions = [cells.regions[i] for i in cells.point_region[: len(places)]]
    area = _areas(places, torch.from_numpy(cells.vertices), regions)
    return math.prod(shape) * (area / count)[which]


def _areas(places: Tensor, vertices: Tensor, regions: list[list[int]]) -> Tensor:
    """Area of the convex cell around each place (n, 2), its corners being vertices (m, 2)."""
    cell = torch.repeat_interleave(torch.arange(len(regions)), torch.tensor([len(r) for r in regions]))
    spoke = vertices[torch.tensor([i for region in regions for i in region])] - places[cell]
    # Corners in turn around their place: by angle within each cell.
    turn = torch.atan2(spoke[:, 1], spoke[:, 0])
    order = torch.argsort(turn)
    order = order[torch.argsort(cell[order], stable=True)]
    spoke, cell = spoke[order], cell[order]
    last = torch.cat([cell.diff() != 0, torch.ones(1, dtype=torch.bool)])
    following = torch.arange(1, len(cell) + 1)
    first = torch.cat([torch.zeros(1, dtype=torch.int64), following[last][:-1]])
    following[last] = first
    cross = spoke[:, 0] * spoke[following, 1] - spoke[:, 1] * spoke[following, 0]
    return torch.zeros(len(places), dtype=torch.float64).index_add_(0, cell, cross / 2)


def as_area(weights: Tensor, trajectory: Tensor) -> Tensor:
    """Scale weights to areas: sum w g(k) is then the integral of g, a Gaussian well within what is covered."""
    k = trajectory.detach().to("cpu", torch.float64)
    width = k.abs().amax(0) / 3
    gaussian = torch.exp(-(k / width).square().sum(1))
    integral = math.pi ** (k.shape[1] / 2) * float(width.prod())
    return weights * (integral / float((weights.to(gaussian) * gaussian).sum()))
