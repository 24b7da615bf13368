"""CTOperator: line integrals of the attenuation along parallel or fan-flat rays, by our own projector or ASTRA's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.operators import joseph
from medrecon.operators.base import LinearOperator
from medrecon.operators.ct_geometry import FanGeometry, Geometry, ImageGrid, ParallelGeometry
from medrecon.operators.fbp import Window, fbp

__all__ = ["CTOperator", "FanGeometry", "Geometry", "ImageGrid", "ParallelGeometry"]

Backend = Literal["matrix", "joseph", "astra", "cuda"]
Model = Literal["line", "strip", "linear"]
Way = Literal["FP", "BP"]
FEW = 32
"""Slices from which 'auto' prefers our batched loops to the matrix (benchmarks/projectors.py)."""
MATRIX_LIMIT = 60_000_000
"""Estimated non-zeros up to which 'auto' stores the matrix: 0.48 GB, and as much for its transpose."""


class CTOperator(LinearOperator):
    """y = A x: x (..., H, W) attenuation [1/mm] -> y (..., V, D) line integrals [unitless].

    Models: 'line', exact lengths of intersection (default); 'strip', area-weighted over the width of a detector
    element, for simulating on a finer grid; 'linear', Joseph's interpolation.

    Backends, float32; tensors on other devices go through the host and come back:
        'matrix': the projector as a sparse matrix, built at the first use and freed with the object; one product
            for the whole batch. Takes float64 too. Best for few and small slices.
        'joseph': our own loops over a batch of slices, model 'linear' only (`operators/joseph.py`); no memory, best
            for many slices or large ones.
        'astra': ASTRA's CPU projector slice by slice; no memory, about 5 times slower at 256^2 and 60 views.
            Model 'linear' for parallel rays only.
        'cuda': ASTRA's 2D GPU projector slice by slice. Its own interpolation whatever the model, and its adjoint is
            approximate (some per cent): good for SIRT, not for CG or gradients. Hence never chosen by 'auto'.
        'auto': model 'linear': 'matrix' for batches below `FEW` where it has at most `MATRIX_LIMIT` estimated
            non-zeros, else 'joseph'. Other models: 'matrix' up to that limit, else 'astra'.

    Raises:
        ValueError: an unknown backend or model, a model that the geometry or the pixels do not allow,
            a source inside the image.
        RuntimeError: backend 'cuda' where ASTRA finds no GPU.
    """

    def __init__(self, geometry: Geometry, grid: ImageGrid, backend: Backend | Literal["auto"] = "auto",
                 model: Model = "line") -> None:  # fmt: skip
        _check_setting(geometry, grid, backend, model)
        self.geometry, self.grid, self.model, self.backend = geometry, grid, model, backend
        self.in_shape = grid.shape
        self.out_shape = (len(geometry.angles), geometry.det_count)

    def nonzeros(self) -> float:
        """Estimated entries of the matrix: rays (or strips) that meet a pixel, over all pixels and views."""
        pixels = math.prod(self.grid.shape) * len(self.geometry.angles)
        footprint = 2 / math.pi * sum(self.grid.spacing) / self.geometry.iso_spacing
        return pixels * {"line": footprint, "linear": 1.5 * footprint, "strip": footprint + 2}[self.model]

    def chosen(self, batch: int) -> Backend:
        """The backend that serves this many slices."""
        if self.backend != "auto":
            return self.backend
        small = self.nonzeros() <= MATRIX_LIMIT
        if self.model == "linear":
            return "matrix" if small and batch < FEW else "joseph"
        return "matrix" if small else "astra"

    def subset(self, view_indices: Sequence[int]) -> CTOperator:
        """The operator of these views only, in the given order."""
        return CTOperator(self.geometry.subset(view_indices), self.grid, self.backend, self.model)

    def fbp(self, sinogram: Tensor, window: Window = "ramp") -> Tensor:
        """Filtered backprojection, (..., V, D) -> (..., H, W) [1/mm]; see `medrecon.operators.fbp.fbp`."""
        self._check(sinogram, self.out_shape, self.out_dtype, "fbp")
        return fbp(sinogram, self.geometry, self.grid, window)

    def _forward(self, x: Tensor) -> Tensor:
        return self._multiply(x, self.in_shape, self.out_shape, "FP")

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._multiply(y, self.out_shape, self.in_shape, "BP")

    def _multiply(self, x: Tensor, source: tuple[int, ...], target: tuple[int, ...], way: Way) -> Tensor:
        backend = self.chosen(len(x))
        dtype = np.float64 if x.dtype == torch.float64 and backend == "matrix" else np.float32
        host = x.detach().to("cpu", torch.float64 if dtype is np.float64 else torch.float32).numpy()
        if backend == "matrix":
            matrix = self._matrix if way == "FP" else self._transpose
            columns = np.ascontiguousarray(host.reshape(len(host), math.prod(source)).T)
            out = np.ascontiguousarray((matrix @ columns).T).reshape(len(host), *target)
        elif backend == "joseph":
            rays = self._rays
            out = joseph.forward(host, rays) if way == "FP" else joseph.adjoint(host, rays, self.grid.shape)
        else:
            out = self._slice_by_slice(host, target, way)
        return torch.from_numpy(out).to(x.device, x.dtype)

    def _slice_by_slice(self, items: NDArray[Any], target: tuple[int, ...], way: Way) -> NDArray[Any]:
        import astra

        # A copy: ASTRA wants contiguous and writable memory, of its input too. NaN shows what it left unwritten.
        items = np.array(items if way == "FP" else items * self._lengths, dtype=np.float32, order="C")
        out = np.full((len(items), *target), np.nan, dtype=np.float32)
        apply = astra.projector.direct_FP if way == "FP" else astra.projector.direct_BP
        with self._projector() as projector:
            for item, result in zip(items, out, strict=True):
                apply(projector, item, out=result)
        # ASTRA reports some GPU failures by a printed line only.
        if self.backend == "cuda" and np.isfinite(items).all() and np.isnan(out).any():
            raise RuntimeError("CTOperator: ASTRA's GPU projector failed and wrote no result; use backend='astra'")
        return out * self._lengths if way == "FP" else out

    @property
    def _aspect(self) -> float:
        """Factor on y that makes the pixels square, which ASTRA needs: lines stay lines, only lengths change."""
        row, column = self.grid.spacing
        return 1.0 if math.isclose(row, column, rel_tol=1e-6) else column / row

    @cached_property
    def _lengths(self) -> NDArray[np.float32]:
        """(V, D) or (1, 1): length of a ray in mm over its length in the squared coordinates."""
        if self._aspect == 1:
            return np.ones((1, 1), dtype=np.float32)
        direction = self.geometry.rays()[1]
        ratio = np.hypot(*np.moveaxis(direction, -1, 0)) / np.hypot(direction[..., 0], direction[..., 1] * self._aspect)
        return np.broadcast_to(ratio, self.out_shape).astype(np.float32)

    @contextmanager
    def _projector(self) -> Iterator[int]:
        """An ASTRA projector id, deleted at exit: none outlives a call."""
        import astra

        (height, width), (x0, x1, y0, y1) = self.grid.shape, self.grid.window
        fan = isinstance(self.geometry, FanGeometry)
        volume = astra.create_vol_geom(height, width, x0, x1, y0 * self._aspect, y1 * self._aspect)
        kind = "cuda" if self.backend == "cuda" else f"{self.model}_fanflat" if fan else self.model
        if isinstance(self.geometry, FanGeometry) and self.model == "strip":  # has no vector form
            g = self.geometry
            distances = (np.array(g.angles), g.source_origin, g.origin_detector)
            rays = astra.create_proj_geom("fanflat", g.det_spacing, g.det_count, *distances)
        else:
            vectors = astra_vectors(self.geometry) * np.tile([1.0, self._aspect], 3)
            rays = astra.create_proj_geom("fanflat_vec" if fan else "parallel_vec", self.geometry.det_count, vectors)
        projector = astra.create_projector(kind, rays, volume)
        try:
            yield projector
        finally:
            astra.projector.delete(projector)

    @cached_property
    def _rays(self) -> joseph.Rays:
        return joseph.trace(self.geometry, self.grid)

    @cached_property
    def _matrix(self) -> Any:
        """scipy CSR (V * D, H * W), float32."""
        if self.model == "linear":
            return joseph.matrix(self._rays, self.grid.shape)
        import astra

        with self._projector() as projector:
            identifier = astra.projector.matrix(projector)
            try:
                matrix = astra.matrix.get(identifier).astype(np.float32)
            finally:
                astra.matrix.delete(identifier)
        if self._aspect != 1:
            matrix.data *= np.repeat(self._lengths.ravel(), np.diff(matrix.indptr))
        return matrix

    @cached_property
    def _transpose(self) -> Any:
        return self._matrix.T.tocsr()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the geometry; the matrix is built again where it is needed."""
        return CTOperator, (self.geometry, self.grid, self.backend, self.model)

    @classmethod
    def examples(cls) -> Iterator[CTOperator]:
        angles = (0.0, math.pi / 4, math.pi / 2, 2.3, math.pi, 4.0)
        grid, square = (ImageGrid((13, 18), (row, 1.2), center=(1.5, -0.7)) for row in (0.9, 1.2))
        parallel = ParallelGeometry(angles, 23, 1.1, det_offset=0.3)
        fan = FanGeometry(angles, 25, 1.6, source_origin=40.0, origin_detector=25.0)
        yield cls(parallel, grid)
        yield cls(parallel, grid, "astra")
        yield cls(parallel, square, model="strip")
        yield cls(parallel, grid, "astra", model="linear")
        yield cls(parallel, grid, model="linear")
        yield cls(fan, grid, "joseph", model="linear")
        yield cls(FanGeometry(angles, 25, 1.6, 40.0, 25.0, det_offset=-0.4), grid)
        yield cls(fan, grid, "astra")
        yield cls(fan, square, model="strip")


