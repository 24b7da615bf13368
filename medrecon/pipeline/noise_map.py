"""How noisy each voxel of a reconstruction is: pseudo-replicas of a scan through the solver itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.core.scan import Scan
from medrecon.core.volume import Volume
from medrecon.pipeline.choose import make_solver, solver_class
from medrecon.pipeline.coil_maps import MapMethod
from medrecon.pipeline.problem import Problem, build_problem
from medrecon.pipeline.run import cropped, load_weights, sources
from medrecon.quality.noise_maps import pseudo_replica


def noise_map(
    scan: Scan,
    solver: str,
    *,
    replicas: int = 50,
    slices: tuple[int, int] | None = None,
    device: str = "cpu",
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    prior: str | None = None,
    maps: MapMethod = "auto",
    on_progress: Callable[[float, int], None] = lambda done, total: None,
) -> Volume:
    """SD of every voxel, in the units of the reconstruction, over `replicas` of a scan with noise added anew.

    The noise is that of the scan's noise model, in CT with the model error. For linear solvers (zero-filled, FBP, and
    CG-SENSE where it converges: the steps of CG depend on the data) the map is exact up to 1 / sqrt(2 replicas) of
    itself; others answer for the noise of the scan twice over, since what is in it already stays. Of magnitudes, as the
    images are: where there is signal that is the part of complex noise along it, SD = sigma / sqrt(2).

    Args:
        settings, prior, maps: as of `reconstruct`.

    Raises:
        ValueError: fewer than 2 replicas, a cone-beam scan, or as `reconstruct`.
    """
    if scan.volumetric:
        raise ValueError("noise_map: of slices; a cone-beam scan measures its volume as a whole")
    options = settings or {}
    cls = solver_class(solver, scan.modality, options, noncartesian=scan.noncartesian)
    start, stop = scan.within(slices)
    weights = load_weights(prior or scan.modality, device) if cls.needs_prior else None
    problem = build_problem(scan, device, maps)
    spread = []
    for z in range(start, stop):
        adapted = None if weights is None else problem.prior(weights, slice(z, z + 1))
        spread.append(_slice(problem, make_solver(cls, adapted, options), slice(z, z + 1), replicas, seed))
        on_progress(z + 1 - start, stop - start)
    image, affine = cropped(scan, torch.cat(spread))
    affine[:3, 3] += start * affine[:3, 2]
    return Volume(image, affine, problem.units, problem.modality, sources(scan))


def _slice(problem: Problem, solver: Any, index: slice, replicas: int, seed: int) -> Tensor:
    """(1, H, W)."""
    A, y = problem.operator(index), problem.measurement(index)
    sigma = torch.where(y.precision > 0, y.precision.clamp_min(1e-30).rsqrt(), 0)

    def noisy(g: torch.Generator) -> Tensor:
        return y.data + sigma * torch.randn(y.data.shape, dtype=y.data.dtype, generator=g).to(y.data.device)

    def solve(data: Tensor) -> Tensor:
        found = solver(A, Measurement(data, y.precision), generator=torch.Generator().manual_seed(seed))
        return problem.values(found.image).cpu()

    return pseudo_replica(solve, noisy, replicas=replicas, generator=torch.Generator().manual_seed(seed))
