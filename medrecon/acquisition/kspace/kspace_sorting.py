"""From readouts to a scan: noise covariance, choice of contrast, lines into k-space, averages, slices, geometry."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from medrecon.acquisition.kspace.along_trajectory import samples_along
from medrecon.acquisition.kspace.choice import CHOICES
from medrecon.acquisition.kspace.dead_coils import without_silent_coils
from medrecon.acquisition.kspace.dimensions import check_room
from medrecon.acquisition.kspace.readout_lines import Preparation
from medrecon.acquisition.kspace.readouts import Encoding, Index, Readouts
from medrecon.acquisition.kspace.receiver_noise import receiver_covariance
from medrecon.acquisition.kspace.selection import Selection, of_coils, select
from medrecon.acquisition.kspace.slice_stack import affine, slice_step
from medrecon.acquisition.kspace.virtual_coils import virtual_coils
from medrecon.acquisition.options import RawOptions
from medrecon.core.noise import MRINoise
from medrecon.core.scan import Scan
from medrecon.geometry import Cartesian
from medrecon.numerics.fourier import centred_ifft

log = logging.getLogger(__name__)

USES = ("slices", *CHOICES, "where", "coils")
"""Options that all formats of readouts have a use for."""


def scan_of(lines: Readouts, encoding: Encoding, options: RawOptions, provenance: Mapping[str, Any]) -> Scan:
    """Sort the readouts of a measurement into a scan.

    Averages are averaged, and the covariance is that of the mean. The phase oversampling becomes the geometry's crop,
    that of the readout is removed. Coils without noise or without signal are left out. A 3D measurement becomes slices
    by an inverse transform along its partitions, or, where these are undersampled, along the readout: images (encode
    step 1, encode step 2) then.

    Raises:
        ValueError, OptionError: what is wrong with which readout; slices or a contrast that are not there.
    """
    chosen = select(lines, encoding, options, dict(provenance))
    encoding = chosen.encoding
    chosen.facts["readout_oversampling"] = encoding.matrix[0] / encoding.kept(0)
    own, image = np.flatnonzero(lines.noise), chosen.image
    lines.check_coils(np.concatenate([image, own, chosen.navigators]))
    count = int(lines.coils[image[0]])
    numbers = np.arange(count)
    if own.size:
        found = receiver_covariance(lines, own, _dwell(lines, image, chosen.facts), encoding)
        chosen = of_coils(chosen, found.alive, MRINoise(found.covariance.to(torch.complex64)), found.how)
        numbers = numbers[found.alive]
    read = samples_along if encoding.kind != "cartesian" else _slab if chosen.slab else _stack
    scan = without_silent_coils(read(chosen), numbers.tolist(), count)
    return scan if options.coils is None else virtual_coils(scan, options.coils)


def _dwell(lines: Readouts, image: Index, facts: Mapping[str, Any]) -> float:
    """The dwell time [us] of most lines of the image; others have other noise, which is said."""
    times, often = np.unique(lines.dwell[image], return_counts=True)
    usual = float(times[np.argmax(often)])
    if len(times) > 1:
        log.warning(
            "%s: %d of %d readouts have another dwell time than %g us, and so another noise than is assumed of them: "
            "a damaged header, or two scans in one?",
            facts.get("source", "raw data"),
            len(image) - int(often.max()),
            len(image),
            usual,
        )
    return usual


def _stack(chosen: Selection) -> Scan:
    """Slices measured one by one."""
    lines, encoding, slices = chosen.lines, chosen.encoding, chosen.slices
    numbers = {s.counter: i for i, s in enumerate(slices)}
    place = np.array([numbers[c] for c in lines.counters["slice"][chosen.image].tolist()])
    columns = encoding.matrix[1]
    slots = place * columns + _steps(chosen, 1)
    data, count, ghosts = _sorted(chosen, slots, len(slices) * columns)
    data = data.unflatten(0, (len(slices), columns)).permute(0, 2, 3, 1).contiguous()  # (Z, C, H, W)
    count = count.unflatten(0, (len(slices), columns)).transpose(1, 2)
    first, pitch = slices[0], encoding.pitch
    steps = first.axes[1] * pitch(1), first.axes[0] * pitch(0), slice_step(slices, encoding.image_mm[2])
    placed = affine(first.centre, steps, (columns // 2, data.shape[2] // 2, 0))
    kept = data.shape[2], encoding.kept(1)
    facts = {**chosen.facts, **ghosts, "slices": list(chosen.span or ())}
    return _finished(data, count, placed, kept, chosen.noise, facts)


def _slab(chosen: Selection) -> Scan:
    """A volume with two phase-encode axes, as slices by a transform along the third."""
    encoding, slab, noise = chosen.encoding, chosen.slices[0], chosen.noise
    columns, partitions = encoding.matrix[1:]
    slots = _steps(chosen, 2) * columns + _steps(chosen, 1)
    data, count, ghosts = _sorted(chosen, slots, partitions * columns)
    data, count = (t.unflatten(0, (partitions, columns)) for t in (data, count))  # (P, W, C, H), (P, W, H)
    axes, pitch = slab.axes, encoding.pitch
    read, phase, across = axes[0] * pitch(0), axes[1] * pitch(1), axes[2] * pitch(2)
    across = -across if encoding.mirrored else across
    measured = (count > 0).any(2)
    if bool((measured.all(0) | ~measured.any(0)).all()):
        kept = encoding.kept(2)
        skip = partitions // 2 - kept // 2
        data = centred_ifft(data, 0)[skip : skip + kept].permute(0, 2, 3, 1)  # (Z, C, H, W)
        count = count.amin(0).T[None].expand(kept, -1, -1)
        placed = affine(slab.centre, (phase, read, across), (columns // 2, data.shape[2] // 2, kept // 2))
        crop, along = (data.shape[2], encoding.kept(1)), "partitions"
    else:
        rows = (count > 0).any(0).any(0)
        noise = None if noise is None else noise.scaled(float(rows.double().mean()))
        data = centred_ifft(data, 3).permute(3, 2, 1, 0)  # (Z, C, W, P)
        count = count.amax(2).T[None].expand(len(rows), -1, -1)
        placed = affine(slab.centre, (across, phase, read), (partitions // 2, columns // 2, len(rows) // 2))
        crop, along = (encoding.kept(1), encoding.kept(2)), "readout"
    start, stop = chosen.part(len(data))
    placed[:3, 3] += placed[:3, 2] * start
    facts = {**chosen.facts, **ghosts, "slices_along": along, "slices": [start, stop]}
    return _finished(data[start:stop].contiguous(), count[start:stop], placed, crop, noise, facts)


def _sorted(chosen: Selection, slots: Index, total: int) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """(total, C, H) mean of the lines of each slot, (total, H) how many they were, and what was corrected."""
    lines, image, encoding = chosen.lines, chosen.image, chosen.encoding
    check_room(lines, image, encoding, total)
    prepare = Preparation(lines, encoding)
    facts: dict[str, Any] = {}
    if chosen.navigators.size:
        facts["ghost_correction"] = prepare.find_ghosts(chosen.navigators, int(image[0]))
    elif lines.reverse[image].any():
        facts["ghost_correction"] = "backward lines, but no navigators: not corrected"
    if encoding.ramp is not None:
        facts["ramp_sampling"] = "resampled on even frequencies; the noise of neighbours is correlated since"
    data, count = torch.zeros(0), torch.zeros(total, prepare.kept)
    order = np.argsort(image)
    where = dict(zip(image.tolist(), slots.tolist()))
    for index in lines.alike(image[order]):
        part, rows = prepare(index)
        if not data.numel():
            data = torch.zeros(total, *part.shape[1:], dtype=torch.complex64)
        at = torch.tensor([where[i] for i in index.tolist()])
        data.index_add_(0, at, part)
        count.index_add_(0, at, rows.float().expand(len(at), -1))
    data /= count.clamp_min(1)[:, None]
    return data, count, facts


def _steps(chosen: Selection, axis: Literal[1, 2]) -> Index:
    """Where encode steps 1 or 2 lie in full k-space, zero frequency at its n//2."""
    lines, image, encoding = chosen.lines, chosen.image, chosen.encoding
    n, centre = encoding.matrix[axis], encoding.centre[axis - 1]
    steps = lines.counters[f"step{axis}"][image] - centre + n // 2
    if (outside := (steps < 0) | (steps >= n)).any():
        line = image[int(np.argmax(outside))]
        raise ValueError(
            f"readout {line}: encode step {axis} is {lines.counters[f'step{axis}'][line]}, zero frequency "
            f"is {centre}, which the header's encoded matrix of {n} has no place for"
        )
    return np.asarray(steps)


def _finished(
    data: Tensor, count: Tensor, placed: Tensor, kept: tuple[int, int], noise: MRINoise | None, facts: dict[str, Any]
) -> Scan:
    """The scan of k-space (Z, C, H, W), where `count` (Z, H, W) lines were averaged."""
    mask = count > 0
    averages = count[mask]
    usual = float(averages.median())
    if usual != 1 or float(averages.max()) != 1:
        facts = {**facts, "averages": {"usual": usual, "least": float(averages.min()), "most": float(averages.max())}}
    facts["acceleration"] = {"true": mask.numel() / max(1, int(mask.sum()))}
    shape = tuple(data.shape[2:])
    shared = mask[0] if bool((mask == mask[:1]).all()) else mask
    return Scan(
        "mri",
        data,
        (shape[0], shape[1]),
        placed,
        "a.u.",
        geometry=Cartesian(kept if kept != shape else None),
        mask=shared.contiguous(),
        noise=None if noise is None else noise.scaled(1 / usual),
        provenance=facts,
    )
