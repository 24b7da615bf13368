"""Non-Cartesian multi-coil MRI: y = F S x with a non-uniform Fourier transform (CG-SENSE, Pruessmann et al., MRM 46
(2001) 638), the normal operator without touching a sample."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from copy import copy

import torch
from torch import Tensor

from medrecon.coils.combine import birdcage_maps
from medrecon.numerics.fourier import centred_fft, crop_or_pad
from medrecon.operators.base import LinearOperator
from medrecon.operators.mri.nufft.density import as_area, voronoi
from medrecon.operators.mri.nufft.engine import Backend, installed
from medrecon.operators.mri.nufft.transform import NUFFT


class NonCartesianMRI(LinearOperator):
    """Image x (..., *shape) to samples y (..., C, S): NUFFT(maps * phase * x), conventions of `NUFFT`.

    `gram`, and with it `prox` and every CG, runs on a Toeplitz point spread function, however many samples
    there are; it equals adjoint(forward) to the accuracy eps of the transform. The CPU does a batch slice by slice.

    Args:
        trajectory: (S, d), cycles per field of view, |k| <= N / 2.
        shape: (H, W), or (D, H, W) with finufft.
        maps: coil sensitivity maps, complex (C, *shape) for every item or (B, C, *shape), one set for each of B items.
        density: (S,) density compensation of any scale; no part of A: `gridding` uses it.
        phase: e^{i phi}, complex of modulus 1, (*shape) or (B, *shape): x is then the image without that phase, for
            priors of magnitudes.
        eps: relative error of the transform.
        backend: of `NUFFT`.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, a phase whose modulus is not 1, or what `NUFFT`
            refuses of a trajectory.
    """

    in_dtype = out_dtype = torch.complex64

    def __init__(
        self,
        trajectory: Tensor,
        shape: tuple[int, ...],
        maps: Tensor,
        density: Tensor | None = None,
        *,
        phase: Tensor | None = None,
        eps: float = 2e-6,
        backend: Backend = "auto",
    ) -> None:
        self.nufft = NUFFT(trajectory, tuple(shape), eps=eps, backend=backend)
        self._density = None if density is None else _checked_density(density, len(trajectory))
        self._set(maps, phase)

    def _set(self, maps: Tensor, phase: Tensor | None) -> None:
        self.in_shape = self.nufft.in_shape
        _check_maps(maps, self.in_shape)
        self.maps = maps.reshape(-1, *maps.shape[-len(self.in_shape) - 1 :]).resolve_conj()
        self.out_shape = (self.maps.shape[1], *self.nufft.out_shape)
        self.phase = phase
        self._seen = self.maps if phase is None else self._with(phase)
        self.items = len(self._seen)

    def with_maps(self, maps: Tensor) -> NonCartesianMRI:
        """Return this operator for other coils or slices and no phase; the plan is shared."""
        other = copy(self)
        other._set(maps, None)
        return other

    def with_phase(self, phase: Tensor | None) -> NonCartesianMRI:
        """Return this operator with another phase, or none; the plan is shared."""
        other = self.with_maps(self.maps)
        other._set(self.maps, phase)
        return other

    def _with(self, phase: Tensor) -> Tensor:
        ndim = len(self.in_shape)
        if tuple(phase.shape[-ndim:]) != self.in_shape or phase.ndim > ndim + 1 or not phase.is_complex():
            raise ValueError(
                f"NonCartesianMRI: phase is complex {self.in_shape} or (B, *that), got {phase.dtype} {[*phase.shape]}"
            )
        if not bool(((phase.abs() - 1).abs() < 1e-3).all()):
            raise ValueError("NonCartesianMRI: phase must have modulus 1; divide it by its magnitude")
        return self.maps * phase.resolve_conj().reshape(-1, 1, *self.in_shape).to(self.maps)

    @functools.cached_property
    def density(self) -> Tensor:
        """Return the area of k-space each sample stands for, (S,) float64; without a density, its Voronoi cell."""
        if self._density is None:
            return voronoi(self.nufft.trajectory, (self.in_shape[0], self.in_shape[1]))
        return as_area(self._density, self.nufft.trajectory)

    def gridding(self, y: Tensor) -> Tensor:
        """Reconstruct by gridding (..., *shape): A^H of density * y over sum |map|^2, intensities right.

        Raises:
            ValueError: 3D without a density.
        """
        if self._density is None and len(self.in_shape) != 2:
            raise ValueError("NonCartesianMRI.gridding: give the density of a 3D trajectory")
        image = self.adjoint(self.density.to(y.device, y.real.dtype) * y)
        energy = self._seen.abs().square().sum(1).to(image.device, image.real.dtype)
        return torch.where(energy > 0, image / energy.clamp_min(1e-12), 0)

    def _items(self, x: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Chunks of the batch with their maps (1 or b, C, *shape): one slice on a CPU, eight on a GPU."""
        step = 1 if x.device.type == "cpu" else 8
        seen = self._seen.to(x.device, x.dtype)
        for start in range(0, len(x), step):
            part = slice(start, start + step)
            yield part, seen if len(seen) == 1 else seen[part]

    @property
    def support(self) -> Tensor:
        return (self.maps != 0).any(1)

    def _forward(self, x: Tensor) -> Tensor:
        y = x.new_empty((len(x), *self.out_shape))
        for part, maps in self._items(x):
            coils = (maps * x[part, None]).flatten(0, 1)
            y[part] = self.nufft.forward_batch(coils).view(-1, *self.out_shape)
        return y

    def _adjoint(self, y: Tensor) -> Tensor:
        x = y.new_empty((len(y), *self.in_shape))
        for part, maps in self._items(y):
            coils = self.nufft.adjoint_batch(y[part].flatten(0, 1)).view(-1, *self.maps.shape[1:])
            x[part] = (maps.conj() * coils).sum(1)
        return x

    def _gram(self, x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        for part, maps in self._items(x):
            out[part] = self.nufft.toeplitz.sandwich(x[part], maps)
        return out

    @classmethod
    def examples(cls) -> Iterator[LinearOperator]:
        g = torch.Generator().manual_seed(0)
        shape = (9, 7)
        k = (torch.rand((80, 2), generator=g) - 0.5) * torch.tensor(shape)
        yield cls(k, shape, birdcage_maps(3, shape, g), torch.rand(80, generator=g))
        # Three sets: the contract tests run batches of three.
        each = torch.stack([birdcage_maps(2, shape, g) for _ in range(3)])
        yield cls(k, shape, each, phase=torch.polar(torch.ones(shape), torch.rand(shape, generator=g)))
        if installed():
            k = (torch.rand((90, 3), generator=g) - 0.5) * torch.tensor([3, 5, 4])
            yield cls(k, (3, 5, 4), birdcage_maps(2, (5, 4), g)[:, None].expand(-1, 3, -1, -1))


def calibration_kspace(
    y: Tensor, trajectory: Tensor, shape: tuple[int, int], density: Tensor | None = None, *, width: int = 24
) -> Tensor:
    """Estimate the centre of Cartesian k-space (..., C, H, W) from samples (..., C, S), for `coils.espirit`; 0 outside.

    Every coil is reconstructed by gridding, and transformed; the central `width` square is kept, where the trajectory
    is dense.

    Args:
        density: (S,) of any scale; Voronoi cells by default.

    Raises:
        ValueError: shapes that do not fit, or what `NUFFT` refuses of a trajectory.
    """
    A = NUFFT(trajectory, shape)
    if density is None:
        weights = voronoi(A.trajectory, shape)
    else:
        weights = as_area(_checked_density(density, len(trajectory)), A.trajectory)
    kspace = centred_fft(A.adjoint(weights.to(y.device, y.real.dtype) * y))
    return crop_or_pad(crop_or_pad(kspace, (width, width)), shape)


def _checked_density(density: Tensor, samples: int) -> Tensor:
    """float64 on the CPU."""
    w = density.detach().to("cpu", torch.float64)
    if tuple(w.shape) != (samples,) or not bool((torch.isfinite(w) & (w >= 0)).all()) or not bool(w.any()):
        raise ValueError(f"density is (S,) = ({samples},), finite, >= 0 and not all 0, got {tuple(w.shape)}")
    return w


def _check_maps(maps: Tensor, shape: tuple[int, ...]) -> None:
    if not maps.is_complex() or maps.ndim - len(shape) not in (1, 2) or tuple(maps.shape[-len(shape) :]) != shape:
        raise ValueError(
            f"NonCartesianMRI: maps are complex (C, *shape) or (B, C, *shape) for shape {shape}, got {maps.dtype} "
            f"{tuple(maps.shape)}"
        )
    if not bool(torch.isfinite(torch.view_as_real(maps.resolve_conj())).all()):
        raise ValueError("NonCartesianMRI: maps have NaN or infinite values; set them to 0 outside the support")
