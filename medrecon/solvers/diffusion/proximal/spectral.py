"""What DDRM and DDNM share: the data, component by component, of an operator with a `Spectrum`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.latent import LatentSpace
from medrecon.numerics.linalg import expand
from medrecon.operators.base import LinearOperator
from medrecon.operators.spectrum import Spectrum
from medrecon.solvers.diffusion.base import Task
from medrecon.solvers.diffusion.posterior import SampledSolver


@dataclass(frozen=True, eq=False)
class SpectralGuide(Guide):
    """D(z), which the method's own sampler moves onto the data.

    Numbers are E|n|^2 of components, complex or real: no method here asks how a complex one is divided.
    """

    space: LatentSpace
    spectrum: Spectrum
    measured: Tensor
    """the components as the data have them, V^H x + n (N, *out_shape); 0 where not measured"""
    error: Tensor
    """the deviation of n, broadcasts to (N, *out_shape); infinite where not measured"""
    deviation: Tensor
    """of an image at noise level 1, (N,)"""

    @classmethod
    def of(cls, space: LatentSpace, spectrum: Spectrum, y: Measurement, deviation: Tensor) -> Self:
        """Return that of a measurement; the noise of each sample is that of its component, over the singular value."""
        d, seen = spectrum.d, (y.precision > 0) & (spectrum.d != 0)
        measured = torch.where(seen, y.data / torch.where(seen, d, 1), 0)
        error = torch.where(seen, 1 / (y.root * d.abs()), torch.inf)
        return cls(space, spectrum, measured, error, deviation)

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        clean = self.space.denoise(z, sigma)
        return Estimate(clean, clean, self.space.decode(clean), sigma)

    def ratio(self, sigma: float) -> Tensor:
        """Return the deviation of measured components over that of an image at noise sigma; infinite: not measured."""
        return self.error / (sigma * expand(self.deviation, self.measured.ndim - 1))

    def moved(self, estimate: Estimate, weight: Tensor) -> Tensor:
        """Return the latent (N, C, h, w) of the estimate, a share `weight` of the way to the measured components."""
        v = estimate.image
        assert v is not None
        change = self.spectrum.image(weight * (self.measured - self.spectrum.components(v)))
        return self.space.carried(estimate.clean, v, v + change)

    def filtered(self, noise: Tensor, share: Tensor, white: float) -> Tensor:
        """Return noise (N, C, h, w), each component of whose image has a `share` of its deviation.

        Where latents are no images, a latent has no components: all of it has the share `white`.
        """
        if not self.space.prior.flat:
            return white * noise
        zero = torch.zeros_like(noise)
        level = self.space.decode(zero)
        parts = self.spectrum.components(self.space.decode(noise) - level)
        return self.space.carried(zero, level, level + self.spectrum.image(share * parts))


@dataclass(frozen=True, eq=False)
class SpectralSolver(SampledSolver):
    """A solver for operators whose singular value decomposition is known.

    With a prior whose latents are pixels it does what its paper does. A prior with an autoencoder gets the change of
    its image through the encoder, and white noise. Of a magnitude prior the real part behind the known phase is kept.

    Raises:
        ValueError: of an operator without a `Spectrum`, before anything is computed.
    """

    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("mri",)
    scans: ClassVar[str] = "one coil"

    def consistency(self, A: LinearOperator, y: Measurement) -> DataConsistency:
        if A.spectrum is None:
            raise ValueError(
                f"{self.name} works on single components of the image, and the singular value decomposition of {A!r} "
                "is not known: only those of masks and of Cartesian MRI with one coil are; dds, diffpir and daps do "
                "the same for any operator"
            )
        return super().consistency(A, y)

    def guide(self, task: Task) -> SpectralGuide:
        spectrum = task.data.A.spectrum
        assert spectrum is not None  # see `consistency`
        return SpectralGuide.of(task.space, spectrum, task.data.y, self.deviation(task))
