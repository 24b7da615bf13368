"""Readouts along a trajectory: radial, spiral, and stacks of them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.acquisition.kspace.dimensions import check_image
from medrecon.acquisition.kspace.readouts import Index, Readouts
from medrecon.acquisition.kspace.repeats import check_repeats
from medrecon.acquisition.kspace.selection import Selection
from medrecon.acquisition.kspace.slice_stack import affine, slice_step
from medrecon.core.scan import Scan
from medrecon.geometry import Trajectory
from medrecon.numerics.fourier import centred_ifft

SQUARE = 0.02
"""Difference of a pixel's sides, relative, that counts as none."""
SLACK = 1e-3
"""By how much a trajectory may reach beyond the edge of k-space, relative: it is float32, and rounded before."""


def samples_along(chosen: Selection) -> Scan:
    """A scan of data (Z, C, S), all readouts of a slice one after the other.

    Trajectories within +-0.5 count as cycles per pixel, the usual ones, larger ones as cycles per field of view of the
    image. A third column of a 2D measurement is taken as density compensation weights. A stack (encode step 2) becomes
    slices by an inverse transform along its partitions, where these are all measured along one trajectory.

    Raises:
        ValueError: no trajectory, a 3D one, one that changes from slice to slice, or in impossible units.
    """
    lines, image, encoding, slices = chosen.lines, chosen.image, chosen.encoding, chosen.slices
    if lines.trajectory is None:
        raise ValueError(f"a {encoding.kind} measurement without trajectory in its readouts: add it to the file")
    shape, first = (encoding.kept(0), encoding.kept(1)), slices[0]
    check_image(lines, image, shape)
    if chosen.slab:
        count, kept = encoding.matrix[2], encoding.kept(2)
        samples, found, averages = _stacked(
            lines, image, "step2", [encoding.centre[1] - count // 2 + p for p in range(count)]
        )
        samples = centred_ifft(samples, 0)
        start, stop = chosen.part(kept)
        data, number = samples[count // 2 - kept // 2 :][start:stop], kept // 2 - start
        across = first.axes[2] * encoding.pitch(2) * (-1 if encoding.mirrored else 1)
    else:
        (start, stop), number = chosen.span or (0, len(slices)), 0
        across = slice_step(slices, encoding.image_mm[2])
        data, found, averages = _stacked(lines, image, "slice", [s.counter for s in slices])
    trajectory, density, units = _in_cycles(found, shape, chosen.slab, (encoding.pitch(0), encoding.pitch(1)))
    steps = first.axes[1] * encoding.pitch(1), first.axes[0] * encoding.pitch(0), across
    placed = affine(first.centre, steps, (shape[1] // 2, shape[0] // 2, number))
    facts = {**chosen.facts, "trajectory_units": units, "slices": [start, stop]}
    noise = chosen.noise
    if averages > 1:
        facts["averages"] = averages
        noise = None if noise is None else noise.scaled(1 / averages)
    return Scan(
        "mri",
        data.contiguous(),
        shape,
        placed,
        "a.u.",
        geometry=Trajectory(trajectory, density),
        noise=noise,
        provenance=facts,
    )


def _stacked(lines: Readouts, image: Index, counter: str, wanted: list[int]) -> tuple[Tensor, NDArray[np.float32], int]:
    """(Z, C, S) samples of slices or partitions, the one trajectory (S, D) they were measured along, and the averages
    of every readout."""
    parts, trajectories, averages = [], [], []
    for value in wanted:
        own = image[lines.counters[counter][image] == value]
        if not len(own):
            raise ValueError(f"{counter} {value} was not measured: a stack needs all of {wanted[0]} to {wanted[-1]}")
        samples, trajectory, count = _averaged(lines, own[np.argsort(lines.counters["step1"][own], kind="stable")])
        parts.append(samples)
        trajectories.append(trajectory)
        averages.append(count)
        if trajectory.shape != trajectories[0].shape or np.abs(trajectory - trajectories[0]).max() > 1e-4:
            raise ValueError(
                f"{counter} {wanted[0]} and {value} have different trajectories; read one slice at a "
                "time, such as slices 0:1"
            )
    if len(set(averages)) > 1:
        raise ValueError(f"{counter}: averages of {averages} readouts; read one slice at a time, such as slices 0:1")
    return torch.stack(parts), trajectories[0], averages[0]


def _averaged(lines: Readouts, own: Index) -> tuple[Tensor, NDArray[np.float32], int]:
    """(C, S) samples of readouts in the order given, (S, D) their trajectory, and how many of one were averaged.

    Raises:
        ValueError: readouts along one trajectory that are no averages, or not all of them as often.
    """
    assert lines.trajectory is not None
    along = [lines.trajectory(i[None])[0] for i in own]
    known: dict[bytes, int] = {}
    number = np.array([known.setdefault(k.tobytes(), len(known)) for k in along])
    check_repeats(lines, own, number)
    count = np.bincount(number)
    if count.min() != count.max():
        raise ValueError(
            f"some trajectories were measured {count.min()} times and others {count.max()} times: uneven averages"
        )
    first = np.unique(number, return_index=True)[1]
    if count[0] == 1:
        return _joined(lines, own), np.concatenate(along), 1
    rounds = own[np.argsort(number, kind="stable")].reshape(len(known), -1).T
    samples = torch.stack([_joined(lines, part) for part in rounds]).mean(0)
    return samples, np.concatenate([along[i] for i in first]), int(count[0])


def _joined(lines: Readouts, own: Index) -> Tensor:
    """(C, S) samples of readouts in the order given."""
    parts: dict[int, Tensor] = {}
    for group in lines.alike(own):
        parts |= zip(group.tolist(), lines.read(group))
    return torch.cat([parts[i] for i in own.tolist()], dim=1)


def _in_cycles(
    found: NDArray[np.float32], shape: tuple[int, int], stacked: bool, pixel: tuple[float, float]
) -> tuple[Tensor, Tensor | None, str]:
    """(S, 2) float64 trajectory [cycles per field of view], density, and how the units were told.

    In cycles per pixel it means nothing else than the header's `pixel` [mm] says: of two sizes it is refused.
    """
    if found.shape[1] not in (2, 3) or not np.isfinite(found).all():
        raise ValueError(f"trajectory: expected 2 or 3 finite values a sample, got shape {found.shape}")
    k, edge = found[:, :2].astype(np.float64), np.array(shape) / 2
    weights = found[:, 2] if found.shape[1] == 3 and found[:, 2].any() else None
    if weights is not None and (stacked or (weights < 0).any()):
        raise ValueError("trajectory: three-dimensional trajectories are not read; two-dimensional ones and stacks are")
    reach = np.abs(k).max(0)
    if reach.max() <= 0.5 * (1 + SLACK):
        if abs(pixel[0] / pixel[1] - 1) > SQUARE:
            raise ValueError(
                f"trajectory: in cycles per pixel, and the header's encoded matrix gives pixels of {pixel[0]:.4g} x "
                f"{pixel[1]:.4g} mm: is it the number of readouts along one axis? Correct the header, or scale the "
                "trajectory to cycles per field of view"
            )
        k, units = k * np.array(shape), "cycles per pixel in the file"
    elif (reach <= edge * (1 + SLACK)).all():
        units = "cycles per field of view in the file"
    else:
        raise ValueError(
            f"trajectory: reaches {reach.round(3).tolist()}, neither within 0.5 cycles per pixel nor "
            f"within {edge.tolist()} cycles per field of view; scale it"
        )
    k = np.clip(k, -edge, edge)
    density = None if weights is None else torch.from_numpy(weights.astype(np.float64))
    return torch.from_numpy(k), density, units
