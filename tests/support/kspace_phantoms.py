"""Multi-coil k-space whose coils obey exact interpolation kernels, and scans of phantoms made on a finer grid."""

from __future__ import annotations

import torch
from torch import Tensor

from medrecon.coils.maps.espirit import espirit
from medrecon.core.measurement import Measurement
from medrecon.numerics.fourier import centred_fft, centred_ifft, crop_or_pad
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.simulate.mri import Scanner


def relative(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


def exact_kspace(coils: int = 8, shape: tuple[int, int] = (48, 49), seed: int = 0) -> Tensor:
    """(C, H, W) complex128: white k-space convolved with random 3 x 3 kernels, so each map has 9 Fourier modes."""
    g = torch.Generator().manual_seed(seed)
    wide = torch.randn(shape[0] + 2, shape[1] + 2, dtype=torch.complex128, generator=g)
    kernels = torch.randn(coils, 9, dtype=torch.complex128, generator=g)
    patches = wide.unfold(0, 3, 1).unfold(1, 3, 1).reshape(*shape, 9)
    return torch.einsum("cn,hwn->chw", kernels, patches)


def phantom(size: int) -> Tensor:
    """A disc with two inserts (H, W), not symmetric."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="ij")
    disc = (x**2 + y**2 < 0.7) + 0.5 * ((x - 0.3) ** 2 + y**2 < 0.05) - 0.4 * (x**2 + (y + 0.4) ** 2 < 0.04)
    return disc.float()


def scan(mask: Tensor, sigma: float = 0.002, coils: int = 8) -> tuple[CartesianMRI, Measurement, Tensor]:
    """Maps by ESPIRiT, data made on a grid twice as fine, and the image of full noiseless sampling."""
    g = torch.Generator().manual_seed(3)
    size = mask.shape[0]
    scanner = Scanner.build((size, size), coils, 2, g)
    # From 8 x as fine: edges cross pixels.
    image = centred_ifft(crop_or_pad(centred_fft(phantom(8 * size)), (size, size)) / 8).real
    clean = scanner.kspace(image)
    maps = espirit(clean, acs=20)
    A, full = CartesianMRI(maps, mask), CartesianMRI(maps, torch.ones_like(mask))
    noise = sigma * torch.randn(clean.shape, dtype=torch.complex64, generator=g)
    y = Measurement(((clean + noise) * mask)[None], (mask / sigma**2).expand(1, *A.out_shape))
    return A, y, full.adjoint(clean)
