"""Makes a simulated multi-coil measurement of a phantom, for solver tests."""

import torch

from medrecon.coils.combine import birdcage_maps
from medrecon.core.measurement import Measurement
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.sampling.lines import random_mask


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


def scan(image: torch.Tensor, accel: float, sigma: float, coils: int = 6) -> tuple[CartesianMRI, Measurement]:
    """One slice with complex noise of E|n|^2 = sigma^2 in every acquired sample."""
    g = torch.Generator().manual_seed(4)
    shape = (image.shape[0], image.shape[1])
    mask = random_mask(shape, accel, 12 if accel > 1 else 0, g)
    A = CartesianMRI(birdcage_maps(coils, shape, g), mask)
    clean = A(image[None])
    noise = torch.randn(clean.shape, dtype=torch.complex64, generator=g)
    return A, Measurement((clean + sigma * noise) * mask, (mask / sigma**2).expand(1, *A.out_shape))


def phantom(size: int = 64) -> torch.Tensor:
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="ij")
    disc = (x**2 + y**2 < 0.7) + 0.5 * ((x - 0.3) ** 2 + y**2 < 0.05) - 0.4 * (x**2 + (y + 0.4) ** 2 < 0.04)
    return torch.polar(disc, 0.8 * x + 0.5 * y)
