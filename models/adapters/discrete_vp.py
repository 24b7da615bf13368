"""Foreign denoising networks behind the Denoiser contract D(z, sigma) = E[z0 | z0 + sigma n]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from medrecon.models.denoiser import Denoiser

Parametrisation = Literal["epsilon", "v", "x0"]


def to_x0(output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor, kind: Parametrisation) -> Tensor:
    """Return x0 from a network's output for x = alpha x0 + sigma eps, alpha^2 + sigma^2 = 1.

    epsilon: (x - sigma eps) / alpha. v = alpha eps - sigma x0 (arXiv 2202.00512, app. D): alpha x - sigma v.
    """
    if kind == "epsilon":
        return (x - sigma * output) / alpha
    if kind == "v":
        return alpha * x - sigma * output
    return output


@dataclass(frozen=True, eq=False)
class DiscreteVP(Denoiser):
    """A network trained on T discrete variance-preserving steps, as a Denoiser in variance-exploding units.

    x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps, so sigma_t = sqrt((1 - abar_t) / abar_t) and
    z = x_t / sqrt(abar_t). Between two steps the timestep is interpolated in log sigma, as the network's
    embedding is continuous; `abar` must be float64 and falling.

    Attributes:
        network: (x (B, C, h, w), t (B,)) -> output.
        abar: (T,) cumulative products of 1 - beta.
    """

    network: Callable[[Tensor, Tensor], Tensor]
    abar: Tensor
    kind: Parametrisation = "epsilon"
    sigma_min: float = field(init=False)
    sigma_max: float = field(init=False)

    def __post_init__(self) -> None:
        if self.abar.dtype != torch.float64 or bool((self.abar.diff() >= 0).any()):
            raise ValueError("DiscreteVP: abar must be float64 and strictly falling")
        sigmas = ((1 - self.abar) / self.abar).sqrt()
        object.__setattr__(self, "sigma_min", float(sigmas[0]))
        object.__setattr__(self, "sigma_max", float(sigmas[-1]))

    def timestep(self, sigma: Tensor) -> Tensor:
        """Return the fractional step index of sigma (B,)."""
        logs = (((1 - self.abar) / self.abar).sqrt()).log()
        s = sigma.double().log().clamp(logs[0], logs[-1])
        right = torch.searchsorted(logs, s).clamp(1, len(logs) - 1)
        left = right - 1
        return left + (s - logs[left]) / (logs[right] - logs[left])

    def __call__(self, z: Tensor, sigma: Tensor) -> Tensor:
        s = torch.as_tensor(sigma, dtype=torch.float64).expand(len(z))
        alpha = (1 + s.square()).rsqrt().view(-1, 1, 1, 1).to(z)
        noise = alpha * s.view(-1, 1, 1, 1).to(z)
        x = alpha * z
        return to_x0(self.network(x, self.timestep(s).to(z)), x, alpha, noise, self.kind)


def linear_beta_abar(steps: int = 1000, start: float = 0.0015, end: float = 0.0195) -> Tensor:
    """Return abar of the latent-diffusion schedule, beta linear in its square root (arXiv 2112.10752); (T,) float64."""
    beta = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64).square()
    return (1 - beta).cumprod(0)
