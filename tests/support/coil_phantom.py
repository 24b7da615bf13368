"""A head-like phantom seen by an array of coils: noisy k-space whose coils vary within the pixel."""

import torch
from torch import Tensor

from medrecon.simulate.mri import Scanner


def phantom(shape: tuple[int, int]) -> Tensor:
    """(H, W), complex64: a disc with two inserts and a smooth phase."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij")
    disc = (x**2 + y**2 < 0.7) + 0.5 * ((x - 0.3) ** 2 + y**2 < 0.05) - 0.4 * (x**2 + (y + 0.4) ** 2 < 0.04)
    return torch.polar(disc, 0.8 * x + 0.5 * y)


def scan(coils: int, shape: tuple[int, int], sigma: float = 0.02, seed: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """k-space (C, H, W) with noise of standard deviation sigma (image 1), true maps on the grid, support."""
    g = torch.Generator().manual_seed(seed)
    image = phantom(shape)
    scanner = Scanner.build(shape, coils, 2, g)
    kspace = scanner.kspace(image)
    noise = sigma * torch.randn(kspace.shape, dtype=kspace.dtype, generator=g)
    return kspace + noise, scanner.maps[:, ::2, ::2], image.abs() > 0.1


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """|<a, b>| / (|a| |b|) of two sets of maps at every pixel (H, W); 0 where one is 0."""
    norms = torch.linalg.vector_norm(a, dim=0) * torch.linalg.vector_norm(b, dim=0)
    return torch.where(norms > 0, (a.conj() * b).sum(0).abs() / norms.clamp_min(1e-30), 0)
