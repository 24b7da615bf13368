"""Between k-space methods and the solver protocol: the samples acquired, coil images, and their combination."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medrecon.coils.combine import combine
from medrecon.core.measurement import Measurement
from medrecon.numerics.fourier import centred_ifft
from medrecon.operators.base import LinearOperator
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.solvers.base import check_fit


@dataclass(frozen=True, eq=False)
class KSpace:
    """samples (B, C, H, W), 0 where not acquired; acquired (B, H, W), bool: in all coils; maps (1 or B, C, H, W);
    variance: the mean E|n|^2 of the acquired samples of each slice."""

    samples: Tensor
    acquired: Tensor
    maps: Tensor
    variance: list[float]

    def combine(self, kspace: Tensor) -> Tensor:
        """sum conj(S) x / sum |S|^2 over the coils of k-space (B, C, H, W): (B, H, W), 0 outside of the maps."""
        return combine(centred_ifft(kspace), self.maps.to(kspace))


def acquired_kspace(A: LinearOperator, y: Measurement, method: str) -> KSpace:
    """The k-space of a measurement by CartesianMRI; weights of its mask are divided out.

    Raises:
        ValueError: another operator, data that do not fit, or nothing acquired.
    """
    if not isinstance(A, CartesianMRI):
        raise ValueError(f"{method}: interpolates Cartesian k-space and needs a CartesianMRI operator, got {A!r}")
    check_fit(A, y)
    mask = A.mask.to(y.data.real)[:, None]
    acquired = ((y.precision > 0) & (mask != 0)).expand(y.data.shape).all(1)
    if not bool(acquired.flatten(1).any(1).all()):
        raise ValueError(f"{method}: a slice has no sample that was acquired in all coils")
    inside = acquired[:, None].expand(y.data.shape)
    variance = torch.where(inside, 1 / (y.precision * mask.square()), 0).flatten(1).sum(1)
    samples = torch.where(acquired[:, None], y.data / torch.where(mask != 0, mask, 1), 0)
    return KSpace(samples, acquired, A.maps, (variance / acquired[:, None].sum((1, 2, 3)) / A.coils).tolist())
