"""Joseph's projector in torch, 2D and cone beams: the exact pair where the data are, on a GPU.

The rays and weights are those of `joseph` and `cone`. All rays take a step at a time; the adjoint adds them up with
`index_add_`, whose order, and so the last bits, may vary on CUDA.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from medrecon.geometry import ConeGeometry, Geometry, ImageGrid, VolumeGrid
from medrecon.operators.ct.joseph import cone, planar

SAMPLES = 1 << 24
"""Samples that are interpolated at once: some 500 MB of working memory."""


class JosephTorch:
    """A projector in the sense of `projector.Projector`, on the device and in the dtype of the data.

    Inside, what the rays of one place share is the last axis: the slices of a batch, or the z of one volume. An item
    is (H, W, inner) and its rays are (V * D, outer).
    """

    def __init__(self, geometry: Geometry | ConeGeometry, grid: ImageGrid | VolumeGrid) -> None:
        self.geometry, self.grid = geometry, grid
        if isinstance(geometry, ConeGeometry) and isinstance(grid, VolumeGrid):
            self.cone: cone.ConeRays | None = cone.trace(geometry, grid)
            self.rays = self.cone.plane
        elif isinstance(grid, ImageGrid) and not isinstance(geometry, ConeGeometry):
            self.cone, self.rays = None, planar.trace(geometry, grid)
        else:
            raise ValueError(f"JosephTorch: {type(geometry).__name__} does not fit {type(grid).__name__}")

    def forward(self, x: Tensor) -> Tensor:
        views, columns = self.rays.rows.shape
        if self.cone is None:
            return self._forward(x.permute(1, 2, 0)).view(views, columns, -1).permute(2, 0, 1)
        items = [self._forward(item.permute(1, 2, 0)).view(views, columns, -1) for item in x]
        return torch.stack(items).transpose(-1, -2)

    def adjoint(self, y: Tensor) -> Tensor:
        if self.cone is None:
            return self._adjoint(y.permute(1, 2, 0).flatten(0, 1)).permute(2, 0, 1)
        return torch.stack([self._adjoint(item.transpose(1, 2).flatten(0, 1)).permute(2, 0, 1) for item in y])

    def subset(self, views: Sequence[int]) -> JosephTorch:
        return JosephTorch(self.geometry.subset(views), self.grid)

    def _forward(self, item: Tensor) -> Tensor:
        outer = item.shape[2] if self.cone is None else self.cone.heights
        y = item.new_zeros(self.rays.rows.size, outer)
        for along_rows in (True, False):
            planes = self._padded(item if along_rows else item.transpose(0, 1))
            for ray in self._chunks(along_rows, outer, item.device):
                total = item.new_zeros(len(ray["index"]), outer)
                for i, plane in enumerate(planes):
                    for index, weight in self._corners(ray, i, item.shape[1 if along_rows else 0], item):
                        total += weight * plane[index]
                y[ray["index"]] = total
        return y

    def _adjoint(self, y: Tensor) -> Tensor:
        height, width = self.grid.shape[-2:]
        inner = y.shape[1] if self.cone is None else self.grid.shape[0]
        item = y.new_zeros(height, width, inner)
        for along_rows in (True, False):
            part = item if along_rows else item.transpose(0, 1)
            planes = self._padded(torch.zeros_like(part))
            for ray in self._chunks(along_rows, y.shape[1], y.device):
                given = y[ray["index"]]
                for i, plane in enumerate(planes):
                    for index, weight in self._corners(ray, i, part.shape[1], y):
                        plane.index_add_(0, index.flatten(), (weight * given).flatten(0, index.ndim - 1))
            margin = 0 if self.cone is None else 1
            whole = planes.view(part.shape[0], part.shape[1] + 2, inner + 2 * margin)
            part += whole[:, 1:-1, margin : margin + inner]
        return item

    def _padded(self, item: Tensor) -> Tensor:
        """(steps, across, inner) -> (steps, across + 2, inner), of a volume (steps, (across + 2) * (inner + 2))."""
        if self.cone is None:
            return pad(item, (0, 0, 1, 1))
        return pad(item, (1, 1, 1, 1)).flatten(1)

    def _chunks(self, along_rows: bool, outer: int, device: torch.device) -> Iterator[dict[str, Tensor]]:
        """Rays that step along one axis, some at a time: their index among all, and their tables."""
        rays = torch.from_numpy(self.rays.rows.ravel() == along_rows).nonzero()[:, 0]
        tables = {name: getattr(self.rays, name) for name in ("start", "slope", "length")}
        if self.cone is not None:
            tables |= {name: getattr(self.cone, name) for name in ("flat", "near", "nearer")}
            tables |= {name: getattr(self.cone, name).repeat(self.rays.rows.shape[1]) for name in ("source", "climb")}
        flat = {name: torch.from_numpy(table.ravel()) for name, table in tables.items()}
        for index in rays.split(max(1, SAMPLES // outer)):
            yield {"index": index.to(device)} | {name: table[index].to(device) for name, table in flat.items()}

    def _corners(self, ray: dict[str, Tensor], i: int, across: int, like: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Places in the padded plane of step i that the rays interpolate between, and their weights [mm]."""
        place = ray["start"] + ray["slope"] * i
        left = place.floor()
        share, inside = place - left, (left >= -1) & (left < across)
        index, length = (left + 1).clamp(0, across).long(), ray["length"] * inside
        if self.cone is None:
            yield index, (length * (1 - share)).to(like)[:, None]
            yield index + 1, (length * share).to(like)[:, None]
            return
        slices = self.grid.shape[0]
        climb = ray["climb"][:, None] + self.cone.pitch * torch.arange(self.cone.heights, device=like.device)
        z = ray["source"][:, None] + (ray["near"] + ray["nearer"] * i)[:, None] * climb
        below = z.floor()
        up, within = (z - below).to(like), (below >= -1) & (below < slices)
        flat = ray["flat"][:, None]
        oblique = (length[:, None] * torch.hypot(flat, climb) / flat * within).to(like)
        corner = index[:, None] * (slices + 2) + (below + 1).clamp(0, slices).long()
        right = share.to(like)[:, None]
        yield corner, oblique * (1 - right) * (1 - up)
        yield corner + 1, oblique * (1 - right) * up
        yield corner + slices + 2, oblique * right * (1 - up)
        yield corner + slices + 3, oblique * right * up
