"""What ReSample `fast` makes of a noisy latent: the denoised one, consistent with the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from medrecon.diffusion.anneal import Anneal
from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.latent import LatentSpace
from medrecon.diffusion.trust import PixelError, posterior_variance
from medrecon.numerics.linalg import expand


@dataclass(frozen=True, eq=False)
class ReSampleGuide(Guide):
    """The denoised latent made consistent with the data in pixels, and carried back by the encoder's residual."""

    space: LatentSpace
    data: DataConsistency
    error: PixelError
    rounds: int
    antithetic: bool
    """the second half of the trajectories has the opposite noise of the first"""
    end: float
    """noise level of the last step, whose image is that of its latent"""
    anneal: Anneal = Anneal()

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        clean = self.space.denoise(z, sigma)
        variance = posterior_variance(self.space, z, clean) if self.antithetic else None
        return self._consistent(clean, sigma, lambda v: self.error(v, sigma, variance))

    def _consistent(self, clean: Tensor, sigma: float, expected: Callable[[Tensor], Tensor]) -> Estimate:
        """z0 <- z0 + E(prox(D z0)) - E(D z0), no autograd, for items further from the data than noise.

        The residual form leaves what the autoencoder cannot represent out of the update. It semi-converges, so after
        several rounds, and at the last step, an item has the z0 and D(z0) of least chi^2. Before, one round is taken
        as it is, and shown as prox(D z0): D of the new z0 would be used for nothing else.
        """
        data, z0, x = self.data, clean, self.space.decode(clean)
        projection = data.A(x)
        misfit = data.chi2(projection)
        active = misfit > 1
        for _ in range(self.rounds):
            if not bool(active.any()):
                break
            target = data.prox(x, data.deviation(projection, expected(x), self.anneal(sigma)), projection)
            trial = self.space.carried(z0, x, target)
            if self.rounds == 1 and sigma > self.end:
                return Estimate(clean, _chosen(active, trial, z0), _chosen(active, target, x), sigma)
            decoded = self.space.decode(trial)
            ahead = data.A(decoded)
            better = active & (data.chi2(ahead) < misfit)
            z0, x, projection = (
                _chosen(better, new, old) for new, old in ((trial, z0), (decoded, x), (ahead, projection))
            )
            misfit = data.chi2(projection)
            active = better & (misfit > 1)
        return Estimate(clean, z0, x, sigma)


def _chosen(which: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """The new of some items, (N,) bool, and the old of the others."""
    return torch.where(expand(which, new.ndim - 1), new, old)
