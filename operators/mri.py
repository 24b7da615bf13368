"""Cartesian multi-coil MRI: y = M F S x (SENSE, Pruessmann 1999) on SigPy's conventions."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from medrecon.linalg import power_norm
from medrecon.operators.base import LinearOperator
from medrecon.operators.coils import birdcage_maps
from medrecon.operators.masks import random_mask

_AXES = (-2, -1)
_CHUNK = 2**26  # complex samples per FFT call on a GPU: 0.5 GB


class CartesianMRI(LinearOperator):
    """Image x (..., H, W) to k-space y (..., C, H, W): mask * FFT2(maps * x), centred and orthonormal.

    Equal to `sigpy.mri.linop.Sense(maps, weights=mask)`; zero frequency at [H // 2, W // 2]. The last image axis
    is the phase-encoding one by convention of `masks`. Maps and mask should be on the device of the data.

    Args:
        maps: coil sensitivity maps, (C, H, W) for every item or (B, C, H, W), one set for each of a batch of B.
        mask: (H, W) or (B, H, W), bool or real; it multiplies the samples, 0 = not acquired.

    Raises:
        ValueError: shapes that do not fit, NaN or infinite maps or mask, or a mask with no sample.
    """

    in_dtype = torch.complex64
    out_dtype = torch.complex64

    def __init__(self, maps: Tensor, mask: Tensor) -> None:
        _validate(maps, mask)
        self.coils, height, width = maps.shape[-3:]
        self.in_shape, self.out_shape = (height, width), (self.coils, height, width)
        maps4 = maps.reshape(-1, *self.out_shape).to(torch.complex128 if maps.dtype.itemsize == 16 else torch.complex64)
        mask3 = mask.reshape(-1, height, width).to(maps4.real.dtype)
        # Kept in FFT order: then only one image per slice is shifted, never the coils.
        self._maps = torch.fft.ifftshift(maps4, dim=_AXES)
        self._mask = torch.fft.ifftshift(mask3, dim=_AXES)
        self._unitary = self.coils == 1 and bool(((maps4.abs() - 1).abs() < 1e-5).all())

    @property
    def maps(self) -> Tensor:
        """Coil sensitivity maps (1 or B, C, H, W)."""
        maps: Tensor = torch.fft.fftshift(self._maps, dim=_AXES)
        return maps

    @property
    def mask(self) -> Tensor:
        """Sampling mask (1 or B, H, W), real."""
        mask: Tensor = torch.fft.fftshift(self._mask, dim=_AXES)
        return mask

    @property
    def sampled(self) -> Tensor:
        return (self.mask != 0)[:, None]

    def _items(self, count: int, like: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Chunks of the batch with their maps and mask: one slice on a CPU (stays in the cache), many on a GPU."""
        for name, given in (("sets of maps", self._maps), ("masks", self._mask)):
            if given.shape[0] not in (1, count):
                raise ValueError(f"CartesianMRI: {given.shape[0]} {name} were given, but the batch has {count} items")
        step = 1 if like.device.type == "cpu" else max(1, _CHUNK // (self.coils * self.in_shape[0] * self.in_shape[1]))
        maps = self._maps.to(like.device, like.dtype)
        mask = self._mask.to(like.device, like.real.dtype)
        for start in range(0, count, step):
            part = slice(start, start + step)
            yield (part, maps if len(maps) == 1 else maps[part], (mask if len(mask) == 1 else mask[part])[:, None])

    def _forward(self, x: Tensor) -> Tensor:
        y = x.new_empty((len(x), *self.out_shape))
        for part, maps, mask in self._items(len(x), x):
            image = torch.fft.ifftshift(x[part], dim=_AXES)[:, None]
            y[part] = torch.fft.fftshift(mask * torch.fft.fft2(maps * image, norm="ortho"), dim=_AXES)
        return y

    def _adjoint(self, y: Tensor) -> Tensor:
        x = y.new_empty((len(y), *self.in_shape))
        for part, maps, mask in self._items(len(y), y):
            coils = torch.fft.ifft2(mask * torch.fft.ifftshift(y[part], dim=_AXES), norm="ortho")
            x[part] = torch.fft.fftshift((maps.conj() * coils).sum(1), dim=_AXES)
        return x

    def _gram(self, x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        for part, maps, mask in self._items(len(x), x):
            image = torch.fft.ifftshift(x[part], dim=_AXES)[:, None]
            kspace = mask.square() * torch.fft.fft2(maps * image, norm="ortho")
            coils = torch.fft.ifft2(kspace, norm="ortho")
            out[part] = torch.fft.fftshift((maps.conj() * coils).sum(1), dim=_AXES)
        return out

    def prox(self, z: Tensor, y: Tensor, weight: float | Tensor, *,
             iterations: int = 30, tolerance: float = 1e-5) -> Tensor:  # fmt: skip
        """One coil with |map| = 1: exact, x = A1^H [(M y + weight A1 z) / (M^2 + weight)]; else CG."""
        if not self._unitary:
            return super().prox(z, y, weight, iterations=iterations, tolerance=tolerance)
        self._check(z, self.in_shape, self.in_dtype, "prox")
        self._check(y, self.out_shape, self.out_dtype, "prox")
        # A1 is A with all samples; it is unitary, so the normal equations are diagonal in k-space.
        full = CartesianMRI(self.maps, torch.ones_like(self.mask))
        mask = self.mask[:, None].to(z.device)
        mu = torch.as_tensor(weight, dtype=mask.dtype, device=z.device)
        mu = mu.reshape(mu.shape + (1,) * 3) if mu.ndim else mu
        return full.adjoint((mask * y + mu * full(z)) / (mask.square() + mu))

    def norm(self, generator: torch.Generator | None = None, device: str | torch.device = "cpu") -> float:
        """Largest singular value over all items, by 30 power iterations (a lower bound, within about 1 %)."""
        g = generator if generator is not None else torch.Generator().manual_seed(0)
        count = max(len(self._maps), len(self._mask))
        return power_norm(self.gram, torch.randn((count, *self.in_shape), dtype=self.in_dtype, generator=g).to(device))

    @classmethod
    def examples(cls) -> Iterator[LinearOperator]:
        g = torch.Generator().manual_seed(0)
        mask = random_mask((12, 9), 2.0, 3, g)
        yield cls(birdcage_maps(1, (12, 9), g), mask)
        yield cls(birdcage_maps(4, (12, 9), g), mask)
        # Three sets: the contract tests run batches of three.
        each = torch.stack([birdcage_maps(3, (7, 10), g) for _ in range(3)])
        yield cls(each, torch.stack([random_mask((7, 10), 2.0, 2, g) for _ in range(3)]))


def _validate(maps: Tensor, mask: Tensor) -> None:
    if not maps.is_complex() or maps.ndim not in (3, 4):
        raise ValueError(f"CartesianMRI: maps are complex (C, H, W) or (B, C, H, W), got {maps.dtype} {[*maps.shape]}")
    if mask.is_complex() or mask.ndim not in (2, 3) or mask.shape[-2:] != maps.shape[-2:]:
        raise ValueError(
            f"CartesianMRI: mask must be real (H, W) or (B, H, W) with the H, W of maps {tuple(maps.shape)}, "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )
    if maps.ndim == 4 and mask.ndim == 3 and 1 != len(mask) != len(maps) != 1:
        raise ValueError(f"CartesianMRI: {len(maps)} sets of maps but {len(mask)} masks; give one of each an item")
    if not bool(torch.isfinite(torch.view_as_real(maps.resolve_conj())).all()):
        raise ValueError("CartesianMRI: maps have NaN or infinite values; set them to 0 outside the support")
    if not bool(torch.isfinite(mask.float()).all()):
        raise ValueError("CartesianMRI: mask has NaN or infinite values")
    if not bool((mask != 0).flatten(-2).any(-1).all()):
        raise ValueError("CartesianMRI: the mask has no sample; nothing was measured")
