"""What a scanner delivers, format aside: readouts with their counters and places, and what they encode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.corrections.ramp_sampling import Trapezoid

Index = NDArray[np.int64]
Flags = NDArray[np.bool_]
COUNTERS = ("step1", "step2", "slice", "average", "contrast", "phase", "repetition", "set")


@dataclass(frozen=True, eq=False)
class Encoding:
    """What the header says; axes are (readout, encode step 1, encode step 2).

    Attributes:
        matrix, field_mm: samples of full k-space and field of view [mm], oversampling included.
        image_mm: field of view of the image [mm], without oversampling.
        centre: of zero frequency among encode steps 1 and 2.
        kind: "cartesian" (EPI as well) or the name of another trajectory.
        calibration: "embedded" when calibration lines belong to the same k-space; else they are left out.
        mirrored: the vendor's directions are for images by a forward FFT, ours are by the inverse: they turn round.
        noise_bandwidth: of the noise readouts over 1 / dwell time. 1 where unknown.
        ramp: the readout gradient, where it is sampled on its ramps [us].
        facts: for the provenance.
    """

    matrix: tuple[int, int, int]
    field_mm: tuple[float, float, float]
    image_mm: tuple[float, float, float]
    centre: tuple[int, int]
    kind: str = "cartesian"
    calibration: str = "embedded"
    mirrored: bool = False
    noise_bandwidth: float | None = None
    ramp: Trapezoid | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.matrix) < 1 or not all(0 < mm < np.inf for mm in (*self.field_mm, *self.image_mm)):
            raise ValueError(
                f"header: impossible matrix {self.matrix} or fields of view {self.field_mm}, {self.image_mm} mm"
            )

    def kept(self, axis: int) -> int:
        """Pixels of an axis within the image's field of view; the rest is oversampling."""
        return max(1, min(self.matrix[axis], round(self.matrix[axis] * self.image_mm[axis] / self.field_mm[axis])))

    def pitch(self, axis: int) -> float:
        """Pixel size [mm]."""
        return self.field_mm[axis] / self.matrix[axis]

    def flat(self, thickness: float) -> Encoding:
        """Return the encoding of slices, `thickness` [mm] each, where the header speaks of partitions."""
        matrix, fields = (*self.matrix[:2], 1), [(*mm[:2], thickness) for mm in (self.field_mm, self.image_mm)]
        return replace(self, matrix=matrix, field_mm=fields[0], image_mm=fields[1], centre=(self.centre[0], 0))


@dataclass(frozen=True, eq=False)
class Readouts:
    """N readouts in order of time; the samples are loaded when they are needed.

    Attributes:
        counters: COUNTERS, (N,) each.
        noise, navigator, calibration, reverse: (N,). Calibration lines are those that are not for the image as well.
        coils, samples, centre: (N,), receivers, length, and sample of zero frequency.
        discard: (N, 2), samples to leave out at start and end.
        dwell: (N,) [us], of a sample.
        position: (N, 3) [mm, LPS], centre of the slice or slab.
        directions: (N, 3, 3), unit vectors [LPS] of readout, encode step 1 and slice, in rows; 0 where unknown.
        load: line numbers (n,) of equal length and receivers -> (n, C, S) complex64.
        trajectory: line numbers -> (n, S, D), where the file has one.
        offcentre: (N,) [mm], shift of the field of view along the readout by the receiver's frequency.
        free: (N,) each, counters that mean what a sequence wants: what differs in one is not averaged.
    """

    counters: Mapping[str, Index]
    noise: Flags
    navigator: Flags
    calibration: Flags
    reverse: Flags
    coils: Index
    samples: Index
    centre: Index
    discard: Index
    dwell: NDArray[np.float64]
    position: NDArray[np.float64]
    directions: NDArray[np.float64]
    load: Callable[[Index], NDArray[np.complex64]]
    trajectory: Callable[[Index], NDArray[np.float32]] | None = None
    offcentre: NDArray[np.float64] | None = None
    free: Mapping[str, Index] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.noise)

    def read(self, index: Index) -> Tensor:
        """(n, C, S) complex64 samples of lines of equal length, without those to discard.

        Raises:
            ValueError: NaN or infinite samples, and in which line.
        """
        first, last = self.discard[index[0]]
        data = self.load(index)
        data = data[..., first : data.shape[-1] - last]
        finite = (
            np.isfinite(data.view(np.float32)).all((1, 2)) if data.flags.c_contiguous else np.isfinite(data).all((1, 2))
        )
        if not finite.all():
            raise ValueError(f"readout {index[int(np.argmin(finite))]}: NaN or infinite samples; the file is damaged")
        return torch.from_numpy(np.ascontiguousarray(data))

    def of_coils(self, kept: Flags) -> Readouts:
        """Return the same readouts of these receivers (C,) only."""
        count, load = int(kept.sum()), self.load
        return replace(self, coils=np.full_like(self.coils, count), load=lambda index: load(index)[:, kept])

    def check_coils(self, index: Index) -> None:
        """Raises ValueError where one of these lines has another number of receivers than the first."""
        coils = self.coils[index]
        if (odd := coils != coils[0]).any():
            i = int(np.argmax(odd))
            raise ValueError(f"readout {index[i]}: {coils[i]} coils, readout {index[0]} has {coils[0]}")

    def alike(self, index: Index, limit: int = 256) -> list[Index]:
        """Lines in groups of equal length, zero frequency, discarded samples and direction, of at most `limit`."""
        if not len(index):
            return []
        shape = np.stack([self.samples[index], self.centre[index], self.reverse[index], *self.discard[index].T])
        _, group = np.unique(shape, axis=1, return_inverse=True)
        group = group.reshape(-1)
        parts = [index[group == g] for g in range(group.max() + 1)]
        return [part[i : i + limit] for part in parts for i in range(0, len(part), limit)]
