"""SPIRiT's self-consistency (Lustig & Pauly 2010): every k-space sample from all its neighbours in all coils."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from medrecon.kspace.calibration import Calibration, calibration_region
from medrecon.operators.base import LinearOperator

_AXES = (-2, -1)


def spirit_kernel(acs: Tensor, size: int = 5, tikhonov: float = 1e-3) -> Tensor:
    """Fit weights (C, C, size, size), complex64: k_a[p] = sum over coils b, offsets d of w[a, b, d] k_b[p + d].

    The middle weight of a coil for itself is 0. Fitted to all patches of the ACS (C, h, w) with a Tikhonov term of
    `tikhonov` times the mean energy of a sample.

    Raises:
        ValueError: an even size, or an ACS smaller than the kernel.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"spirit_kernel: the size of the kernel is odd and positive, got {size}")
    coils, half = len(acs), size // 2
    gram = Calibration(acs, size).gram(list(range(-half, half + 1)))
    gram.diagonal().add_((tikhonov + 1e-13) * gram.diagonal().real.mean() + torch.finfo(torch.float64).tiny)
    # All regressions at once: with P the inverse, the weights of the others for element i are -P[:, i] / P[i, i].
    target = (half * size + half) * coils + torch.arange(coils, device=gram.device)
    columns = torch.linalg.inv(gram)[:, target]
    own = columns[target, torch.arange(coils, device=gram.device)]
    weights = -columns / own
    weights[target, torch.arange(coils, device=gram.device)] = 0
    # (column, row, source, target) -> (target, source, row, column)
    return weights.reshape(size, size, coils, coils).permute(3, 2, 1, 0).to(torch.complex64).contiguous()


class SelfConsistency(LinearOperator):
    """(G - I) k of k-space (..., C, H, W), centred and periodic: 0 where all coils agree with each other.

    A convolution with `kernel`, done as a C x C matrix at every pixel of the coil images. It holds two of them, and
    2 C^2 H W complex numbers: compress many coils first.

    Args:
        kernel: (C, C, k, k) from `spirit_kernel`. shape: (H, W).
    """

    in_dtype = torch.complex64
    out_dtype = torch.complex64

    def __init__(self, kernel: Tensor, shape: tuple[int, int]) -> None:
        if kernel.ndim != 4 or kernel.shape[0] != kernel.shape[1] or not kernel.is_complex():
            raise ValueError(f"SelfConsistency: expected complex (C, C, k, k), got {kernel.dtype} {[*kernel.shape]}")
        coils, _, *size = kernel.shape
        self.in_shape = self.out_shape = (coils, *shape)
        # k[p + d] is the image times exp(-2 pi i d r / n).
        rows, columns = (_phases(n, k, kernel) for n, k in zip(shape, size, strict=True))
        matrix = torch.einsum("abij,ih,jw->abhw", kernel, rows, columns)
        matrix.diagonal(dim1=0, dim2=1).sub_(1)
        self._matrix = matrix
        self._normal = torch.stack([(matrix[:, a, None].conj() * matrix).sum(0) for a in range(coils)])

    def _apply(self, matrix: Tensor, k: Tensor) -> Tensor:
        matrix, out = matrix.to(k.device, k.dtype), torch.empty_like(k)
        for item, result in zip(k, out, strict=True):
            images = torch.fft.ifft2(torch.fft.ifftshift(item, dim=_AXES))
            total = matrix[:, 0] * images[0]
            for column, image in zip(matrix.unbind(1)[1:], images[1:], strict=True):
                total.addcmul_(column, image)
            result.copy_(torch.fft.fftshift(torch.fft.fft2(total), dim=_AXES))
        return out

    def _forward(self, x: Tensor) -> Tensor:
        return self._apply(self._matrix, x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._apply(self._matrix.transpose(0, 1).conj().resolve_conj(), y)

    def _gram(self, x: Tensor) -> Tensor:
        return self._apply(self._normal, x)

    @classmethod
    def examples(cls) -> Iterator[LinearOperator]:
        g = torch.Generator().manual_seed(0)
        for coils, size, shape in ((2, 3, (6, 5)), (3, 5, (5, 8)), (1, 3, (7, 4))):
            yield cls(0.3 * torch.randn(coils, coils, size, size, dtype=torch.complex64, generator=g), shape)


def _phases(n: int, size: int, like: Tensor) -> Tensor:
    """exp(-2 pi i d r / n), (size, n), r in FFT order: from integers modulo n, exact to rounding."""
    offsets = torch.arange(size) - size // 2
    turns = torch.outer(offsets, torch.arange(n)) % n
    return torch.exp(-2j * torch.pi * turns.double() / n).to(like)


def self_consistency(kspace: Tensor, acquired: Tensor, size: int = 5, tikhonov: float = 1e-3) -> SelfConsistency:
    """Calibrate the operator of one slice, (C, H, W), on the fully sampled centre of `acquired` (H, W).

    Raises:
        ValueError: no ACS, or one smaller than the kernel.
    """
    rows, columns = calibration_region(acquired)
    acs = kspace[:, rows, columns]
    if acs.numel() == 0:
        raise ValueError(
            "SPIRiT: zero frequency was not acquired: there is no ACS to calibrate on; acquire the centre "
            "fully, or use cg-sense"
        )
    return SelfConsistency(spirit_kernel(acs, size, tikhonov), (kspace.shape[-2], kspace.shape[-1]))
