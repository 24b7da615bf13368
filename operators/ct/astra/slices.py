"""ASTRA's 2D projectors, slice by slice: its CPU models, and its GPU projector. Imported where used: it is GPL."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.geometry import FanGeometry, Geometry, ImageGrid
from medrecon.numerics.threads import check_not_recorded
from medrecon.operators.ct.projector import check_precision


class Astra2D:
    """A projector in the sense of `projector.Projector`, float32.

    Args:
        kind: 'line', 'strip' or 'linear' on the CPU: their adjoint is exact. 'cuda': ASTRA's own interpolation, on
            tensors of either device; its adjoint is off by some per cent.

    Raises:
        ValueError: what ASTRA has no projector for.
        RuntimeError: 'cuda' without a GPU.
    """

    def __init__(self, geometry: Geometry, grid: ImageGrid, kind: str) -> None:
        check_model(geometry, grid, kind)
        if kind == "cuda":
            require_gpu()
        self.geometry, self.grid, self.kind = geometry, grid, kind

    def forward(self, x: Tensor) -> Tensor:
        return self._each(x, "direct_FP", self.geometry.shape) * self._lengths.to(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._each(y * self._lengths.to(y), "direct_BP", self.grid.shape)

    def subset(self, views: Sequence[int]) -> Astra2D:
        return Astra2D(self.geometry.subset(views), self.grid, self.kind)

    def matrix(self) -> Any:
        """Return the projector as scipy CSR (V * D, H * W), float32."""
        import astra

        with self._projector(torch.device("cpu")) as projector:
            identifier = astra.projector.matrix(projector)
            try:
                matrix = astra.matrix.get(identifier).astype(np.float32)
            finally:
                astra.matrix.delete(identifier)
        if self._aspect != 1:
            matrix.data *= np.repeat(self._lengths.expand(self.geometry.shape).ravel().numpy(), np.diff(matrix.indptr))
        return matrix

    def _each(self, items: Tensor, call: str, shape: tuple[int, int]) -> Tensor:
        import astra

        check_precision(items, "ASTRA", "backend='matrix' (every model) or 'torch'")
        check_not_recorded()
        host = items if self.kind == "cuda" else items.cpu()
        # ASTRA wants contiguous and writable memory, of its input too. NaN shows what it left unwritten.
        given = host.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        out = torch.full((len(given), *shape), math.nan, device=given.device)
        with self._projector(given.device) as projector:
            for item, result in zip(given, out, strict=True):
                getattr(astra.projector, call)(projector, item, out=result)
        check_written(given, out)
        return out.to(items)

    @property
    def _aspect(self) -> float:
        """Factor on y that makes the pixels square, which ASTRA needs: lines stay lines, only lengths change."""
        row, column = self.grid.spacing
        return 1.0 if math.isclose(row, column, rel_tol=1e-6) else column / row

    @cached_property
    def _lengths(self) -> Tensor:
        """(V, D) or (1, 1): length of a ray in mm over its length in the squared coordinates."""
        if self._aspect == 1:
            return torch.ones(1, 1)
        x, y = torch.from_numpy(self.geometry.rays()[1].copy()).unbind(-1)
        return (torch.hypot(x, y) / torch.hypot(x, y * self._aspect)).float()

    @contextmanager
    def _projector(self, device: torch.device) -> Iterator[int]:
        """An ASTRA projector id, deleted at exit: none outlives a call."""
        import astra

        g, (height, width), (x0, x1, y0, y1) = self.geometry, self.grid.shape, self.grid.window
        fan = isinstance(g, FanGeometry)
        volume = astra.create_vol_geom(height, width, x0, x1, y0 * self._aspect, y1 * self._aspect)
        if isinstance(g, FanGeometry) and self.kind == "strip":  # has no vector form
            rays = astra.create_proj_geom(
                "fanflat", g.det_spacing, g.det_count, np.array(g.angles), g.source_origin, g.origin_detector
            )
        else:
            vectors = astra_vectors(g) * np.tile([1.0, self._aspect], 3)
            rays = astra.create_proj_geom("fanflat_vec" if fan else "parallel_vec", g.det_count, vectors)
        kind = f"{self.kind}_fanflat" if fan and self.kind != "cuda" else self.kind
        options = {"GPUindex": device.index or 0} if self.kind == "cuda" else {}
        projector = astra.create_projector(kind, rays, volume, options=options)
        try:
            yield projector
        finally:
            astra.projector.delete(projector)


def check_model(geometry: Geometry, grid: ImageGrid, kind: str) -> None:
    """Raise ValueError for what ASTRA has no projector for."""
    if kind == "strip" and not math.isclose(*grid.spacing, rel_tol=1e-6):
        raise ValueError(f"CTOperator: ASTRA's 'strip' model needs square pixels, got {grid.spacing}; use 'line'")
    if isinstance(geometry, FanGeometry):
        if kind == "linear":
            raise ValueError("CTOperator: ASTRA has no 'linear' model for fan beams; use backend='joseph'")
        if geometry.detector == "arc":
            raise ValueError(f"CTOperator: there is no {kind!r} projector for arc detectors; use model='linear'")
        if kind == "strip" and (geometry.det_offset != 0 or geometry.focal_shifts):
            raise ValueError(
                "CTOperator: ASTRA has no 'strip' model for fan beams with det_offset or focal_shifts; use model='line'"
            )


def require_gpu() -> None:
    """Raise RuntimeError where ASTRA finds no GPU: its 3D algorithms would end the process there."""
    import astra

    if not astra.use_cuda():
        raise RuntimeError("CTOperator: backend='cuda', but ASTRA finds no CUDA device; use backend='auto'")


def check_written(given: Tensor, out: Tensor) -> None:
    """Raise RuntimeError where a finite input left NaN: ASTRA reports some GPU failures by a printed line only."""
    if bool(out.isnan().any()) and bool(given.isfinite().all()):
        raise RuntimeError("CTOperator: ASTRA failed and wrote no result; use backend='joseph'")


def astra_vectors(geometry: Geometry) -> NDArray[np.float64]:
    """Return ASTRA's parallel_vec or fanflat_vec rows (V, 6): ray or source, detector centre, detector step."""
    c, s = np.cos(geometry.angles), np.sin(geometry.angles)
    axis = np.stack([c, s], axis=1)
    centre, first = geometry.det_offset * axis, np.stack([s, -c], axis=1)
    if isinstance(geometry, FanGeometry):
        centre, first = centre - geometry.origin_detector * first, geometry.sources()
    return np.concatenate([first, centre, geometry.det_spacing * axis], axis=1)
