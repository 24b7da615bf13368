"""A measured volume before reconstruction: a sinogram or k-space with all a reconstruction needs."""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from medrecon.core import scan_ranges as ranges
from medrecon.core.noise import CTNoise, MRINoise
from medrecon.core.on_disk import each, largest, mapped
from medrecon.core.volume import Units, check_affine
from medrecon.geometry import (
    Cartesian,
    ConeGeometry,
    FanGeometry,
    ImageGrid,
    KSpace,
    ParallelGeometry,
    Rays,
    Trajectory,
    VolumeGrid,
)


@dataclass(frozen=True, eq=False)
class Scan:
    """Holds a measured volume before reconstruction: slice by slice, or, of a cone beam, as a whole.

    Attributes:
        modality: "ct" or "mri".
        data: CT (Z, V, D) float32 line integrals, of a cone beam (1, V, R, D); MRI (Z, C, H, W) complex64 centred
            k-space, 0 where not sampled, or (Z, C, S), the samples along a trajectory.
        image_shape: (H, W) of the reconstruction, of a cone beam (Z, H, W).
        affine: (4, 4) float64, voxel (x, y, z) of the reconstruction, before any crop, to RAS mm.
        units: of the reconstruction: "HU" or "1/mm" (CT), "a.u." (MRI).
        geometry: where it was measured: rays of CT, k-space of MRI.
        mask: Cartesian MRI, bool, (H, W) or (Z, H, W): where k-space was sampled.
        maps: MRI, complex64 (Z, C, H, W): coil sensitivities, when known.
        noise: the noise model; None: to be estimated from the data. The i0 of CT is a number, or of the rank of data
            with each axis as long as theirs, or 1: (1, V, 1) for a tube current, (1, 1, D) for a bowtie filter.
        mu_water: CT, attenuation of water that defines HU [1/mm]; None: not known, `units.MU_WATER` is taken.
        provenance: where it came from, as JSON values; never patient data.
        first: number of its first slice in the measurement that it is a part of.

    Raises:
        ValueError: names the field, what was expected and what came.
    """

    modality: Literal["ct", "mri"]
    data: Tensor
    image_shape: tuple[int, ...]
    affine: Tensor
    units: Units
    geometry: Rays | KSpace = Cartesian()
    mask: Tensor | None = None
    maps: Tensor | None = None
    noise: CTNoise | MRINoise | None = None
    mu_water: float | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    first: int = 0

    def __post_init__(self) -> None:
        if self.modality not in ("ct", "mri"):
            raise ValueError(f"modality: expected 'ct' or 'mri', got {self.modality!r}")
        for name in ("data", "affine", "mask", "maps"):
            value = getattr(self, name)
            if not isinstance(value, Tensor) and not (value is None and name in ("mask", "maps")):
                raise TypeError(f"{name}: expected a torch.Tensor, got {_type(value)}")
        if not isinstance(self.provenance, dict):
            raise TypeError(f"provenance: expected a dict, got {_type(self.provenance)}")
        foreign = ("mask", "maps") if self.modality == "ct" else ("mu_water",)
        for name in foreign:
            if getattr(self, name) is not None:
                raise ValueError(f"{name}: a scan of {self.modality} has none")
        object.__setattr__(self, "image_shape", _shape(self.image_shape))
        self._check_types()
        rank = 3 + self.volumetric if self.modality == "ct" else 4 - self.noncartesian
        _expect("data", self.data, torch.float32 if self.modality == "ct" else torch.complex64, [rank])
        if len(self.image_shape) != 2 + self.volumetric or min(self.image_shape) < 1:
            expected = "(Z, H, W)" if self.volumetric else "(H, W)"
            raise ValueError(f"image_shape: expected {expected}, got {self.image_shape}")
        if self.volumetric and len(self.data) != 1:
            raise ValueError(f"data: expected (1, V, R, D), the one scan of a cone beam, got {tuple(self.data.shape)}")
        if tuple(self.affine.shape) != (4, 4) or self.affine.dtype != torch.float64:
            raise ValueError(f"affine: expected float64 (4, 4), got {self.affine.dtype} {tuple(self.affine.shape)}")
        known = {"ct": ("HU", "1/mm"), "mri": ("a.u.",)}[self.modality]
        if self.units not in known:
            raise ValueError(f"units: {self.modality} has {' or '.join(known)}, got {self.units!r}")
        check_affine(self.affine, "affine:")
        if self.modality == "ct":
            self._check_ct()
        else:
            self._check_mri()

    def _check_types(self) -> None:
        """Geometry and noise are those of the modality."""
        rays = self.modality == "ct"
        known: tuple[type, ...] = (ParallelGeometry, FanGeometry, ConeGeometry) if rays else (Cartesian, Trajectory)
        if not isinstance(self.geometry, known):
            names = ", ".join(cls.__name__ for cls in known)
            raise ValueError(f"geometry: of {self.modality} expected one of {names}, got {_type(self.geometry)}")
        model = CTNoise if rays else MRINoise
        if self.noise is not None and not isinstance(self.noise, model):
            raise ValueError(f"noise: of {self.modality} expected {model.__name__} or None, got {_type(self.noise)}")

    def _check_ct(self) -> None:
        self.rays.check_data(tuple(self.data.shape[1:]))
        ranges.check_rays(self.rays)
        stack = (len(self.data), *self.image_shape)[-3:]
        ranges.check_right_angles(self.affine, stack, slices=self.volumetric)
        if self.mu_water is not None:
            ranges.check_water(self.mu_water)
        i0 = self.noise.i0 if isinstance(self.noise, CTNoise) else None
        if isinstance(i0, Tensor) and i0.ndim:
            axes = zip(i0.shape, self.data.shape, strict=False)
            if i0.ndim != self.data.ndim or any(n not in (1, m) for n, m in axes):
                shape = tuple(self.data.shape)
                raise ValueError(
                    f"noise/i0: expected a number or {shape}, each axis as long or 1, got {tuple(i0.shape)}"
                )

    def _check_mri(self) -> None:
        image, stack = tuple(self.image_shape), (len(self.data), *self.image_shape)
        self.kspace.check_data(tuple(self.data.shape[2:]), image)
        ranges.check_kspace(self.kspace)
        if self.mask is not None:
            if self.noncartesian:
                raise ValueError("mask: not for samples along a trajectory, which are all measured")
            _expect("mask", self.mask, torch.bool, [2, 3])
            if tuple(self.mask.shape) not in {image, stack}:
                raise ValueError(f"mask: expected (H, W) or (Z, H, W) as in data, got {tuple(self.mask.shape)}")
            if not bool(self.mask.any()):
                raise ValueError("mask: is false everywhere: nothing was measured")
        if self.maps is not None:
            expected = (*self.data.shape[:2], *image)
            _expect("maps", self.maps, torch.complex64, [4])
            if tuple(self.maps.shape) != expected:
                raise ValueError(f"maps: expected {expected} as data and image, got {tuple(self.maps.shape)}")
        noise = self.noise if isinstance(self.noise, MRINoise) else None
        ranges.check_scale("data", largest(self.data))
        covariance, coils = noise.covariance if noise else None, self.data.shape[1]
        if isinstance(covariance, Tensor) and len(covariance) != coils:
            raise ValueError(f"noise/covariance: expected ({coils}, {coils}) as in data, got {tuple(covariance.shape)}")

    @property
    def rays(self) -> Rays:
        """The geometry of a CT scan.

        Raises:
            ValueError: not a CT scan.
        """
        if isinstance(self.geometry, Cartesian | Trajectory):
            raise ValueError(f"a scan of {self.modality} has no rays")
        return self.geometry

    @property
    def kspace(self) -> KSpace:
        """The geometry of an MRI scan.

        Raises:
            ValueError: not an MRI scan.
        """
        if not isinstance(self.geometry, Cartesian | Trajectory):
            raise ValueError(f"a scan of {self.modality} has no k-space")
        return self.geometry

    @property
    def noncartesian(self) -> bool:
        """MRI sampled along a trajectory: radial, spiral."""
        return isinstance(self.geometry, Trajectory)

    @property
    def crop(self) -> tuple[slice, slice] | None:
        """The rows and columns of the reconstruction that are the image, the rest being oversampling; None: all."""
        if self.modality == "ct" or self.kspace.crop is None:
            return None
        pairs = zip(self.image_shape, self.kspace.crop, strict=True)
        rows, columns = (slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in pairs)
        return rows, columns

    @property
    def volumetric(self) -> bool:
        """Measured as a whole, not slice by slice: every ray of a cone beam crosses several slices."""
        return isinstance(self.geometry, ConeGeometry)

    @property
    def slice_count(self) -> int:
        """Z of the reconstruction."""
        return self.image_shape[0] if self.volumetric else len(self.data)

    @property
    def grid(self) -> ImageGrid | VolumeGrid:
        """Pixels or voxels of a CT scan: their middle on the axis of rotation at height 0, pitch from the affine."""
        column, row, step = torch.linalg.vector_norm(self.affine[:3, :3], dim=0).tolist()
        *_, height, width = self.image_shape
        if self.volumetric:
            return VolumeGrid((self.slice_count, height, width), (step, row, column))
        return ImageGrid((height, width), (row, column))

    def slices(self, start: int, stop: int) -> Scan:
        """Return slices start..stop-1, with the affine moved along.

        Raises:
            ValueError: not within 0..Z, or a cone beam.
        """
        start, stop = self.within((start, stop))
        return replace(
            self,
            data=self.data[start:stop],
            affine=moved(self.affine, start),
            noise=self.noise_of(start, stop),
            mask=self.mask[start:stop] if self.mask is not None and self.mask.ndim == 3 else self.mask,
            maps=None if self.maps is None else self.maps[start:stop],
            first=self.first + start,
        )

    @functools.cached_property
    def live_coils(self) -> Tensor:
        """(C,), of MRI: which coils have a sample that is not 0."""
        live = torch.zeros(self.data.shape[1], dtype=torch.bool)
        for item in each(self.data):
            live |= (item[0] != 0).flatten(1).any(1).cpu()
        return live

    @functools.cached_property
    def sampled(self) -> Tensor:
        """(H, W) or (Z, H, W), of Cartesian MRI: the mask, or where any slice and coil has a sample that is not 0."""
        if self.mask is not None:
            return self.mask
        found = torch.zeros(self.data.shape[2:], dtype=torch.bool)
        for item in each(self.data):
            found |= (item != 0).any(0).any(0).cpu()
        return found

    def of_coils(self, kept: Tensor) -> Scan:
        """Return the MRI scan of some coils: `kept`, bool (C,)."""
        noise = self.noise
        if isinstance(noise, MRINoise) and isinstance(noise.covariance, Tensor):
            noise = MRINoise(noise.covariance[kept][:, kept])
        maps = None if self.maps is None else mapped(self.maps, lambda item: item[:, kept])
        return replace(self, data=mapped(self.data, lambda item: item[:, kept]), maps=maps, noise=noise)

    def within(self, slices: tuple[int, int] | None) -> tuple[int, int]:
        """Return (start, stop) on the first axis of the data: of these slices, or all.

        Raises:
            ValueError: not within 0..Z, or slices of a cone beam.
        """
        return within(slices, len(self.data), self.volumetric)

    def noise_of(self, start: int, stop: int) -> CTNoise | MRINoise | None:
        """Return the noise model of start..stop-1 on the first axis of the data."""
        return noise_of(self.noise, start, stop)


