"""Solvers that sample a posterior: several samples are one batch, their mean the image and their spread its error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medrecon.diffusion.reverse import State
from medrecon.diffusion.trust import PixelError
from medrecon.numerics.linalg import averaged
from medrecon.solvers.diffusion.base import GuidedSolver, LevelSolver, Run, Task


@dataclass(frozen=True, eq=False)
class SampledSolver(LevelSolver):
    """A diffusion solver whose trajectories are samples, each with noise of its own.

    Raises:
        ValueError: samples not positive; or what `LevelSolver` refuses.
    """

    steps: int = 25
    """noise levels"""
    start: float | None = 0.5
    """noise level at which the reverse process starts, from the TV reconstruction; None: from pure noise"""
    samples: int = 1
    """how many are drawn side by side and averaged; more than one also give the deviation of each pixel"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1:
            raise ValueError(f"{type(self).__name__}: expected samples >= 1, got {self.samples}")

    def copies(self) -> int:
        return self.samples

    def error(self, task: Task) -> PixelError:
        """Return the error to expect of a denoised image, for all samples, as of a complex number where it is one."""
        return PixelError.around(task.views, task.start, warm=task.warm).repeated(self.samples).isotropic

    def deviation(self, task: Task) -> Tensor:
        """Return the deviation of an image whose latent has one of 1, a number for each sample (N,)."""
        return averaged(self.error(task).size.square(), 2).sqrt()

    def image(self, run: Run, state: State) -> tuple[Tensor, dict[str, Any]]:
        """Return the mean of the samples (B, *in_shape), and the deviation of each pixel where there are several."""
        image, facts = super().image(run, state)
        if self.samples > 1:
            assert state.before is not None and state.before.image is not None
            each = state.before.image.unflatten(0, (self.samples, -1))
            spread = (each - image).abs().square().sum(0) / (self.samples - 1)
            facts = {**facts, "deviation": torch.sqrt(spread)}
        return image, facts


@dataclass(frozen=True, eq=False)
class PosteriorSolver(SampledSolver, GuidedSolver):
    """The same with a guide alone: any sampler."""
