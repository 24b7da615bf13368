"""What a diagnostic is given and what it finds.

A diagnostic is a module with `SUMMARY`, one line, and `run(case, generator, on_progress) -> Finding`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from medrecon.diffusion.reverse import sample
from medrecon.diffusion.samplers.heun import Heun
from medrecon.diffusion.schedules import karras
from medrecon.models.prior import Prior
from medrecon.training.images.slices import Slices

OnShare = Callable[[float], None]
"""The share done, 0..1."""
BATCH = 8


@dataclass(frozen=True)
class Finding:
    """values: for JSON; table: (quantity, figures in words) for people; pictures: grey images (H, W) uint8; details:
    longer tables by title, the first row their head."""

    values: dict[str, Any]
    table: list[tuple[str, str]]
    pictures: dict[str, Tensor] = field(default_factory=dict)
    details: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """How much is spent.

    Attributes:
        slices: held-out slices a subject, evenly spread.
        few: slices for the diagnostics that differentiate the network.
        samples: unconditional samples.
        steps: noise levels of the samples and of the likelihood.
        churn: noise added before every step of the samples; 0 follows the probability-flow ODE.
        guidance: of the samples away from the Wiener filter; 1 is the prior as it is, more is clearer and less varied.
        seed: of every diagnostic, so that each gives the same alone or among others.
    """

    slices: int = 16
    few: int = 6
    samples: int = 16
    steps: int = 40
    churn: float = 0.4
    guidance: float = 1.0
    seed: int = 0

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True, eq=False)
class Case:
    """A prior, the held-out slices it is judged on, and, where known, those it was trained on.

    Attributes:
        held_out: square slices of subjects never trained on, in the units of the prior.
        training: the same of the training subjects, or None.
    """

    prior: Prior
    held_out: Slices
    training: Slices | None
    settings: Settings = Settings()
    device: str = "cpu"

    @cached_property
    def index(self) -> list[int]:
        """The slices looked at: `settings.slices` of each subject, evenly spread."""
        found = []
        for subject in dict.fromkeys(self.held_out.subjects):
            own = [i for i, s in enumerate(self.held_out.subjects) if s == subject]
            found += spread(own, self.settings.slices)
        return found

    @cached_property
    def images(self) -> Tensor:
        """(N, H, W), physical values, clipped to the range the prior knows if it has one."""
        return self.clip(self.held_out.values(torch.tensor(self.index)))

    @cached_property
    def subjects(self) -> list[str]:
        """Subject of every one of `images`."""
        return [self.held_out.subjects[i] for i in self.index]

    def place(self, i: int) -> int:
        """Which slice of its subject the i-th of `images` is, from 0."""
        return self.held_out.subjects[: self.index[i]].count(self.subjects[i])

    @cached_property
    def latents(self) -> Tensor:
        """Latents (N, C, h, w) of `images`."""
        return self.encode(self.images)

    @cached_property
    def samples(self) -> Tensor:
        """Unconditional samples (n, C, h, w): churned Heun steps, levels of Karras et al. (arXiv 2206.00364)."""
        denoiser = self.prior.guided(self.settings.guidance).denoiser
        generator, drawn = self.settings.generator(), []
        sampler = Heun(self.settings.churn)
        sigmas = karras(self.settings.steps, denoiser.sigma_min, denoiser.sigma_max)
        for part in range(0, self.settings.samples, BATCH):
            count = min(BATCH, self.settings.samples - part)
            noise = torch.randn(count, *self.latents.shape[1:], generator=generator).to(self.device)
            with torch.no_grad():
                drawn.append(sample(denoiser, sampler, denoiser.sigma_max * noise, sigmas, generator))
        return torch.cat(drawn)

    @property
    def few(self) -> Tensor:
        """Latents of few slices, spread over the subjects."""
        return self.latents[spread(list(range(len(self.latents))), self.settings.few)]

    def levels(self, wanted: tuple[float, ...]) -> list[float]:
        """Those of the noise levels that the denoiser knows."""
        return [s for s in wanted if self.prior.denoiser.sigma_min <= s <= self.prior.denoiser.sigma_max]

    def clip(self, x: Tensor) -> Tensor:
        """Values a CT prior cannot see (beyond its range) do not count as errors; MR magnitudes are not clipped."""
        return x.clamp(self.prior.values.low, self.prior.values.high) if self.prior.units == "HU" else x

    def training_images(self, most: int) -> Tensor:
        """Up to `most` training slices (M, H, W), evenly spread.

        Raises:
            ValueError: no training slices are known.
        """
        if self.training is None:
            raise ValueError("no training slices: give --data a manifest with train and val")
        return self.clip(self.training.values(torch.tensor(spread(list(range(len(self.training.subjects))), most))))

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        return torch.cat([self.prior.encode(part.to(self.device)) for part in x.split(BATCH)])

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Images (N, H, W) on the CPU, of the size of the held-out ones."""
        size = tuple(self.held_out.data.shape[-2:])
        return torch.cat([self.prior.decode(part, size).cpu() for part in z.split(BATCH)])


def spread(items: list[int], most: int) -> list[int]:
    """At most `most` of the items, evenly spread, the middle one first to stay."""
    if len(items) <= most:
        return items
    return [items[int((i + 0.5) * len(items) / most)] for i in range(most)]


def batches(z: Tensor, on_progress: OnShare, done: float, share: float) -> Iterator[Tensor]:
    """Parts of z; reports from `done` to `done + share`."""
    parts = z.split(BATCH)
    for i, part in enumerate(parts):
        yield part
        on_progress(done + share * (i + 1) / len(parts))


def noisy(z0: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    return z0 + sigma * torch.randn(z0.shape, generator=generator, dtype=z0.dtype).to(z0.device)


def sheet(images: Tensor, low: float, high: float, columns: int) -> Tensor:
    """Images (N, H, W) in rows of `columns`, grey from low to high; uint8."""
    grey = ((images.float() - low) / (high - low) * 255).round().clamp(0, 255).to(torch.uint8)
    missing = -len(grey) % columns
    grey = torch.cat([grey, grey.new_zeros(missing, *grey.shape[1:])])
    rows = grey.unflatten(0, (-1, columns))  # (R, columns, H, W)
    return rows.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
