"""Image quality of slices against a reference: PSNR, SSIM, NMSE, RMSE. Nothing is ever rescaled to fit the reference.

Every function takes x and reference (B, H, W), real, in the same units, and gives one value a slice, (B,), float64.
`mask` (B, H, W), bool, says which pixels count; None: all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SSIM_WINDOW = 7
"""side of the uniform SSIM window in pixels, as in fastMRI and scikit-image"""


@dataclass(frozen=True)
class Window:
    """A declared range of values; both images are clipped to it, and its width is the data range."""

    low: float
    high: float

    @property
    def width(self) -> float:
        return self.high - self.low

    def clip(self, x: Tensor) -> Tensor:
        return x.clamp(self.low, self.high)


CT_WINDOWS = {
    "full": Window(-1024.0, 3071.0),
    "soft": Window(-160.0, 240.0),
    "lung": Window(-1350.0, 150.0),
    "bone": Window(-450.0, 1050.0),
}
"""HU. soft: level 40 width 400; lung: level -600 width 1500; bone: level 300 width 1500."""


def _checked(x: Tensor, reference: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Both as float64, and the mask."""
    if x.ndim != 3 or x.shape != reference.shape or (mask is not None and mask.shape != x.shape):
        shapes = [tuple(t.shape) for t in (x, reference, mask) if t is not None]
        raise ValueError(f"metrics: expected image, reference and mask of one shape (B, H, W), got {shapes}")
    if x.is_complex() or reference.is_complex():
        raise TypeError("metrics: expected real images, got complex ones: compare magnitudes or parts explicitly")
    if not bool(torch.isfinite(x).all() & torch.isfinite(reference).all()):
        raise ValueError("metrics: NaN or infinite values in the image or the reference")
    return x.double(), reference.double(), torch.ones_like(x, dtype=torch.bool) if mask is None else mask


def _range(data_range: float | Tensor, like: Tensor) -> Tensor:
    value = torch.as_tensor(data_range, dtype=torch.float64, device=like.device)
    if bool((value <= 0).any()):
        raise ValueError(f"metrics: data_range must be positive, got {value.min().item():g}")
    return value


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the pixels that count; NaN where none does."""
    return (values * mask).sum((-2, -1)) / mask.sum((-2, -1))


def mse(x: Tensor, reference: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared error, (B,)."""
    x, reference, mask = _checked(x, reference, mask)
    return _mean((x - reference).square(), mask)


def rmse(x: Tensor, reference: Tensor, mask: Tensor | None = None) -> Tensor:
    """Root-mean-square error in the units of the image, (B,)."""
    return mse(x, reference, mask).sqrt()


def psnr(x: Tensor, reference: Tensor, data_range: float | Tensor, mask: Tensor | None = None) -> Tensor:
    """10 log10(data_range^2 / MSE) in dB, (B,); infinite where equal. data_range: a number or (B,)."""
    return 10 * torch.log10(_range(data_range, x).square() / mse(x, reference, mask))


def nmse(x: Tensor, reference: Tensor, mask: Tensor | None = None) -> Tensor:
    """|x - reference|^2 / |reference|^2, (B,)."""
    x, reference, mask = _checked(x, reference, mask)
    return _mean((x - reference).square(), mask) / _mean(reference.square(), mask)


def ssim(x: Tensor, reference: Tensor, data_range: float | Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean structural similarity, (B,): uniform 7x7 window, sample covariance, K1 = 0.01, K2 = 0.03.

    Averaged over the windows that lie inside the image and the mask; equals scikit-image's default.
    Wang et al., IEEE TIP 13 (2004) 600-612, eq. 13.

    Raises:
        ValueError: shapes that differ, slices smaller than the window, or data_range <= 0.
    """
    x, reference, mask = _checked(x, reference, mask)
    if min(x.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"ssim: slices {tuple(x.shape[-2:])} are smaller than the {SSIM_WINDOW}x{SSIM_WINDOW} window")
    similarity = ssim_map(x, reference, _range(data_range, x).reshape(-1, 1, 1))
    return _mean(similarity, _local(mask.double()) > 1 - 0.5 / SSIM_WINDOW**2)


def _local(image: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(image[:, None], SSIM_WINDOW, stride=1)[:, 0]


def ssim_map(x: Tensor, reference: Tensor, data_range: float | Tensor) -> Tensor:
    """SSIM of every 7x7 window inside the image, (B, H - 6, W - 6), as in `ssim`: differentiable, nothing is checked.

    In the type of the images, and so to be called with values of the order of `data_range`.
    """
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_x, mean_r = _local(x), _local(reference)
    sample = SSIM_WINDOW**2 / (SSIM_WINDOW**2 - 1)
    var_x = sample * (_local(x * x) - mean_x.square())
    var_r = sample * (_local(reference * reference) - mean_r.square())
    cov = sample * (_local(x * reference) - mean_x * mean_r)
    similarity = (2 * mean_x * mean_r + c1) * (2 * cov + c2)
    return similarity / ((mean_x.square() + mean_r.square() + c1) * (var_x + var_r + c2))
