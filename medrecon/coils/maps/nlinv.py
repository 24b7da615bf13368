"""Joint estimation of image and coil sensitivities without an ACS (NLINV; Uecker, Hohage, Block & Frahm 2008)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor

from medrecon.numerics.linalg import cg, dot, expand

_AXES = (-2, -1)
_SLOPE, _POWER = 220.0, 16
"""Sobolev weight (1 + 220 |k|^2)^16 of a coil's frequency k in cycles a pixel: s and l / 2 of the paper."""
_CUT = 1e-3
"""Frequencies whose inverse weight is below it are left out: they stay under every alpha that is used."""
_LEVEL = 2.0
"""Root mean square of the scaled data in the image plane, 5 times that of |y| = 100 at 256 x 256 pixels in the paper:
nearer the truth on phantoms and real k-space when both stop at their best step. No size of image changes it."""
_GRID = 1.5
"""Field of view of the coil maps over that of the image: they need not close upon themselves at its edges."""
_CENTRE = 0.75
"""Of the 3 x 3 samples around zero frequency, the least share: with a row of them missing the error is 0.2 and more."""
STEPS = 8
"""Gauss-Newton steps by default: the best number for real k-space held out from the estimate is 7 or 8."""


class SmoothMaps:
    """Coil maps c = E_h (w * coefficients) E_w^T from the lowest frequencies of a grid wider than the image.

    Two small matrix products take the place of FFTs; rows and columns come in FFT order.
    Coefficients (..., K_h, K_w), maps (..., H, W).
    """

    def __init__(self, shape: tuple[int, int], like: Tensor) -> None:
        reach = math.sqrt((_CUT ** (-1 / _POWER) - 1) / _SLOPE)
        waves, squares = [], []
        for n in shape:
            most = math.floor(_GRID * n * reach)
            frequency = torch.arange(-most, most + 1, dtype=torch.float64) / (_GRID * n)
            pixel = torch.fft.ifftshift(torch.arange(n, dtype=torch.float64) - n // 2)
            size = torch.full((), (_GRID * n) ** -0.5, dtype=torch.float64)
            waves.append(torch.polar(size, 2 * math.pi * pixel[:, None] * frequency).to(like))
            squares.append(frequency.square())
        self.rows, self.columns = waves
        self.weight = ((1 + _SLOPE * (squares[0][:, None] + squares[1])) ** -_POWER).to(like)

    def forward(self, coefficients: Tensor) -> Tensor:
        return self.rows @ (self.weight * coefficients) @ self.columns.mT

    def adjoint(self, maps: Tensor) -> Tensor:
        return self.weight * (self.rows.mH @ maps @ self.columns.conj())


class JointModel:
    """y = root F(rho c_j), bilinear in image and coil coefficients, on data scaled to a fixed size.

    The unknowns of an item are one vector: the image, then the coefficients. All in FFT order.

    Args:
        kspace: (B, C, H, W). weight: real, broadcasts to it: relative precision of a sample, 0 = not acquired.
    """

    def __init__(self, kspace: Tensor, weight: Tensor) -> None:
        _check(kspace, weight)
        count, coils, height, width = kspace.shape
        root = weight.expand(kspace.shape).sqrt()
        root = root / expand(root.flatten(1).amax(1).clamp_min(torch.finfo(root.dtype).tiny), 3)
        self.root = torch.fft.ifftshift(root, dim=_AXES)
        data = self.root * torch.fft.ifftshift(kspace, dim=_AXES)
        norm = dot(data, data, data.ndim - 1).sqrt()
        self.scale = torch.where(norm > 0, _LEVEL * math.sqrt(height * width) / norm, 1)
        self.data = data * expand(self.scale, 3)
        self.basis = SmoothMaps((height, width), data)
        self.shapes = (count, 1, height, width), (count, coils, *self.basis.weight.shape)
        self.start = self._join(torch.ones_like(data[:, :1]), data.new_zeros(self.shapes[1]))

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image (B, 1, H, W) and coil maps (B, C, H, W)."""
        pixels = self.shapes[0][-2] * self.shapes[0][-1]
        return x[:, :pixels].reshape(self.shapes[0]), self.basis.forward(x[:, pixels:].reshape(self.shapes[1]))

    def _join(self, image: Tensor, coefficients: Tensor) -> Tensor:
        return torch.cat([image.flatten(1), coefficients.flatten(1)], 1)

    def _measure(self, coil_images: Tensor) -> Tensor:
        return self.root * torch.fft.fft2(coil_images, norm="ortho")

    def step(self, x: Tensor, alpha: float, inner: int, tolerance: float) -> Tensor:
        """Solve the Gauss-Newton step (DF^H DF + alpha) d = DF^H (y - F(x)) + alpha (x_0 - x) by CG."""
        rho, c = self.parts(x)

        def back(samples: Tensor) -> Tensor:
            images = torch.fft.ifft2(self.root * samples, norm="ortho")
            return self._join((c.conj() * images).sum(1, keepdim=True), self.basis.adjoint(rho.conj() * images))

        def matrix(d: Tensor) -> Tensor:
            image, maps = self.parts(d)
            return back(self._measure(image * c + rho * maps)) + alpha * d

        right = back(self.data - self._measure(rho * c)) + alpha * (self.start - x)
        return x + cg(matrix, right, ndim=1, iterations=inner, tolerance=tolerance).x


def joint_steps(
    kspace: Tensor,
    weight: Tensor,
    *,
    steps: int = STEPS,
    reduction: float = 0.5,
    inner: int = 60,
    tolerance: float = 0.05,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate regularised Gauss-Newton steps from rho = 1, c = 0: image and coil maps after every step.

    alpha = 1 at first and falls by `reduction` a step (eq. 8 of the paper); stopping early is the regularisation.

    Args:
        kspace: (B, C, H, W). weight: real, broadcasts to it: relative precision of a sample, 0 = not acquired.
        inner, tolerance: conjugate gradients of a step, at most, and their relative residual.

    Yields:
        rho (B, H, W) and c (B, C, H, W): rho c_j is the image of coil j in the units of the data.
    """
    model, alpha = JointModel(kspace, weight), 1.0
    x = model.start
    for _ in range(steps):
        x, alpha = model.step(x, alpha, inner, tolerance), alpha * reduction
        rho, c = (torch.fft.fftshift(part, dim=_AXES) for part in model.parts(x))
        yield rho[:, 0] / expand(model.scale, 2), c


def nlinv(kspace: Tensor, mask: Tensor | None = None, *, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    """Estimate image and coil maps from undersampled k-space alone; no ACS is needed.

    Args:
        kspace: (..., C, H, W), complex.
        mask: samples acquired, (H, W), or (W,) columns, or anything that broadcasts to kspace; non-zero samples by
            default.
        steps: Gauss-Newton steps; more are sharper and noisier.

    Returns:
        Image (..., H, W) and maps (..., C, H, W) with sum |S|^2 = 1, their phase relative to coil 0: S_0 is real and
        not negative, and the image has the phase that coil 0 sees.

    Raises:
        ValueError: k-space that is not complex (..., C, H, W), has no sample, none around zero frequency, NaN or
            infinite ones, or a mask of another shape; steps below 1.
    """
    if steps < 1:
        raise ValueError(f"nlinv: needs steps >= 1, got {steps}")
    if not kspace.is_complex() or kspace.ndim < 3:
        raise ValueError(f"nlinv: k-space is complex (..., C, H, W), got {kspace.dtype} {[*kspace.shape]}")
    try:
        weight = (kspace if mask is None else mask).expand(kspace.shape) != 0
    except RuntimeError:
        got = () if mask is None else tuple(mask.shape)
        raise ValueError(f"nlinv: a mask of shape {got} does not broadcast to k-space {tuple(kspace.shape)}") from None
    flat = kspace.reshape(-1, *kspace.shape[-3:])
    estimates = joint_steps(flat, weight.reshape(flat.shape).to(kspace.real.dtype), steps=steps)
    image, maps = normalised(*deque(estimates, maxlen=1).pop())
    return image.reshape(*kspace.shape[:-3], *image.shape[-2:]), maps.reshape(kspace.shape)


def nlinv_maps(kspace: Tensor, mask: Tensor | None = None, *, steps: int = STEPS) -> Tensor:
    """Estimate coil sensitivity maps for k-space without an ACS, shaped like kspace; as `nlinv`."""
    return nlinv(kspace, mask, steps=steps)[1]


def normalised(image: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same coil images from maps with sum |S|^2 = 1 and the phase of coil 0 in the image."""
    size = maps.abs().square().sum(-3).sqrt()
    tiny = torch.finfo(size.dtype).tiny
    first = maps[..., 0, :, :]
    phase = torch.where(first.abs() > 0, first / first.abs().clamp_min(tiny), 1)
    return image * size * phase, maps / size.clamp_min(tiny)[..., None, :, :] * phase.conj()[..., None, :, :]


def _check(kspace: Tensor, weight: Tensor) -> None:
    if not bool(torch.isfinite(torch.view_as_real(kspace.resolve_conj())).all()):
        raise ValueError("nlinv: k-space has NaN or infinite samples; set samples that were not acquired to 0")
    if not bool((weight.expand(kspace.shape) * kspace.abs()).any()):
        raise ValueError("nlinv: k-space has no sample; nothing was measured")
    seen = (weight.expand(kspace.shape) != 0).any(1)  # by some coil
    middle = seen
    for axis in _AXES:
        first = max(0, middle.shape[axis] // 2 - 1)
        middle = middle.narrow(axis, first, min(3, middle.shape[axis] - first))
    if bool((seen.flatten(1).any(1) & (middle.double().flatten(1).mean(1) < _CENTRE)).any()):
        raise ValueError(
            f"nlinv: fewer than {100 * _CENTRE:.0f} % of the 3 x 3 samples around zero frequency were acquired, "
            "without which neither image nor coil maps can be found; acquire a few central lines, or give coil maps"
        )
