"""An MRI scan as a problem: coils, whitening, the intensity scale; on a Cartesian grid or along a trajectory."""

from __future__ import annotations

import abc
import logging
import math
from typing import Any

import torch
from torch import Tensor

from medrecon.coils.combine import smooth_phase
from medrecon.coils.whitening import whitening_matrix
from medrecon.core.measurement import Measurement
from medrecon.core.noise import MRINoise, outer_level
from medrecon.core.on_disk import each
from medrecon.core.scan import Scan
from medrecon.core.volume import Modality, Units
from medrecon.geometry import Trajectory
from medrecon.models.prior import Prior
from medrecon.numerics.linalg import cg
from medrecon.operators.base import LinearOperator
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.operators.mri.noncartesian import NonCartesianMRI, calibration_kspace
from medrecon.pipeline.coil_maps import MapMethod, estimate_maps, missed_energy

log = logging.getLogger(__name__)

FLOOR = 1e-3
"""Least noise that is believed when it is estimated, relative to the root mean square of the k-space samples, which is
that of the image: no scanner's image has a mean signal-to-noise ratio of 1000, and operators of single precision are
exact to some 1e-6. Less comes of filters, zero padding and simulations without noise."""
FALLS = 0.6
"""White noise is as strong in the outer tenth of k-space as in the tenth before it (0.82 to 1 in real scans);
filters of Hann and Fermi make it 0.05 to 0.55."""
EMPTY = "the k-space of this scan has no signal: every acquired sample is 0"
LEVEL = 0.999
"""Quantile of the magnitude that becomes 1 in the units of an MR prior."""
SCALE_SLICES, SCALE_ITERATIONS = 16, 8
MISSED = 0.03
"""Share of the energy that maps may leave out without a word; of 12 calibration lines 0.01, of 10 0.04, of 8 0.9."""


