"""The end of the prior's own flow: the clean latent that a noisy one leads to."""

from __future__ import annotations

from torch import Tensor

from medrecon.diffusion.draw import Draw
from medrecon.diffusion.guide import Unconditional
from medrecon.diffusion.latent import LatentSpace
from medrecon.diffusion.reverse import State, reverse
from medrecon.diffusion.samplers.multistep import Multistep
from medrecon.diffusion.schedules import log_uniform


def flow_end(space: LatentSpace, z: Tensor, sigma: float, steps: int, draw: Draw) -> Tensor:
    """Return the end of the probability-flow ODE from z, by a few steps; one step is D(z). It draws nothing.

    A consistency model (arXiv 2303.01469) is a network for the same.
    """
    low = min(sigma, max(space.prior.denoiser.sigma_min, 0.05 * sigma))
    levels = log_uniform(steps, low, sigma).tolist()
    return reverse(Unconditional(space.denoise), Multistep(), levels, draw, State.start(z, draw)).z
