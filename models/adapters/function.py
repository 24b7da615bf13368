"""A denoiser of your own: any function of a noisy image and its noise level, behind the contract of the priors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from medrecon.models.denoiser import Denoiser


@dataclass(frozen=True, eq=False)
class FunctionDenoiser(Denoiser):
    """D(z, sigma) = function(z, sigma), z (B, C, h, w) of any noise level it knows, sigma (B,).

    With an `IdentityAutoencoder` and a value map it makes a `Prior`, which every learned solver takes:
    `Prior(IdentityAutoencoder(), FunctionDenoiser(f), Linear(-1000, 1000), "HU", "CT", error=0.0)`.

    Raises:
        ValueError: the function gave something of another shape.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    sigma_min: float = 1e-3
    sigma_max: float = 100.0

    def __call__(self, z: Tensor, sigma: Tensor) -> Tensor:
        out = self.function(z, torch.as_tensor(sigma, dtype=z.dtype, device=z.device).expand(len(z)))
        if out.shape != z.shape:
            raise ValueError(f"a denoiser of {tuple(z.shape)} gave {tuple(out.shape)}: it must keep the shape")
        return out
