"""The reverse process: the only loop there is, with an explicit state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from medrecon.diffusion.derivatives import check_finite, denoise
from medrecon.diffusion.draw import Draw, Independent
from medrecon.diffusion.guide import Estimate, Guide, Unconditional
from medrecon.diffusion.samplers.base import Sampler
from medrecon.models.denoiser import Denoiser

Watch = Callable[[Estimate], bool]
"""Called after every step; True stops the run."""


class State(NamedTuple):
    """Where a run is after `step` steps: all that it takes to go on, to the same bits."""

    z: Tensor
    """(N, C, h, w) at noise level sigmas[step]"""
    step: int
    before: Estimate | None
    """the estimate of the last step"""
    noise: tuple[Tensor, ...]
    """states of the generators"""

    @classmethod
    def start(cls, z: Tensor, draw: Draw) -> State:
        """Return the state before the first step, z at sigmas[0]."""
        return cls(z, 0, None, draw.state())


def reverse(
    guide: Guide, sampler: Sampler, sigmas: Sequence[float], draw: Draw, state: State, watch: Watch | None = None
) -> State:
    """Run from a state along the falling levels `sigmas`, to their end or until `watch` says stop.

    The run is complete if the state returned has `step` = len(sigmas) - 1; otherwise pass it in again to go on.

    Raises:
        ValueError: the steps diverged to NaN or infinite values; names the noise level.
    """
    draw.restore(state.noise)
    while state.step < len(sigmas) - 1:
        sigma, following = sigmas[state.step], sigmas[state.step + 1]
        z, estimate = sampler.step(guide.after(state.before), state.z, sigma, following, state.before, draw)
        check_finite(z, f"noise level {sigma:.3g}, step {state.step + 1}: the latent, whose steps diverge,")
        state = State(z, state.step + 1, estimate, draw.state())
        if watch is not None and watch(estimate):
            break
    return state


def sample(denoiser: Denoiser, sampler: Sampler, z: Tensor, sigmas: Tensor, generator: torch.Generator) -> Tensor:
    """Return samples of a prior, one an item of z (N, C, h, w) at sigmas[0], each with noise of its own."""
    draw = Independent(generator, each=len(z))
    return reverse(Unconditional(partial(denoise, denoiser)), sampler, sigmas.tolist(), draw, State.start(z, draw)).z
