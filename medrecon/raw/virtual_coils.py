"""Fewer, virtual coils: after whitening, the strongest principal components over the coils."""

from __future__ import annotations

from dataclasses import replace

import torch

from medrecon.io.scan import Scan
from medrecon.noise import MRINoise
from medrecon.raw.options import OptionError


def virtual_coils(scan: Scan, coils: int) -> Scan:
    """The scan with its `coils` strongest virtual coils (Buehrer et al., Magn. Reson. Med. 57:1131, 2007).

    Where the noise covariance is known the data are whitened first, and the new covariance is the identity.

    Raises:
        OptionError: more coils than there are.
    """
    count = scan.data.shape[1]
    if coils > count:
        raise OptionError(f"coils {coils}: the file has {count}")
    known = "covariance" in scan.noise
    whitening = MRINoise(scan.noise["covariance"]).whitening() if known else torch.eye(count, dtype=torch.complex64)
    flat = torch.einsum("ij,zj...->zi...", whitening, scan.data)
    samples = flat.transpose(0, 1).flatten(1)
    gram = (samples @ samples.mH).to(torch.complex128)
    energy, vectors = torch.linalg.eigh(gram)
    strongest = vectors[:, -coils:].flip(1).mH.to(torch.complex64)
    noise = {**scan.noise, "covariance": torch.eye(coils, dtype=torch.complex64)} if known else scan.noise
    facts = {"from": count, "whitened": known, "energy_kept": float(energy[-coils:].sum() / energy.sum())}
    return replace(scan, data=torch.einsum("ij,zj...->zi...", strongest, flat), noise=noise,
                   provenance={**scan.provenance, "virtual_coils": facts})  # fmt: skip
