"""The noise of the receivers, from readouts without excitation."""

from __future__ import annotations

import torch
from torch import Tensor

from medrecon.raw.readouts import Encoding, Index, Readouts


def receiver_covariance(lines: Readouts, noise: Index, dwell: float, encoding: Encoding) -> tuple[Tensor, str]:
    """(C, C) complex128 covariance E[n n^H] of a sample of dwell time `dwell` [us], and how it was found.

    White noise has a variance proportional to the receiver's bandwidth, 1 / dwell time; that of the noise readouts may
    be narrower by `noise_bandwidth` (Kellman & McVeigh, Magn. Reson. Med. 54:1439, 2005):
    covariance = covariance of the noise readouts * (their dwell / dwell) / noise_bandwidth.

    Raises:
        ValueError: too few samples for so many coils, dwell times that are not positive, coils that differ.
    """
    parts = [lines.read(index).to(torch.complex128) for index in lines.alike(noise)]
    samples = torch.cat([part.transpose(0, 1).flatten(1) for part in parts], dim=1)
    coils, count = samples.shape
    if count < 4 * coils:
        raise ValueError(f"noise readouts: {count} samples are too few for the covariance of {coils} coils")
    own = {float(d) for d in lines.dwell[noise]}
    if len(own) != 1:
        raise ValueError(f"noise readouts of several dwell times: {sorted(own)} us")
    ratio = own.pop() / dwell if dwell > 0 else float("nan")
    known = 0 < ratio < float("inf")
    bandwidth = encoding.noise_bandwidth or 1.0
    said = f"relative bandwidth {bandwidth:g}" + ("" if encoding.noise_bandwidth else " for lack of a better one")
    how = f"{count} samples of {len(noise)} noise readouts, dwell time ratio "
    how += f"{ratio:.4g}, {said}" if known else f"not known, taken as 1, {said}"
    return samples @ samples.mH / count * ((ratio if known else 1.0) / bandwidth), how
