"""CTOperator: line integrals of the attenuation along the rays of a scan, slice by slice or through a volume."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from medrecon.geometry import ConeGeometry, FanGeometry, Geometry, ImageGrid, ParallelGeometry, VolumeGrid
from medrecon.operators.ct.astra.slices import Astra2D, check_model, require_gpu
from medrecon.operators.ct.astra.volumes import Astra3D
from medrecon.operators.ct.filtered.fbp import Window, fbp
from medrecon.operators.ct.filtered.fdk import fdk
from medrecon.operators.ct.joseph import cone, planar
from medrecon.operators.ct.joseph.on_device import JosephTorch
from medrecon.operators.ct.matrix import SparseMatrix
from medrecon.operators.ct.projector import CompiledProjector, Projector
from medrecon.operators.views import ByViews

Backend = Literal["matrix", "joseph", "torch", "astra", "cuda"]
Model = Literal["linear", "line", "strip"]
MATRIX_LIMIT = 60_000_000
"""Estimated non-zeros up to which 'auto' stores the matrix: 0.48 GB, and as much for its transpose."""


class CTOperator(ByViews):
    """y = A x: attenuation x [1/mm] -> line integrals y [unitless].

    Parallel and fan beams: x (..., H, W) -> y (..., V, D). Cone beams, circular and helical, with a `VolumeGrid`:
    x (..., Z, H, W) -> y (..., V, R, D).

    Models: 'linear', Joseph's interpolation (default); 'line', exact lengths of intersection; 'strip', area-weighted
    over the width of a detector element, for simulating on a finer grid. Arc detectors, cones: 'linear' only.

    Backends; all but 'torch' and 'cuda' compute on the CPU, from tensors of any device:
        'matrix': the projector as a sparse matrix, built at the first use and freed with the object. Best for few
            and small slices. Not for cones.
        'joseph': our own compiled loops, model 'linear' only; no memory, best for 32 slices and more, or large
            ones.
        'torch': the same weights in torch operations, on the device and in the dtype of the data: the exact pair on
            a GPU. Model 'linear' only.
        'astra': ASTRA's CPU projector slice by slice; no memory, slow. Not for cones; 'linear' for parallel rays only.
        'cuda': ASTRA's GPU projector: slices of a parallel beam as one volume, of a fan one by one, cones. Its own
            interpolation whatever the model, and an adjoint that is off by some per cent: needs adjoint='fast'.
        'auto': on a GPU 'torch' for the model 'linear', or 'cuda' for adjoint='fast' where ASTRA finds the GPU. Else
            'matrix' where it has at most `MATRIX_LIMIT` estimated non-zeros, for larger ones 'joseph' for the model
            'linear' and 'astra' for others. The choice does not depend on the batch, and neither do the bits.

    float64 is computed as such: 'auto' takes 'torch' in place of 'joseph', which refuses it as 'astra' and 'cuda' do.

    Args:
        adjoint: 'exact', or 'fast' to let `adjoint` be ASTRA's approximate backprojection on a GPU: good for SIRT, not
            for CG, gradients or claims about data consistency.

    Raises:
        ValueError: an unknown setting, a model that the backend, the geometry or the pixels do not allow, a grid that
            does not fit the geometry, a source inside the image.
        TypeError: float64 data where the backend has float32 only.
        RuntimeError: backend 'cuda' where ASTRA finds no GPU.
    """

    def __init__(
        self,
        geometry: Geometry | ConeGeometry,
        grid: ImageGrid | VolumeGrid,
        backend: Backend | Literal["auto"] = "auto",
        model: Model = "linear",
        adjoint: Literal["exact", "fast"] = "exact",
    ) -> None:
        _check_setting(geometry, grid, backend, model, adjoint)
        self.geometry, self.grid, self.backend, self.model = geometry, grid, backend, model
        self.fast = adjoint == "fast"
        self.in_shape, self.out_shape = grid.shape, geometry.shape
        self._built: dict[str, Projector] = {}

    def nonzeros(self) -> float:
        """Estimate the entries of the matrix: rays (or strips) that meet a pixel, over all pixels and views."""
        pixels = math.prod(self.grid.shape) * len(self.geometry.angles)
        if isinstance(self.geometry, ConeGeometry):
            return math.inf
        footprint = 2 / math.pi * sum(self.grid.spacing) / self.geometry.iso_spacing
        return pixels * {"line": footprint, "linear": 1.5 * footprint, "strip": footprint + 2}[self.model]

    def chosen(self, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Backend:
        """Return the backend that serves slices or volumes on this device, of this dtype."""
        if self.backend != "auto":
            return self.backend
        if torch.device(device).type == "cuda":
            if self.fast and _astra_gpu() and not _arc(self.geometry):
                return "cuda"
            if self.model == "linear":
                return "torch"
        if self.nonzeros() <= MATRIX_LIMIT:
            return "matrix"
        if self.model != "linear":
            return "astra"
        return "torch" if dtype == torch.float64 else "joseph"

    @property
    def angles(self) -> Sequence[float] | None:
        """Return the directions of the views of a plane; None of a helix, where time is the better order."""
        return None if isinstance(self.grid, VolumeGrid) else self.geometry.angles

    def _subset(self, views: Sequence[int]) -> CTOperator:
        kind: Literal["exact", "fast"] = "fast" if self.fast else "exact"
        part = CTOperator(self.geometry.subset(views), self.grid, self.backend, self.model, kind)
        part._built = {name: projector.subset(views) for name, projector in self._built.items()}
        return part

    def fbp(self, sinogram: Tensor, window: Window = "ramp") -> Tensor:
        """Reconstruct by filtered backprojection [1/mm], see `filtered.fbp.fbp`; a cone beam by `filtered.fdk.fdk`."""
        self._check(sinogram, self.out_shape, self.out_dtype, "fbp")
        if isinstance(self.geometry, ConeGeometry) and isinstance(self.grid, VolumeGrid):
            return fdk(sinogram, self.geometry, self.grid, window)
        assert not isinstance(self.geometry, ConeGeometry) and not isinstance(self.grid, VolumeGrid)
        return fbp(sinogram, self.geometry, self.grid, window)

    def _forward(self, x: Tensor) -> Tensor:
        return self._projector(self.chosen(x.device, x.dtype)).forward(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._projector(self.chosen(y.device, y.dtype)).adjoint(y)

    def _projector(self, backend: Backend) -> Projector:
        if backend not in self._built:
            self._built[backend] = build(self.geometry, self.grid, backend, self.model)
        return self._built[backend]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the geometry; projectors are built again where they are needed."""
        return CTOperator, (self.geometry, self.grid, self.backend, self.model, "fast" if self.fast else "exact")

    @classmethod
    def examples(cls) -> Iterator[CTOperator]:
        angles = (0.0, math.pi / 4, math.pi / 2, 2.3, math.pi, 4.0)
        grid, square = (ImageGrid((13, 18), (row, 1.2), center=(1.5, -0.7)) for row in (0.9, 1.2))
        parallel = ParallelGeometry(angles, 23, 1.1, det_offset=0.3)
        fan = FanGeometry(angles, 25, 1.6, source_origin=40.0, origin_detector=25.0)
        arc = FanGeometry(angles, 25, 1.6, 40.0, 25.0, 0.4, "arc", tuple((0.01 * (-1) ** i, 0.2) for i in range(6)))
        yield cls(parallel, grid)
        yield cls(parallel, grid, "astra", "line")
        yield cls(parallel, square, model="strip")
        yield cls(parallel, grid, "astra")
        yield cls(parallel, grid, "joseph")
        yield cls(fan, grid, "joseph")
        yield cls(arc, grid)
        yield cls(arc, grid, "torch")
        yield cls(FanGeometry(angles, 25, 1.6, 40.0, 25.0, det_offset=-0.4), grid, model="line")
        yield cls(fan, grid, "astra", "line")
        yield cls(fan, square, model="strip")
        volume = VolumeGrid((5, 7, 9), (1.5, 2.4, 2.1), (0.5, -0.3, 0.7))
        helix = ConeGeometry.helix(3, 2.0, 4.0, (4, 11), (1.7, 3.3), 40.0, 25.0, det_offset=(0.2, 0.8))
        yield cls(helix, volume)
        yield cls(helix, volume, "torch")
        yield cls(ConeGeometry(angles, (5, 11), (1.7, 3.3), 40.0, 25.0), volume, "joseph")


