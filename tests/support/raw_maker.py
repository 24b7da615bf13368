"""Raw data files of analytic phantoms, in exactly the formats that scanners and collections deliver."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from ct_phantoms import Ellipse
from torch import Tensor

from medrecon.geometry import Geometry, ParallelGeometry

HEAD = (
    Ellipse(10.0, -25.0, 90.0, 70.0, 0.3),
    Ellipse(30.0, 20.0, 20.0, 12.0, 1.0, 0.01),
    Ellipse(-40.0, -10.0, 8.0, 15.0, 0.2, -0.008),
    Ellipse(0.0, -50.0, 6.0, 6.0, 0.0, 0.02),
)
"""Without any symmetry, 100 mm in reach."""


def lines(geometry: Geometry, phantom: tuple[Ellipse, ...] = HEAD) -> Tensor:
    """(V, D) exact line integrals."""
    return torch.stack([e.sinogram(geometry) for e in phantom]).sum(0)


def noisy(p: Tensor, i0: float, seed: int = 0) -> Tensor:
    counts = torch.poisson(i0 * torch.exp(-p.double()), generator=torch.Generator().manual_seed(seed)).clamp_min(1)
    return -torch.log(counts / i0).float()


def dxchange(
    path: Path,
    p: np.ndarray[Any, Any],
    theta: np.ndarray[Any, Any] | None,
    *,
    i0: float = 0.0,
    units: str | None = "degrees",
    pixel: tuple[float, str] | None = None,
    axes: str = "theta:y:x",
    images: int = 10,
    seed: int = 0,
) -> Path:
    """Line integrals (V, Z, D) as counts of gain 2 over a dark field of 100, uneven flats; with i0, Poisson noise."""
    rng = np.random.default_rng(seed)
    open_beam = (i0 or 2e4) * (1 + 0.2 * np.sin(np.arange(p.shape[2]) / 9))[None, None]

    def counts(mean: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return 100 + 2 * (rng.poisson(mean) if i0 else mean)

    white, dark = np.broadcast_to(open_beam, (images, *p.shape[1:])), np.zeros((images, *p.shape[1:]))
    order = [["theta", "y", "x"].index(name) for name in axes.split(":")]
    with h5py.File(path, "w") as h5:
        h5["implements"] = "exchange"
        h5["exchange/data"] = np.transpose(counts(open_beam * np.exp(-p)), order).astype(np.float32)
        h5["exchange/data"].attrs["axes"] = axes
        h5["exchange/data_white"] = counts(white).astype(np.float32)
        h5["exchange/data_dark"] = counts(dark).astype(np.float32)
        if theta is not None:
            h5["exchange/theta"] = theta
            if units is not None:
                h5["exchange/theta"].attrs["units"] = units
        if pixel is not None:
            key = "measurement/instrument/detector/actual_pixel_size_x"
            h5[key] = pixel[0]
            h5[key].attrs["units"] = pixel[1]
    return path


def parallel(views: int, count: int, shift: float, spacing: float = 1.0, arc: float = np.pi) -> ParallelGeometry:
    """Views evenly over the arc; the axis projects `shift` elements to the right of the middle."""
    return ParallelGeometry(tuple(np.arange(views) * arc / views), count, spacing, -shift * spacing)
