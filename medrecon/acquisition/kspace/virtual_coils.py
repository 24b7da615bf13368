"""Fewer, virtual coils of a scan: after whitening, the strongest principal components over the coils."""

from __future__ import annotations

from dataclasses import replace

import torch

from medrecon.acquisition.options import OptionError
from medrecon.coils.compression import compress
from medrecon.coils.whitening import whitening_matrix
from medrecon.core.noise import MRINoise
from medrecon.core.scan import Scan


def virtual_coils(scan: Scan, coils: int) -> Scan:
    """The scan with its `coils` strongest virtual coils (Buehrer et al., Magn. Reson. Med. 57:1131, 2007).

    Where the noise covariance is known the data are whitened first, to the noise of the mean coil.

    Raises:
        OptionError: more coils than there are.
    """
    count = scan.data.shape[1]
    if coils > count:
        raise OptionError(f"coils {coils}: the file has {count}")
    data, noise = scan.data, scan.noise
    covariance = noise.covariance if isinstance(noise, MRINoise) else None
    if isinstance(covariance, torch.Tensor):
        matrix, sigma = whitening_matrix(covariance, keep_units=True)
        data, noise = torch.einsum("ij,zj...->zi...", matrix.to(data), data), MRINoise(sigma)
    along = scan.noncartesian  # samples as the rows of images one pixel wide
    small, found = compress(data[..., None] if along else data, coils)
    facts = {"from": count, "whitened": isinstance(covariance, torch.Tensor), "energy_kept": found.retained}
    return replace(
        scan,
        data=small[..., 0] if along else small,
        noise=noise,
        provenance={**scan.provenance, "virtual_coils": facts},
    )