class MRIProblem(abc.ABC):
    """Images are complex and of order 1: the scan's own intensity scale (`facts`) is divided out and put back."""

    units: Units = "a.u."
    modality: Modality = "MR"

    def __init__(self, scan: Scan, device: str, maps: MapMethod = "auto") -> None:
        self.dead = (~scan.live_coils).nonzero().flatten().tolist()
        self.scan, self.device, self.method = _connected(scan), device, maps
        self.estimate: dict[str, Any] = {"noise_model": "from the scan"}
        noise = self.scan.noise if isinstance(self.scan.noise, MRINoise) else self._estimated_noise()
        self.whitener, self.sigma = whitening(noise)
        self._latest: tuple[tuple[int, int], Tensor] | None = None
        self._told = False
        self.scale = 1.0
        self.scale = self._intensity()
        given = scan.maps is not None and maps == "auto"
        self.facts: dict[str, Any] = {
            "intensity_scale": self.scale,
            "sigma": self.sigma,
            "sigma_relative": self.sigma / self.scale,
            **self.estimate,
            "coil_maps": "from the scan" if given else "espirit" if maps == "auto" else maps,
        }
        self.facts |= {"dead_coils": self.dead} if self.dead else {}

    def _estimated_noise(self) -> MRINoise:
        """The noise of the outer samples, or the least that is believed."""
        radius, samples = self._radius(), self.scan.data
        level = outer_level(samples, radius)
        rms = _root_mean_square(samples, radius >= 0)
        if not rms > 0:
            raise ValueError(EMPTY)
        sigma, doubt = max(level, FLOOR * rms), ""
        if level < FLOOR * rms:
            doubt = (
                f"the estimate {level:.3g} is below {FLOOR:g} of the samples' root mean square {rms:.3g}, as of "
                f"k-space that is filtered, padded with zeros or simulated without noise: {sigma:.3g} was taken instead"
            )
        elif level < FALLS * outer_level(samples, radius, 0.8, 0.9):
            doubt = (
                f"the estimate {level:.3g} is of outer k-space that still falls towards its edge, as behind a filter: "
                "the noise further in may be far stronger"
            )
        if doubt:
            log.warning("noise: %s; chi^2/m means little. Give the scan its noise for one that does", doubt)
        self.estimate = {"noise_model": doubt or "estimated from the data", "sigma_estimated": level}
        return MRINoise(sigma)

    @abc.abstractmethod
    def _radius(self) -> Tensor:
        """Distance of every sample of k-space from its middle, 1 at an edge; -1 where nothing was measured."""

    @abc.abstractmethod
    def _calibration(self, index: slice) -> Tensor:
        """Cartesian k-space (B, C, H, W) to find coil maps and the image's smooth phase in, on the data's device."""

    @abc.abstractmethod
    def _sampled(self, index: slice) -> Tensor:
        """1 where the data of a scan were measured, 0 elsewhere; broadcasts to them."""

    @abc.abstractmethod
    def operator(self, index: slice) -> LinearOperator: ...

    def _white(self, x: Tensor) -> Tensor:
        x = x.to(self.device)
        return x if self.whitener is None else torch.einsum("ij,bj...->bi...", self.whitener.to(x), x)

    def _maps(self, index: slice) -> Tensor:
        """Maps of the whitened coils. They are of unit root-sum-of-squares before whitening: the image is that of the
        scanner's own coils."""
        wanted = index.indices(len(self.scan.data))[:2]
        if self._latest is None or self._latest[0] != wanted:
            given = self.scan.maps if self.method == "auto" else None
            if given is not None:
                maps = given[index].to(self.device)
                if not self.scan.noncartesian:
                    self._tell_missed(maps, self._calibration(index), index.start)
            else:
                kspace = self._calibration(index)
                maps = estimate_maps(kspace, self.method)
                self._tell_missed(maps, kspace, index.start)
            self._latest = wanted, self._white(maps)
        return self._latest[1]

    def _tell_missed(self, maps: Tensor, kspace: Tensor, start: int) -> None:
        """Say, once, of the first slice where maps leave out much of the object."""
        if self._told or self.method not in ("auto", "espirit"):  # the others have a map everywhere
            return
        try:
            missed = missed_energy(maps, kspace)
        except ValueError:  # no calibration region: nothing to compare with
            return
        if bool((missed > MISSED).any()):
            self._told = True
            first = int((missed > MISSED).nonzero()[0])
            log.warning(
                "slice %d: the coil maps leave out %.0f %% of the energy of the calibration region, and the image is 0 "
                "there: the region is too narrow for them, or the slice is noise. Try --maps walsh or --maps jsense",
                start + first,
                100 * float(missed[first]),
            )

    def measurement(self, index: slice) -> Measurement:
        sampled = self._sampled(index)
        data = self._white(self.scan.data[index]) * sampled / self.scale
        return Measurement(data, sampled * (self.scale / self.sigma) ** 2)

    def prior(self, prior: Prior, index: slice) -> Prior:
        if prior.complex:
            return prior
        return prior.with_phase(smooth_phase(self._white(self._calibration(index)), self._maps(index)))

    def values(self, image: Tensor) -> Tensor:
        return image.abs() * self.scale

    def _intensity(self) -> float:
        """The 99.9 % quantile of the magnitude, from the data alone: a short CG-SENSE of up to 16 slices."""
        count = len(self.scan.data)
        found: list[Tensor] = []
        wrong: list[ValueError] = []
        for i in range(0, count, -(-count // SCALE_SLICES)):
            try:
                A, y = self.operator(slice(i, i + 1)), self.measurement(slice(i, i + 1))
            except ValueError as error:  # a slice without coil maps costs the others nothing
                wrong.append(error)
                continue
            found.append(cg(A.gram, A.adjoint(y.data), ndim=2, iterations=SCALE_ITERATIONS).x.abs().flatten())
        if not found:
            raise wrong[0]
        values = torch.cat(found)
        scale = float(values.kthvalue(max(1, round(LEVEL * values.numel()))).values)
        if not scale > 0:
            raise ValueError(EMPTY)
        return scale


class CartesianProblem(MRIProblem):
    """k-space (Z, C, H, W) on a grid, sampled where the scan's mask says, or where it is not 0."""

    def __init__(self, scan: Scan, device: str, maps: MapMethod = "auto") -> None:
        self.mask = scan.sampled
        super().__init__(scan, device, maps)

    def _radius(self) -> Tensor:
        height, width = self.mask.shape[-2:]
        y, x = (torch.linspace(-1, 1, n) for n in (height, width))
        anywhere = self.mask if self.mask.ndim == 2 else self.mask.any(0)
        return torch.where(anywhere, (y[:, None].square() + x.square()).sqrt(), -1.0)

    def _calibration(self, index: slice) -> Tensor:
        return self.scan.data[index].to(self.device)

    def _sampled(self, index: slice) -> Tensor:
        mask = (self.mask if self.mask.ndim == 2 else self.mask[index]).to(self.device)
        return mask.reshape(-1, 1, *mask.shape[-2:]).float()

    def operator(self, index: slice) -> LinearOperator:
        return CartesianMRI(self._maps(index), self._sampled(index)[:, 0])


class TrajectoryProblem(MRIProblem):
    """Samples (Z, C, S) along a trajectory."""

    def __init__(self, scan: Scan, device: str, maps: MapMethod = "auto") -> None:
        if not isinstance(scan.geometry, Trajectory):
            raise ValueError("TrajectoryProblem: needs samples along a trajectory")
        self.trajectory, self.density = scan.geometry.samples, scan.geometry.density
        self._plan: NonCartesianMRI | None = None
        super().__init__(scan, device, maps)

    def _radius(self) -> Tensor:
        half = torch.tensor(self.scan.image_shape, dtype=torch.float64) / 2
        return (self.trajectory.double() / half).square().sum(1).sqrt()

    def _calibration(self, index: slice) -> Tensor:
        data = self.scan.data[index].to(self.device)
        height, width = self.scan.image_shape
        return calibration_kspace(data, self.trajectory, (height, width), self.density)

    def _sampled(self, index: slice) -> Tensor:
        return torch.ones(1, 1, len(self.trajectory), device=self.device)

    def operator(self, index: slice) -> LinearOperator:
        maps = self._maps(index)
        if self._plan is None:
            self._plan = NonCartesianMRI(self.trajectory, self.scan.image_shape, maps, self.density)
        return self._plan.with_maps(maps)


def _root_mean_square(samples: Tensor, where: Tensor) -> float:
    """Of samples (Z, C, *item) at some places, (*item)."""
    sums = [float(item[..., where].abs().double().square().sum()) for item in each(samples)]
    count = int(where.sum()) * samples.shape[:2].numel()
    return math.sqrt(math.fsum(sums) / count) if count else 0.0


def _connected(scan: Scan) -> Scan:
    """The scan without coils that have no sample but 0: they would tell of noise that is not there."""
    alive = scan.live_coils
    if not bool(alive.any()):
        raise ValueError(EMPTY)
    return scan if bool(alive.all()) else scan.of_coils(alive)


def whitening(noise: MRINoise) -> tuple[Tensor | None, float]:
    """What makes the coils' noise white, and its standard deviation then: that of the mean coil."""
    if not isinstance(noise.covariance, Tensor):
        return None, noise.covariance
    return whitening_matrix(noise.covariance, keep_units=True)
