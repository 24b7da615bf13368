"""The column masks of the fastMRI data set (Zbontar et al., arXiv:1811.08839; facebookresearch/fastMRI 0.3.0), the
same columns for the same seed: NumPy's RandomState, the order of its draws and every rounding are part of the protocol.

    RandomMaskFunc([0.08], [4])((640, 368), seed=tuple(map(ord, "file1000001.h5"))).padded(left, right)

fastMRI seeds with the characters of the file's name, and zeroes the mask in the padding columns of a file. Its centre
lies one column further right than `masks.centre` where an even number of columns is kept of an odd one.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from medrecon.sampling.lines import Shape
from medrecon.sampling.pattern import Sampling, Seed


@dataclass(frozen=True)
class MaskFunc(abc.ABC):
    """Columns chosen by a rule of its own around a fully sampled centre; call it with a shape and a seed.

    Args:
        center_fractions: share of the columns that is the centre.
        accelerations: R; one of the pairs (or any combination of the two) is drawn at each call.
        allow_any_combination: draw the two apart.

    Raises:
        ValueError: lists that are empty or do not pair up, or values out of their range.
    """

    center_fractions: tuple[float, ...] | list[float]
    accelerations: tuple[float, ...] | list[float]
    allow_any_combination: bool = False

    name: ClassVar[str]

    def __post_init__(self) -> None:
        fractions, accelerations = self.center_fractions, self.accelerations
        if not fractions or not accelerations:
            raise ValueError(f"{type(self).__name__}: give at least one centre fraction and one acceleration")
        if len(fractions) != len(accelerations) and not self.allow_any_combination:
            raise ValueError(
                f"{type(self).__name__}: {len(fractions)} centre fractions for {len(accelerations)} accelerations; "
                "give pairs, or allow_any_combination"
            )
        if not all(0 <= f <= 1 for f in fractions) or not all(r >= 1 for r in accelerations):
            raise ValueError(f"{type(self).__name__}: needs fractions in [0, 1] and accelerations >= 1, got {self}")

    def __call__(self, shape: Shape, *, seed: Seed, offset: int | None = None) -> Sampling:
        """Draw the mask for k-space (H, W), the columns W being the phase-encoding lines.

        Args:
            seed: a whole number, or a tuple of them. offset: of the lattice, drawn by default; random masks have none.

        Raises:
            ValueError: the centre and the acceleration leave nothing to choose, or an offset that does not fit.
        """
        rng = np.random.RandomState(seed)
        fraction, accel = self._choose(rng)
        low, step = self._plan(shape[1], fraction, accel)
        line, offset = self._lines(shape[1], low, step, offset, rng)
        start = (shape[1] - low + 1) // 2
        line[start : start + low] = True
        mask = torch.from_numpy(line).expand(shape).clone()
        return Sampling(mask, self.name, float(accel), low, offset, seed)

    def _choose(self, rng: np.random.RandomState) -> tuple[float, float]:
        if self.allow_any_combination:
            return float(rng.choice(self.center_fractions)), float(rng.choice(self.accelerations))
        pair = rng.randint(len(self.center_fractions))
        return self.center_fractions[pair], self.accelerations[pair]

    def _plan(self, width: int, fraction: float, accel: float) -> tuple[int, float]:
        """Columns of the centre, and the acceleration of the rest."""
        return round(width * fraction), accel

    @abc.abstractmethod
    def _lines(
        self, width: int, low: int, accel: float, offset: int | None, rng: np.random.RandomState
    ) -> tuple[np.ndarray, int | None]:
        """The chosen columns (W,) bool, and the offset where there is one."""

    def _step(self, accel: float) -> int:
        if accel != int(accel):
            raise ValueError(f"{type(self).__name__}: acceleration must be a whole number, got {accel}")
        return int(accel)

    def _offset(self, distance: float, offset: int | None, rng: np.random.RandomState) -> int:
        if offset is None:
            return int(rng.randint(0, high=round(distance)))
        if offset < 0:
            raise ValueError(f"{type(self).__name__}: offset must be >= 0, got {offset}")
        return offset


class RandomMaskFunc(MaskFunc):
    """Every column outside the centre alike, so that W / R are expected in all: the true R varies from seed to seed."""

    name = "fastmri-random"

    def _lines(
        self, width: int, low: int, accel: float, offset: int | None, rng: np.random.RandomState
    ) -> tuple[np.ndarray, int | None]:
        if offset is not None:
            raise ValueError("RandomMaskFunc: a random mask has no offset")
        odds = (width / accel - low) / (width - low) if low < width else 1.0
        return rng.uniform(size=width) < odds, None


class EquiSpacedMaskFunc(MaskFunc):
    """Every R-th column, the centre on top: the true R is lower."""

    name = "fastmri-equispaced"

    def _lines(
        self, width: int, low: int, accel: float, offset: int | None, rng: np.random.RandomState
    ) -> tuple[np.ndarray, int | None]:
        step = self._step(accel)
        start = self._offset(step, offset, rng)
        line = np.zeros(width, bool)
        line[start::step] = True
        return line, start


class EquispacedMaskFractionFunc(MaskFunc):
    """Columns at a distance, not a whole number and rounded, that makes R include the centre: that of the challenge."""

    name = "fastmri-equispaced-fraction"

    def _lines(
        self, width: int, low: int, accel: float, offset: int | None, rng: np.random.RandomState
    ) -> tuple[np.ndarray, int | None]:
        if low * accel >= width:
            raise ValueError(
                f"EquispacedMaskFractionFunc: the {low} columns of the centre use up W / R = {width / accel:g}; "
                "lower the centre fraction or R"
            )
        distance = accel * (low - width) / (low * accel - width)
        start = self._offset(distance, offset, rng)
        line = np.zeros(width, bool)
        line[np.around(np.arange(start, width - 1, distance)).astype(int)] = True
        return line, start


class MagicMaskFunc(MaskFunc):
    """Lattices on the two halves of k-space shifted against each other, so that conjugate columns of acquired ones are
    not acquired too (Defazio, arXiv:1912.01101); the centre comes on top."""

    name = "fastmri-magic"

    def _lines(
        self, width: int, low: int, accel: float, offset: int | None, rng: np.random.RandomState
    ) -> tuple[np.ndarray, int | None]:
        step = self._step(accel)
        start = self._offset(step, offset, rng)
        # Offsets of the columns of positive and of negative frequency, both counted outwards.
        ahead, back = (start + 1, start + 2) if start % 2 == 0 else (start + 2, start - 1)
        line = np.zeros(width, bool)  # in FFT order
        half = (width + 1) // 2
        line[:half][ahead::step] = True
        line[half:][::-1][back::step] = True
        return np.fft.fftshift(line), start


class MagicMaskFractionFunc(MagicMaskFunc):
    """As MagicMaskFunc, the distance widened (to a whole number) so that R includes the centre; lattice columns inside
    the centre count twice in this, so that the true R comes out higher (4.3 for 4 of 368 columns and 8 % centre)."""

    name = "fastmri-magic-fraction"

    def _plan(self, width: int, fraction: float, accel: float) -> tuple[int, float]:
        target = round(width / accel)
        low = max(min(round(width * fraction), target), 1)
        if target <= low:
            raise ValueError(
                f"MagicMaskFractionFunc: the {low} columns of the centre use up the {target} of R = {accel:g}; "
                "lower the centre fraction or R"
            )
        return low, round(width / (target - low))
