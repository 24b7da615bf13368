"""The noise of the receivers, from readouts without excitation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medrecon.acquisition.kspace.readouts import Encoding, Flags, Index, Readouts
from medrecon.coils.whitening import noise_covariance, noise_scale, silent_coils


@dataclass(frozen=True, eq=False)
class ReceiverNoise:
    """Covariance E[n n^H] (C', C') complex128 of a sample, of the coils `alive` (C,), and how it was found."""

    covariance: Tensor
    alive: Flags
    how: str


def receiver_covariance(lines: Readouts, noise: Index, dwell: float, encoding: Encoding) -> ReceiverNoise:
    """Estimate the covariance of a sample of dwell time `dwell` [us], without coils that have no noise.

    White noise has a variance proportional to the receiver's bandwidth, 1 / dwell time; that of the noise readouts may
    be narrower by `noise_bandwidth` (Kellman & McVeigh, Magn. Reson. Med. 54:1439, 2005):
    covariance = covariance of the noise readouts * (their dwell / dwell) / noise_bandwidth.

    Of noise readouts of several bandwidths those count whose dwell time is nearest to the image's.

    Raises:
        ValueError: too few samples for so many coils, NaN, no coil with noise.
    """
    there = np.unique(lines.dwell[noise])
    own = float(there[np.argmin(np.abs(np.log(np.maximum(there, 1e-9) / max(dwell, 1e-9))))])
    noise = noise[lines.dwell[noise] == own]
    parts = [lines.read(index) for index in lines.alike(noise)]
    samples = torch.cat([part.transpose(0, 1).flatten(1) for part in parts], dim=1)
    bandwidth = encoding.noise_bandwidth or 1.0
    known = min(own, dwell) > 0
    scale = noise_scale(dwell, own, bandwidth) if known else noise_scale(1.0, 1.0, bandwidth)
    how = f"{samples.shape[1]} samples of {len(noise)} noise readouts, dwell time ratio "
    how += f"{own / dwell:.4g}" if known else "not known, taken as 1"
    how += f", relative bandwidth {bandwidth:g}" + ("" if encoding.noise_bandwidth else " for lack of a better one")
    how += (
        f"; noise readouts of other dwell times left out: {there[there != own].tolist()} us" if len(there) > 1 else ""
    )
    alive = ~silent_coils(samples)
    if not bool(alive.any()):
        raise ValueError(f"the {len(noise)} noise readouts are 0 in every coil; leave them out of the file")
    return ReceiverNoise(noise_covariance(samples[alive], scale=scale), np.asarray(alive.numpy()), how)
