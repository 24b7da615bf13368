"""Cartesian multi-coil MRI: y = M F S diag(e^{i phi}) x (SENSE, Pruessmann 1999) on SigPy's conventions.

No array of coil images is ever shifted. With c = n // 2 the centred transform is the plain one between two phase
ramps, (j - c)(k - c) = j k - c j - c (k - c); the first ramp multiplies the one image, the second the mask. In A^H A
both cancel: S^H F^H diag(ifftshift(M^2)) F S is the centred operator for any mask and size, and for a mask that is
constant along one axis the transforms along that axis cancel too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import copy
from typing import Literal

import torch
from torch import Tensor

from medrecon.coils.combine import birdcage_maps
from medrecon.numerics.linalg import dot, expand
from medrecon.operators.base import LinearOperator
from medrecon.operators.mri.checks import unit_phase, validate
from medrecon.operators.mri.line_prox import LineSystems
from medrecon.operators.spectrum import Spectrum
from medrecon.sampling.lines import random_mask

Method = Literal["closed form", "direct", "cg"]

_AXES = (-2, -1)
_CHUNK = {"core": 2**17, "cores": 2**21, "gpu": 2**26}
"""Complex samples transformed at once: what stays in the cache of one core; with more threads those of a slice, since
threads that wait for each other cost more than the cache saves; 0.5 GB on a GPU."""
_ROUNDS = 3  # of iterative refinement at most; the first mostly finds nothing left to do


class CartesianMRI(LinearOperator):
    """Image x (..., H, W) to k-space y (..., C, H, W): mask * FFT2(maps * phase * x), centred and orthonormal.

    Equal to `sigpy.mri.linop.Sense(maps, weights=mask**2)`; zero frequency at [H // 2, W // 2]. The last image axis is
    the phase-encoding one by convention of `masks`; masks constant along either axis are the fast case. Computes in
    the precision of the data, complex64 or complex128. Maps, mask and phase should be on the device of the data.

    Args:
        maps: coil sensitivity maps, (C, H, W) for every item or (B, C, H, W), one set for each of a batch of B. They
            are not copied: do not write to them later.
        mask: (H, W) or (B, H, W), bool or real; it multiplies the samples, 0 = not acquired.
        phase: e^{i phi}, complex of modulus 1, (H, W) or (B, H, W), as `coils.smooth_phase` finds it: x is then the
            image without that phase, for priors of magnitudes.

    Raises:
        ValueError: shapes that do not fit, NaN or infinite maps or mask, a mask with no sample, a phase whose modulus
            is not 1.
    """

    def __init__(self, maps: Tensor, mask: Tensor, phase: Tensor | None = None) -> None:
        validate(maps, mask)
        height, width = maps.shape[-2:]
        maps = maps.detach().resolve_conj().reshape(-1, *maps.shape[-3:])
        self._set(maps, mask.detach().reshape(-1, height, width), _line_systems(maps, mask), phase)

    def _set(self, maps: Tensor, mask: Tensor, lines: LineSystems | None, phase: Tensor | None) -> None:
        self.coils, height, width = maps.shape[1:]
        self.in_shape, self.out_shape = (height, width), (self.coils, height, width)
        self.in_dtype = self.out_dtype = maps.dtype
        self._maps, self._mask, self._lines = maps, mask, lines
        self._phase = None if phase is None else unit_phase(phase, maps)
        self.items = max(len(t) for t in (maps, mask, self._phase) if t is not None)

    def with_phase(self, phase: Tensor | None) -> CartesianMRI:
        """Return this operator with another phase, or none; maps, mask and factors of `prox` are shared."""
        other = copy(self)
        other._set(self._maps, self._mask, self._lines, phase)
        return other

    @property
    def maps(self) -> Tensor:
        """Return coil sensitivity maps (1 or B, C, H, W)."""
        return self._maps

    @property
    def mask(self) -> Tensor:
        """Return the sampling mask (1 or B, H, W), real."""
        return self._mask.to(self._maps.real.dtype)

    @property
    def sampled(self) -> Tensor:
        return (self._mask != 0)[:, None]

    @property
    def support(self) -> Tensor:
        return (self._maps != 0).any(1)

    @property
    def phase(self) -> Tensor | None:
        """Return e^{i phi} (1 or B, H, W), or None."""
        return self._phase

    def _parts(self, x: Tensor) -> Iterator[tuple[slice, Tensor | None]]:
        """Chunks of the batch and their phase: one slice on a CPU (stays in the cache), many on a GPU."""
        step = 1 if x.device.type == "cpu" else max(1, _CHUNK["gpu"] // math.prod(self.out_shape))
        for start in range(0, len(x), step):
            part = slice(start, start + step)
            yield part, None if self._phase is None else _of(self._phase, part).to(x.device, x.dtype)

    def _coils(self, part: slice, like: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Chunks of the coils and their maps (1 or b, c, H, W), for a chunk of the batch."""
        place = "gpu" if like.device.type != "cpu" else "core" if torch.get_num_threads() == 1 else "cores"
        step = max(1, _CHUNK[place] // math.prod(self.in_shape))
        for start in range(0, self.coils, step):
            coils = slice(start, start + step)
            yield coils, _of(self._maps, part)[:, coils].to(like.device, like.dtype)

    def _ramped(self, part: slice, ramp: Tensor) -> Tensor:
        """mask * ramp (1 or b, 1, H, W), complex."""
        return (_of(self._mask, part).to(ramp.device, ramp.real.dtype) * ramp)[:, None]

    def _forward(self, x: Tensor) -> Tensor:
        y = x.new_empty((len(x), *self.out_shape))
        before, after = _ramps(self.in_shape, x)
        for part, phase in self._parts(x):
            image = (x[part] * (before if phase is None else before * phase))[:, None]
            weights = self._ramped(part, after)
            for coils, maps in self._coils(part, x):
                torch.mul(torch.fft.fft2(maps * image, norm="ortho"), weights, out=y[part, coils])
        return y

    def _adjoint(self, y: Tensor) -> Tensor:
        x = y.new_empty((len(y), *self.in_shape))
        before, after = _ramps(self.in_shape, y)
        for part, phase in self._parts(y):
            weights = self._ramped(part, after).conj().resolve_conj()
            total = torch.zeros_like(x[part])
            for coils, maps in self._coils(part, y):
                k = y[part, coils] * weights
                _add_coils(total, maps, torch.fft.fft2(torch.conj_physical(k, out=k), norm="ortho"))
            x[part] = (total * (before if phase is None else before * phase)).conj()
        return x

    def _gram(self, x: Tensor) -> Tensor:
        out = x.new_empty(x.shape)
        axes = _AXES if self._lines is None else (self._lines.axis,)
        for part, phase in self._parts(x):
            image = (x[part] if phase is None else x[part] * phase)[:, None]
            weights = self._squared(part, x)
            total = torch.zeros_like(out[part])
            for _, maps in self._coils(part, x):
                k = torch.fft.fftn(maps * image, dim=axes, norm="ortho")
                torch.view_as_real(k).mul_(weights)
                _add_coils(total, maps, torch.fft.fftn(k, dim=axes, norm="ortho"))
            out[part] = (total if phase is None else total * phase).conj()
        return out

    def _squared(self, part: slice, like: Tensor) -> Tensor:
        """mask^2 in FFT order, times 1 and -1 for real and imaginary parts (1 or b, 1, H or 1, W or 1, 2)."""
        mask = _of(self._mask, part).to(like.device, like.real.dtype)
        if self._lines is not None:
            mask = mask[:, :1] if self._lines.axis == -1 else mask[:, :, :1]
        squared = torch.fft.ifftshift(mask.square(), dim=_AXES)[:, None]
        return torch.stack([squared, -squared], dim=-1)

    @property
    def spectrum(self) -> Spectrum | None:
        """Give the k-space of the image as its components: of one coil whose sensitivity is of one size.

        Several coils mix components that the mask keeps with ones that it leaves out, and their singular values lie in
        no basis that is known beforehand.
        """
        size = self._maps.abs().amax((-2, -1), keepdim=True)
        even = (self._maps.abs() - size).abs() < 64 * torch.finfo(self._maps.dtype).eps * size
        if self.coils > 1 or not bool((even | (self._maps == 0)).all()):
            return None
        unit = copy(self)
        maps = torch.where(self._maps == 0, torch.ones_like(self._maps), self._maps / size)
        unit._set(maps, torch.ones_like(self._mask[:1], dtype=maps.real.dtype), None, self._phase)
        return Spectrum(size * self.mask[:, None], unit.forward, unit.adjoint)

    def prox_method(self, weight: float | Tensor) -> Method:
        """Tell how `prox` would solve for this weight if it were called now.

        - "closed form": one coil with |map| = 1, any mask.
        - "direct": a mask constant along one axis, for a weight that `prox` was asked for before (factors pay from the
          second time on) or lines so short that they cost nothing, as long as the factors of a batch fit into the
          cache of `LineSystems`. Differentiable by z and y, not by the weight.
        - "cg": otherwise, and where a gradient by the weight is wanted.
        """
        if self._unitary():
            return "closed form"
        if self._lines is None or (isinstance(weight, Tensor) and weight.requires_grad):
            return "cg"
        return "direct" if self._lines.pays(_weights(weight).flatten().tolist(), self.in_dtype) else "cg"

    def prox(
        self,
        z: Tensor,
        y: Tensor,
        weight: float | Tensor,
        *,
        iterations: int = 30,
        tolerance: float = 1e-5,
        method: Method | None = None,
    ) -> Tensor:
        """Minimise |A x - y|^2 + weight |x - z|^2 over x: exactly where that is possible, by CG from z elsewhere.

        Args:
            z: (..., H, W). y: (..., C, H, W). weight: > 0, a number or one a batch item.
            iterations, tolerance: of CG alone.
            method: chosen by `prox_method` unless given; "direct" factors at once, and when the factors of a batch do
                not fit into the cache it makes them anew each time, a slice at a time.

        Raises:
            ValueError: a weight that is not positive, or a method that this operator does not have.
        """
        self._check(z, self.in_shape, self.in_dtype, "prox")
        self._check(y, self.out_shape, self.out_dtype, "prox")
        mu = _weights(weight)
        try:
            lead = torch.broadcast_shapes(z.shape[:-2], y.shape[:-3], mu.shape)
        except RuntimeError:
            shapes = [tuple(t) for t in (z.shape[:-2], y.shape[:-3], mu.shape)]
            raise ValueError(f"CartesianMRI.prox: batches of z, y and weight do not fit: {shapes}") from None
        if 0 in lead:
            return z.new_empty(*lead, *self.in_shape)
        chosen = self.prox_method(weight) if method is None else method
        if chosen not in self._methods():
            raise ValueError(f"CartesianMRI.prox: method {chosen!r} is not among {self._methods()} of this operator")
        if self._lines is not None and chosen != "closed form":
            self._lines.note(mu.flatten().tolist())
        if chosen == "cg":
            return super().prox(z, y, weight, iterations=iterations, tolerance=tolerance)
        flat_z = z.expand(*lead, *self.in_shape).reshape(-1, *self.in_shape)
        flat_y = y.expand(*lead, *self.out_shape).reshape(-1, *self.out_shape)
        solve = self._closed_form if chosen == "closed form" else self._direct
        return solve(flat_z, flat_y, mu.to(z.device).expand(lead).reshape(-1)).reshape(*lead, *self.in_shape)

    def _unitary(self) -> bool:
        """One coil of modulus 1: A is a unitary operator times the mask."""
        if self.coils > 1:
            return False
        return bool(((self._maps.abs() - 1).abs() < 64 * torch.finfo(self._maps.dtype).eps).all())

    def _methods(self) -> tuple[Method, ...]:
        closed: tuple[Method, ...] = ("closed form",) if self._unitary() else ()
        return (*closed, "cg") if self._lines is None else (*closed, "direct", "cg")

    def _closed_form(self, z: Tensor, y: Tensor, mu: Tensor) -> Tensor:
        """A = M U, U unitary: x = z + A^H (M^2 + mu)^-1 (y - A z)."""
        squared = self._mask.to(z.device, z.real.dtype).square()[:, None]
        return z + self.adjoint((y - self.forward(z)) / (squared + expand(mu.to(z.real.dtype), 3)))

    def _direct(self, z: Tensor, y: Tensor, mu: Tensor) -> Tensor:
        """The change d = x - z solves (A^H A + mu) d = A^H y - A^H A z."""
        assert self._lines is not None
        lines, weights = self._lines, mu.tolist()
        accurate = 8 * torch.finfo(z.dtype).eps  # 9.5e-7 in complex64

        def inverse(b: Tensor) -> Tensor:
            phase = None if self._phase is None else self._phase.to(b.device, b.dtype)
            scale, shift = accurate * dot(b, b, 2).sqrt(), expand(mu.to(b.real.dtype), 2)
            d, r = torch.zeros_like(b), b
            for _ in range(_ROUNDS):
                step = lines.solve(r if phase is None else r * phase, weights)
                d = d + (step if phase is None else step * phase.conj())
                r = b - self.gram_batch(d) - shift * d
                if bool((dot(r, r, 2).sqrt() <= scale).all()):
                    break
            return d

        return z + self._run(self.adjoint(y) - self.gram(z), self.in_shape, inverse, inverse)

    @classmethod
    def examples(cls) -> Iterator[LinearOperator]:
        g = torch.Generator().manual_seed(0)
        mask = random_mask((12, 9), 2.0, 3, g)
        yield cls(birdcage_maps(1, (12, 9), g), mask)
        yield cls(birdcage_maps(4, (12, 9), g), mask)
        # Three sets: the contract tests run batches of three.
        each = torch.stack([birdcage_maps(3, (7, 10), g) for _ in range(3)])
        phases = torch.polar(torch.ones(3, 7, 10), 6 * torch.rand((3, 7, 10), generator=g))
        yield cls(each, torch.stack([random_mask((7, 10), 2.0, 2, g) for _ in range(3)]))
        yield cls(each, random_mask((10, 7), 2.0, 2, g).mT, phases)  # undersampled rows
        yield cls(each[0].to(torch.complex128), torch.rand((3, 7, 10), generator=g), phases[0])  # no lines
        angles = 6 * torch.rand((3, 1, 7, 10), generator=g)
        one = torch.polar(torch.arange(1.0, 4).reshape(3, 1, 1, 1).expand_as(angles), angles)
        yield cls(one * (torch.arange(10) > 1), torch.rand((3, 7, 10), generator=g) - 0.5)  # and margins not seen


def _of(given: Tensor, part: slice) -> Tensor:
    """What belongs to a chunk of the batch; one for all is for every chunk."""
    return given if len(given) == 1 else given[part]


def _add_coils(total: Tensor, maps: Tensor, images: Tensor) -> None:
    """total (b, H, W) += sum over coils of maps * images (b, c, H, W), which are overwritten; on a CPU one after the
    other, so that it is the same however many coils a chunk has."""
    if total.device.type == "cpu":
        for c in range(images.shape[1]):
            total.addcmul_(maps[:, c], images[:, c])
    else:
        total += images.mul_(maps).sum(1)


def _ramps(shape: tuple[int, ...], like: Tensor) -> tuple[Tensor, Tensor]:
    """e^{2 pi i c j / n} of the image and e^{2 pi i c (k - c) / n} of k-space (H, W), reduced as integers: exact."""
    ramps = []
    for origin in (0, 1):
        rows, columns = (
            torch.polar(
                torch.ones(n, dtype=torch.float64),
                2 * math.pi / n * ((torch.arange(n) - origin * (n // 2)) * (n // 2) % n).double(),
            )
            for n in shape
        )
        ramps.append((rows[:, None] * columns).to(like.device, like.dtype))
    return ramps[0], ramps[1]


def _line_systems(maps: Tensor, mask: Tensor) -> LineSystems | None:
    """The systems of a mask that is constant along one axis (the readout)."""
    mask = mask.detach().reshape(-1, *maps.shape[-2:])
    for axis, line in ((-1, mask[:, 0]), (-2, mask[:, :, 0])):
        if bool((mask == line.unsqueeze(-3 - axis)).all()):
            return LineSystems(maps, line.double().square(), axis)
    return None


def _weights(weight: float | Tensor) -> Tensor:
    """The weights in float64, checked."""
    mu = torch.as_tensor(weight, dtype=torch.float64).detach()
    if not bool((torch.isfinite(mu) & (mu > 0)).all()):
        raise ValueError(f"CartesianMRI.prox: weight must be positive and finite, got {weight}")
    return mu