def build(geometry: Geometry | ConeGeometry, grid: ImageGrid | VolumeGrid, backend: Backend, model: Model) -> Projector:
    """Build the projector of a backend."""
    if backend == "torch":
        return JosephTorch(geometry, grid)
    if isinstance(geometry, ConeGeometry) or (backend == "cuda" and isinstance(geometry, ParallelGeometry)):
        if backend == "cuda":
            return Astra3D(geometry, grid)
        assert isinstance(geometry, ConeGeometry) and isinstance(grid, VolumeGrid)
        return CompiledProjector(cone.trace(geometry, grid), grid.shape, cone.forward, cone.adjoint)
    assert isinstance(grid, ImageGrid)
    if backend == "joseph" or (backend == "matrix" and model == "linear"):
        rays = planar.trace(geometry, grid)
        if backend == "joseph":
            return CompiledProjector(rays, grid.shape, planar.forward, planar.adjoint)
        return SparseMatrix(planar.matrix(rays, grid.shape), grid.shape, geometry.shape)
    astra = Astra2D(geometry, grid, "cuda" if backend == "cuda" else model)
    return SparseMatrix(astra.matrix(), grid.shape, geometry.shape) if backend == "matrix" else astra


def _check_setting(
    geometry: Geometry | ConeGeometry, grid: ImageGrid | VolumeGrid, backend: str, model: str, adjoint: str
) -> None:
    for name, value, known in (
        ("backend", backend, ("auto", "matrix", "joseph", "torch", "astra", "cuda")),
        ("model", model, ("linear", "line", "strip")),
        ("adjoint", adjoint, ("exact", "fast")),
    ):
        if value not in known:
            raise ValueError(f"CTOperator: {name} must be one of {', '.join(known)}, got {value!r}")
    is_cone = isinstance(geometry, ConeGeometry)
    if is_cone != isinstance(grid, VolumeGrid):
        wanted = "a VolumeGrid" if is_cone else "an ImageGrid"
        raise ValueError(f"CTOperator: {type(geometry).__name__} needs {wanted}, got {type(grid).__name__}")
    if backend in ("joseph", "torch") and model != "linear":
        raise ValueError(f"CTOperator: backend {backend!r} has the 'linear' model only, got {model!r}")
    if is_cone and (model != "linear" or backend in ("matrix", "astra")):
        raise ValueError(
            f"CTOperator: cone beams have the 'linear' model and the backends 'joseph', 'torch' and "
            f"'cuda' only, got {model!r} and {backend!r}"
        )
    if backend == "cuda" and adjoint != "fast":
        raise ValueError(
            "CTOperator: the adjoint of ASTRA's GPU projector is approximate; say adjoint='fast' to take "
            "it, or backend='torch' for the exact pair on a GPU"
        )
    if not isinstance(geometry, ParallelGeometry) and geometry.source_origin <= grid.reach:
        raise ValueError(
            f"CTOperator: the image reaches {grid.reach:.1f} mm from the rotation centre, "
            f"beyond the source at {geometry.source_origin:.1f} mm; check the units"
        )
    if backend == "cuda":
        require_gpu()
    if (
        isinstance(grid, ImageGrid)
        and not isinstance(geometry, ConeGeometry)
        and (backend in ("astra", "cuda") or model != "linear")
    ):
        check_model(geometry, grid, "cuda" if backend == "cuda" else model)


def _arc(geometry: Geometry | ConeGeometry) -> bool:
    """An arc detector in the plane, which ASTRA does not know."""
    return isinstance(geometry, FanGeometry) and geometry.detector == "arc"


def _astra_gpu() -> bool:
    import astra

    return bool(astra.use_cuda())
