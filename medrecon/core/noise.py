"""How measurements are noisy, and how far they can be trusted: apart from the operators, for simulation and weights.

Errors name the entry as the measurement file does: noise/i0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from numbers import Real

import torch
from torch import Tensor

from medrecon.core.on_disk import each

MAD = 1.4826
"""Standard deviation of a Gaussian over its median absolute deviation."""


MOST_PHOTONS = 1e15
"""A ray: their counts are exact in float64, and no scanner has as many."""


@dataclass(frozen=True, eq=False)
class CTNoise:
    """Has counts N ~ Poisson(i0 exp(-p)) + Normal(0, sigma_e^2) of a line integral p; p_hat = -ln(max(N, 1) / i0).

    Attributes:
        i0: photons a ray without an object; a number, or a tensor that broadcasts to the line integrals (..., V, D):
            (V, 1) for a tube current that changes from view to view, (D,) for a bowtie filter. None: not known.
        sigma_e: standard deviation of the electronic noise [counts].
        model_absolute, model_relative: what a discretised projector gets wrong, as a standard deviation
            model_absolute + model_relative |p| of the line integral. Without it chi^2/m of the truth is far
            above 1 on bright rays, and a solver that stops at the noise fits the discretisation instead.

    Raises:
        ValueError: names the entry of a measurement file, what was expected and what came.
    """

    i0: float | Tensor | None = None
    sigma_e: float = 0.0
    model_absolute: float = 0.005
    model_relative: float = 0.002

    def __post_init__(self) -> None:
        if self.i0 is not None:
            if not isinstance(self.i0, Tensor | Real):
                raise TypeError(f"noise/i0: expected a number of photons or a tensor of them, got {self.i0!r}")
            i0 = torch.as_tensor(self.i0)
            if not i0.numel() or i0.is_complex() or not bool(((i0 > 0) & (i0 <= MOST_PHOTONS)).all()):
                got = f"{tuple(i0.shape)} with values that are not" if i0.ndim else self.i0
                raise ValueError(
                    f"noise/i0: expected a positive number of photons, got {got}; at most {MOST_PHOTONS:g} are taken"
                )
        for name in ("sigma_e", "model_absolute", "model_relative"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"noise/{name}: expected a number >= 0, got {getattr(self, name)}")

    def photons(self, p: Tensor) -> Tensor:
        """Return i0 in float64, broadcast-ready for line integrals p (..., V, D), on their device.

        Raises:
            ValueError: i0 is not known, or does not broadcast to the shape of p.
        """
        i0 = torch.as_tensor(self._known(), dtype=torch.float64, device=p.device)
        try:
            fits = torch.broadcast_shapes(i0.shape, p.shape) == p.shape
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"noise/i0: {tuple(i0.shape)} does not broadcast to line integrals {tuple(p.shape)}; "
                "one value per view is (V, 1)"
            )
        return i0

    def _known(self) -> float | Tensor:
        if self.i0 is None:
            raise ValueError("noise/i0: not known: give the number of photons that the scan was made with")
        return self.i0

    def at_dose(self, fraction: float) -> CTNoise:
        """Return the noise of a scan with this fraction of the photons.

        Raises:
            ValueError: i0 is not known.
        """
        return replace(self, i0=fraction * self._known())

    def simulate(self, p: Tensor, generator: torch.Generator) -> Tensor:
        """Return noisy line integrals, shaped like p, which stays as it is. At least one count: p_hat <= ln i0."""
        p_, i0 = p.detach().double(), self.photons(p)
        counts = torch.poisson(i0 * torch.exp(-p_), generator=generator)
        electronic = torch.randn(counts.shape, dtype=counts.dtype, device=p.device, generator=generator)
        return -torch.log((counts + self.sigma_e * electronic).clamp_min(1) / i0).to(p.dtype)

    def weights(self, p_hat: Tensor) -> Tensor:
        """Return 1 / variance of p_hat from counting and electronics alone, N^2 / (N + sigma_e^2)."""
        counts = self.photons(p_hat).to(p_hat.dtype) * torch.exp(-p_hat)
        return counts.square() / (counts + self.sigma_e**2)

    def precision(self, p_hat: Tensor) -> Tensor:
        """Return 1 / (variance of the noise + square of the model error): the precision of a Measurement.

        Where the photons are not known, the noise is taken as white, with the level of each item (B, ...) read off the
        second differences along the detector, in which the object hardly shows.
        """
        model = self.model_absolute + self.model_relative * p_hat.abs()
        variance = _white_variance(p_hat) if self.i0 is None else 1 / self.weights(p_hat)
        return 1 / (variance + model.square())


def _white_variance(p_hat: Tensor) -> Tensor:
    """Variance (B, 1, ...) of white noise in line integrals (B, ..., D)."""
    second = p_hat[..., 2:] - 2 * p_hat[..., 1:-1] + p_hat[..., :-2]
    sigma = MAD * second.abs().flatten(1).median(1).values / math.sqrt(6)
    return sigma.square().reshape(-1, *(1,) * (p_hat.ndim - 1))


def outer_level(kspace: Tensor, radius: Tensor, start: float = 0.9, stop: float = 1.0) -> float:
    """Return the estimate of `MRINoise.of_outer_samples`, 0 where the outer samples are 0; same parameters.

    Args:
        start, stop: other samples, as fractions of all in the order of their distance from the middle.
    """
    measured = radius[radius >= 0]
    if not measured.numel():
        return 0.0
    ordered = measured.sort().values
    first, last = (ordered[int(fraction * (len(ordered) - 1))] for fraction in (start, stop))
    far = (radius >= first) & (radius <= last)
    magnitudes = torch.cat([item[..., far].abs().flatten() for item in each(kspace)])
    return float(magnitudes.median()) / math.sqrt(math.log(2))


def photons_by_view(i0: float | Tensor, rank: int) -> float | Tensor:
    """Return the photons of each view, (V,) or (Z, V), in a shape that broadcasts to line integrals of this rank.

    Numbers, and tensors that have the rank of (Z, V, D) or (1, V, R, D) already, stay as they are.
    """
    if not isinstance(i0, Tensor) or i0.ndim not in (1, 2):
        return i0
    return i0.reshape(*(1,) * (2 - i0.ndim), *i0.shape, *(1,) * (rank - 2))


@dataclass(frozen=True, eq=False)
class MRINoise:
    """Describes complex Gaussian noise of k-space samples, E[n n^H] = covariance over the coils.

    Attributes:
        covariance: (C, C) Hermitian positive definite; or a number sigma: every coil alike, E|n|^2 = sigma^2.

    Raises:
        ValueError: names the entry of a measurement file, what was expected and what came.
    """

    covariance: Tensor | float

    def __post_init__(self) -> None:
        c = self.covariance
        if not isinstance(c, Tensor):
            if not 0 < c < math.inf:
                raise ValueError(f"noise/sigma: expected a number > 0, got {c}")
        elif c.ndim != 2 or c.shape[0] != c.shape[1] or not torch.allclose(c, c.mH, rtol=1e-4):
            raise ValueError(f"noise/covariance: expected a Hermitian (C, C) matrix, got shape {tuple(c.shape)}")
        elif int(torch.linalg.cholesky_ex(c).info) != 0:
            raise ValueError("noise/covariance: not positive definite; is a coil without signal?")

    @classmethod
    def of_outer_samples(cls, kspace: Tensor, radius: Tensor) -> MRINoise:
        """Estimate the noise of k-space (Z, C, *item) from its outer samples: the tenth farthest from the middle.

        The estimate is their median magnitude over sqrt(ln 2), the median of a Rayleigh distribution with E|n|^2 = 1;
        object signal there makes it an upper bound.

        Args:
            radius: (*item), distance of every sample from the middle, in any unit; negative where nothing was measured.

        Raises:
            ValueError: the outer samples are 0.
        """
        sigma = outer_level(kspace, radius)
        if not sigma > 0:
            raise ValueError("the outer k-space of this scan is 0, its noise cannot be estimated: give noise/sigma")
        return cls(sigma)

    def scaled(self, factor: float) -> MRINoise:
        """Return the noise of `factor` times the variance, as averages or transforms of samples have."""
        c = self.covariance
        return MRINoise(c * factor if isinstance(c, Tensor) else c * factor**0.5)

    def _factor(self, coils: int) -> Tensor:
        """Cholesky factor L (C, C), complex128: covariance = L L^H."""
        if not isinstance(self.covariance, Tensor):
            return self.covariance * torch.eye(coils, dtype=torch.complex128)
        if len(self.covariance) != coils:
            raise ValueError(f"MRINoise: covariance of {len(self.covariance)} coils, data of {coils}")
        return torch.linalg.cholesky(self.covariance.to(torch.complex128))

    def simulate(self, kspace: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Return a noisy copy of k-space (..., C, H, W) on the samples of `mask` (broadcasts to it), 0 elsewhere."""
        white = torch.randn(kspace.shape, dtype=kspace.dtype, device=kspace.device, generator=generator)
        noise = torch.einsum("ij,...jhw->...ihw", self._factor(kspace.shape[-3]).to(kspace), white)
        return torch.where(mask.bool(), kspace + noise, 0)

    def whitening(self, coils: int | None = None) -> Tensor:
        """Return L^-1 (C, C), complex64: applied over the coils of data and sensitivity maps it makes the noise white.

        `coils` is needed when the covariance is one number.
        """
        if coils is None and not isinstance(self.covariance, Tensor):
            raise ValueError("MRINoise.whitening: noise given as one sigma; say how many coils")
        factor = self._factor(len(self.covariance) if isinstance(self.covariance, Tensor) else int(coils or 1))
        identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        return torch.linalg.solve_triangular(factor, identity, upper=False).to(torch.complex64)

    def precision(self, mask: Tensor, coils: int) -> Tensor:
        """Return (C, H, W) 1 / E|n|^2 of each coil where `mask` (broadcasts to C, H, W) sampled, 0 elsewhere.

        Correlations are left out: after whitening the precision is `mask` itself.
        """
        variance = self._factor(coils).abs().square().sum(1).float().to(mask.device)
        return mask.bool().float() / variance.reshape(-1, 1, 1)