def _check_setting(geometry: Geometry, grid: ImageGrid, backend: str, model: str) -> None:
    if backend not in ("auto", "matrix", "joseph", "astra", "cuda"):
        raise ValueError(f"CTOperator: backend must be 'auto', 'matrix', 'joseph', 'astra' or 'cuda', got {backend!r}")
    if model not in ("line", "strip", "linear"):
        raise ValueError(f"CTOperator: model must be 'line', 'strip' or 'linear', got {model!r}")
    if model == "strip" and not math.isclose(*grid.spacing, rel_tol=1e-6):
        raise ValueError(f"CTOperator: ASTRA's 'strip' model needs square pixels, got {grid.spacing}; use 'line'")
    if backend == "joseph" and model != "linear":
        raise ValueError(f"CTOperator: backend 'joseph' has the 'linear' model only, got {model!r}")
    if isinstance(geometry, FanGeometry):
        if model == "linear" and backend == "astra":
            raise ValueError("CTOperator: ASTRA has no 'linear' model for fan beams; use backend='joseph'")
        if model == "strip" and geometry.det_offset != 0:
            raise ValueError("CTOperator: ASTRA has no 'strip' model for fan beams with det_offset; use model='line'")
        if geometry.source_origin <= grid.reach:
            raise ValueError(f"CTOperator: the image reaches {grid.reach:.1f} mm from the rotation centre, "
                             f"beyond the source at {geometry.source_origin:.1f} mm; check the units")  # fmt: skip
    if backend == "cuda":
        import astra

        if not astra.use_cuda():
            raise RuntimeError("CTOperator: backend='cuda', but ASTRA finds no CUDA device; use backend='auto'")


def astra_vectors(geometry: Geometry) -> NDArray[np.float64]:
    """ASTRA's parallel_vec or fanflat_vec rows (V, 6): ray direction or source, detector centre, detector step."""
    c, s = np.cos(geometry.angles), np.sin(geometry.angles)
    axis = np.stack([c, s], axis=1)
    centre, first = geometry.det_offset * axis, np.stack([s, -c], axis=1)
    if isinstance(geometry, FanGeometry):
        centre, first = centre - geometry.origin_detector * first, geometry.sources()
    return np.concatenate([first, centre, geometry.det_spacing * axis], axis=1)