def noise_of(noise: CTNoise | MRINoise | None, start: int, stop: int) -> CTNoise | MRINoise | None:
    """Return the noise model of slices start..stop-1 of a scan: an i0 of every slice is cut along."""
    i0 = noise.i0 if isinstance(noise, CTNoise) else None
    if isinstance(noise, CTNoise) and isinstance(i0, Tensor) and i0.ndim and len(i0) > 1:
        return replace(noise, i0=i0[start:stop])
    return noise


def within(slices: tuple[int, int] | None, count: int, volumetric: bool) -> tuple[int, int]:
    """Return (start, stop) of `slices`, or of all of `count`.

    Raises:
        ValueError: not within 0..count, or slices of a cone beam.
    """
    if slices is None:
        return 0, count
    start, stop = (operator.index(n) for n in slices)
    if volumetric:
        raise ValueError(
            f"slices {start}:{stop}: a cone-beam scan measures its volume as a whole; reconstruct it, and "
            "take slices of the volume"
        )
    if not 0 <= start < stop <= count:
        raise ValueError(f"slices {start}:{stop} are not within 0:{count}")
    return start, stop


def moved(affine: Tensor, slices: int) -> Tensor:
    """Return the affine of the volume without its first slices."""
    moved = affine.clone()
    moved[:3, 3] += moved[:3, 2] * slices
    return moved


def _expect(name: str, tensor: Tensor, dtype: torch.dtype, ranks: list[int]) -> None:
    if tensor.dtype != dtype or tensor.ndim not in ranks:
        rank = " or ".join(map(str, ranks))
        raise ValueError(f"{name}: expected {dtype} of rank {rank}, got {tensor.dtype} {tuple(tensor.shape)}")


def _shape(value: Any) -> tuple[int, ...]:
    """A shape of whole numbers."""
    try:
        return tuple(operator.index(n) for n in value)
    except TypeError:
        raise TypeError(f"image_shape: expected whole numbers such as (256, 256), got {value!r}") from None


def _type(value: object) -> str:
    return type(value).__name__
