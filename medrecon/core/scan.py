"""The measurement file: a sinogram or k-space with all a reconstruction needs. See docs/guide/measurement_file.md."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from medrecon.core import atomic
from medrecon.core.scan_kspace import check_kspace, check_sampling
from medrecon.core.scan_rays import check_photons, check_rays, check_type
from medrecon.core.volume import Units

FORMAT = "medrecon-measurement"
VERSIONS = (1, 2)
"""Those that are read; 2 holds cone beams, trajectories and crops, all else is still written as 1."""


@dataclass(frozen=True, eq=False)
class Scan:
    """A measured volume before reconstruction: slice by slice, or, of a cone beam, as a whole.

    Attributes:
        modality: "ct" or "mri".
        data: CT (Z, V, D) float32 line integrals, of a cone beam (1, V, R, D); MRI (Z, C, H, W) complex64 centred
            k-space, 0 where not sampled, or (Z, C, S), the samples along a trajectory.
        image_shape: (H, W) of the reconstruction, of a cone beam (Z, H, W).
        affine: (4, 4) float64, voxel (x, y, z) of the reconstruction, before any crop, to RAS mm.
        units: of the reconstruction: "HU" or "1/mm" (CT), "a.u." (MRI).
        geometry: CT: type "parallel", "fan" or "cone", angles (V,) rad, det_count, det_spacing mm, det_offset mm; fan
            and cone also source_origin mm and origin_detector mm, and may have detector, "flat" (default) or "arc",
            and focal_shifts. Cone: det_shape instead of det_count, this, det_spacing and det_offset (row, column);
            heights (V,) mm, of a helix. MRI: type "cartesian" (default) or "noncartesian" with trajectory (S, 2)
            cycles per field of view (row, column) and maybe density (S,), compensation weights; crop (h, w), the
            centre kept of the reconstruction. Further keys are kept.
        mask: Cartesian MRI, bool, (H, W) or (Z, H, W): where k-space was sampled.
        maps: MRI, complex64 (Z, C, H, W): coil sensitivities, when known.
        noise: the noise model's parameters; keys in docs/guide/measurement_file.md. CT: i0 is a number or (V,), (Z, V)
            or of the rank of data, each axis as long as theirs, or 1.
        provenance: where it came from, as JSON values; never patient data.

    Raises:
        ValueError: names the field, what was expected and what came.
    """

    modality: Literal["ct", "mri"]
    data: Tensor
    image_shape: tuple[int, ...]
    affine: Tensor
    units: Units
    geometry: dict[str, Any] = field(default_factory=dict)
    mask: Tensor | None = None
    maps: Tensor | None = None
    noise: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.modality not in ("ct", "mri"):
            raise ValueError(f"modality: expected 'ct' or 'mri', got {self.modality!r}")
        rank, dtype = (3, torch.float32) if self.modality == "ct" else (4, torch.complex64)
        cone = self.modality == "ct" and check_type(self.geometry) == "cone"
        along = self.modality == "mri" and check_sampling(self.geometry) == "noncartesian"
        _expect("data", self.data, dtype, [rank + cone - along])
        if len(self.image_shape) != 2 + cone or min(self.image_shape) < 1:
            raise ValueError(f"image_shape: expected {'(Z, H, W)' if cone else '(H, W)'}, got {self.image_shape}")
        if cone and len(self.data) != 1:
            raise ValueError(f"data: expected (1, V, R, D), the one scan of a cone beam, got {tuple(self.data.shape)}")
        if tuple(self.affine.shape) != (4, 4) or self.affine.dtype != torch.float64:
            raise ValueError(f"affine: expected float64 (4, 4), got {self.affine.dtype} {tuple(self.affine.shape)}")
        if self.units not in ("HU", "a.u.", "1/mm"):
            raise ValueError(f"units: unknown {self.units!r}")
        if self.modality == "ct":
            check_rays(self.geometry, tuple(self.data.shape))
            check_photons(self.noise.get("i0"), tuple(self.data.shape))
        else:
            self._check_mri()

    def _check_mri(self) -> None:
        check_kspace(self.geometry, tuple(self.data.shape), self.image_shape)
        image, stack = tuple(self.image_shape), (len(self.data), *self.image_shape)
        if self.mask is not None:
            if self.noncartesian:
                raise ValueError("mask: not for samples along a trajectory, which are all measured")
            _expect("mask", self.mask, torch.bool, [2, 3])
            if tuple(self.mask.shape) not in {image, stack}:
                raise ValueError(f"mask: expected (H, W) or (Z, H, W) as in data, got {tuple(self.mask.shape)}")
        if self.maps is not None:
            expected = (*self.data.shape[:2], *image)
            _expect("maps", self.maps, torch.complex64, [4])
            if tuple(self.maps.shape) != expected:
                raise ValueError(f"maps: expected {expected} as data and image, got {tuple(self.maps.shape)}")

    @property
    def noncartesian(self) -> bool:
        """MRI sampled along a trajectory: radial, spiral."""
        return self.geometry.get("type") == "noncartesian"

    @property
    def crop(self) -> tuple[slice, slice] | None:
        """The rows and columns of the reconstruction that are the image, the rest being oversampling; None: all."""
        kept = self.geometry.get("crop")
        if kept is None:
            return None
        starts = [n // 2 - m // 2 for n, m in zip(self.image_shape, kept, strict=True)]
        return slice(starts[0], starts[0] + kept[0]), slice(starts[1], starts[1] + kept[1])

    @property
    def volumetric(self) -> bool:
        """Measured as a whole, not slice by slice: every ray of a cone beam crosses several slices."""
        return len(self.image_shape) == 3

    @property
    def slice_count(self) -> int:
        """Z of the reconstruction."""
        return self.image_shape[0] if self.volumetric else len(self.data)

    def slices(self, start: int, stop: int) -> Scan:
        """Slices start..stop-1, with the affine moved along.

        Raises:
            ValueError: not within 0..Z, or a cone beam.
        """
        start, stop = self.within((start, stop))
        return replace(
            self,
            data=self.data[start:stop],
            affine=_moved(self.affine, start),
            noise=self.noise_of(start, stop),
            mask=self.mask[start:stop] if self.mask is not None and self.mask.ndim == 3 else self.mask,
            maps=None if self.maps is None else self.maps[start:stop],
        )

    def within(self, slices: tuple[int, int] | None) -> tuple[int, int]:
        """(start, stop) on the first axis of the data: of these slices, or all.

        Raises:
            ValueError: not within 0..Z, or slices of a cone beam.
        """
        return _within(slices, len(self.data), self.volumetric)

    def noise_of(self, start: int, stop: int) -> dict[str, Any]:
        """The noise model of start..stop-1 on the first axis of the data."""
        return _noise_of(self.noise, start, stop, len(self.data))


def save_scan(scan: Scan, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write the measurement as HDF5, whole or not at all.

    Raises:
        FileExistsError: the file exists and `overwrite` is off.
        ValueError: NaN or infinite samples, or a provenance that is not JSON.
    """
    import h5py

    path = Path(path)
    try:
        provenance = json.dumps(scan.provenance, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: provenance must hold JSON values only ({error})") from error
    with atomic.file(path, overwrite=overwrite) as temporary, h5py.File(temporary, "w") as h5:
        for name, tensor in (("data", scan.data), ("maps", scan.maps), ("mask", scan.mask)):
            if tensor is not None:
                _require_finite(tensor, f"{path}: {name}", 0, scan.volumetric)
                _store(h5, name, tensor.detach().cpu().numpy(), scan.volumetric)
        h5["affine"] = scan.affine.numpy()
        _store_values(h5.create_group("geometry"), scan.geometry)
        _store_values(h5.create_group("noise"), scan.noise)
        h5.attrs.update(modality=scan.modality, units=scan.units, image_shape=scan.image_shape, provenance=provenance)
        h5.attrs.update(format=FORMAT, version=VERSIONS[_second(scan)])
    return path


def load_scan(path: str | Path, *, slices: tuple[int, int] | None = None) -> Scan:
    """Read a measurement; with `slices` = (a, b) only slices a..b-1 are read from disk.

    Raises:
        FileNotFoundError: no such file.
        ValueError: names the file and the key: not ours, another version, truncated or damaged, something
            missing, of a wrong kind, or with NaN samples; or slices of a cone beam.
    """
    path = Path(path)
    with _opened(path) as h5:
        try:
            image_shape = tuple(int(n) for n in h5.attrs["image_shape"])
            start, stop = _within(slices, len(h5["data"]), len(image_shape) == 3)
            return Scan(
                modality=h5.attrs["modality"],
                data=_load(h5, "data", start, stop, len(image_shape) == 3),
                image_shape=image_shape,
                affine=_moved(torch.from_numpy(h5["affine"][()]), start),
                units=h5.attrs["units"],
                geometry=_load_values(h5["geometry"]),
                mask=_load(h5, "mask", start, stop) if "mask" in h5 else None,
                maps=_load(h5, "maps", start, stop) if "maps" in h5 else None,
                noise=_noise_of(_load_values(h5["noise"]), start, stop, len(h5["data"])),
                provenance=json.loads(h5.attrs["provenance"]),
            )
        except KeyError as error:
            raise ValueError(f"{path}: not a complete measurement file: {error.args[0]}") from error
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{path}: damaged, its contents cannot be read ({error}); make it again") from error
        except (ValueError, TypeError, IndexError) as error:
            raise ValueError(f"{path}: {error}") from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The HDF5 file, once it is sure that it is ours and of our version."""
    import h5py

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        h5 = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: not HDF5, or truncated ({error})") from error
    with h5:
        if h5.attrs.get("format") != FORMAT:
            raise ValueError(f"{path}: not a medrecon measurement (attribute 'format' is {h5.attrs.get('format')!r})")
        if (version := h5.attrs.get("version")) not in VERSIONS:
            known = " and ".join(map(str, VERSIONS))
            raise ValueError(f"{path}: attribute 'version' is {version}; this medrecon reads {known}. Update medrecon")
        yield h5


def _second(scan: Scan) -> bool:
    """Whether a scan holds what version 1 did not know."""
    return scan.volumetric or scan.noncartesian or scan.crop is not None


def _store(h5: Any, name: str, array: np.ndarray[Any, Any], views: bool) -> None:
    """One chunk per slice, so that slices can be read alone, or per view; checksums, so that damage is noticed."""
    alone = 1 + views
    chunk = (1,) * alone + array.shape[alone:] if array.ndim > 2 else array.shape
    sparse = np.iscomplexobj(array) or array.dtype == np.bool_  # zeros compress; noisy sinograms do not
    h5.create_dataset(name, data=array, chunks=chunk, fletcher32=True, compression=1 if sparse else None)


def _load(h5: Any, name: str, start: int, stop: int, views: bool = False) -> Tensor:
    dataset = h5[name]
    if not hasattr(dataset, "shape"):
        raise ValueError(f"{name}: expected a dataset")
    tensor = torch.from_numpy(dataset[()] if dataset.ndim == 2 else dataset[start:stop])
    _require_finite(tensor, name, start, views)
    return tensor


def _store_values(group: Any, values: dict[str, Any]) -> None:
    """Arrays become datasets; numbers, texts and lists become attributes; None is left out."""
    for key, value in values.items():
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        try:
            if isinstance(array, np.ndarray) and array.ndim:
                group[key] = array
            elif array is not None:
                group.attrs[key] = array
        except (TypeError, ValueError) as error:
            raise ValueError(f"{group.name[1:]}/{key}: {type(value).__name__} cannot be stored ({error})") from error


def _load_values(group: Any) -> dict[str, Any]:
    values: dict[str, Any] = {key: torch.from_numpy(item[()]) for key, item in group.items()}
    for key, value in group.attrs.items():
        values[key] = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
    return values


def _expect(name: str, tensor: Tensor, dtype: torch.dtype, ranks: list[int]) -> None:
    if tensor.dtype != dtype or tensor.ndim not in ranks:
        rank = " or ".join(map(str, ranks))
        raise ValueError(f"{name}: expected {dtype} of rank {rank}, got {tensor.dtype} {tuple(tensor.shape)}")


def _require_finite(tensor: Tensor, name: str, first: int, views: bool) -> None:
    for index, part in enumerate(tensor.flatten(0, 1) if views else tensor):
        if not bool((torch.view_as_real(part) if part.is_complex() else part).isfinite().all()):
            where = f"{'view' if views else 'slice'} {first + index}"
            raise ValueError(f"{name}: NaN or infinite samples in {where}; set them to 0 and mask them")


def _noise_of(noise: dict[str, Any], start: int, stop: int, count: int) -> dict[str, Any]:
    """The noise model of slices start..stop-1: an i0 of every slice is cut along."""
    i0 = noise.get("i0")
    by_slice = isinstance(i0, Tensor) and i0.ndim > 1 and len(i0) == count
    return {**noise, "i0": i0[start:stop]} if isinstance(i0, Tensor) and by_slice else noise


def _within(slices: tuple[int, int] | None, count: int, volumetric: bool) -> tuple[int, int]:
    if slices is None:
        return 0, count
    start, stop = slices
    if volumetric:
        raise ValueError(
            f"slices {start}:{stop}: a cone-beam scan measures its volume as a whole; reconstruct it, and "
            "take slices of the volume"
        )
    if not 0 <= start < stop <= count:
        raise ValueError(f"slices {start}:{stop} are not within 0:{count}")
    return start, stop


def _moved(affine: Tensor, slices: int) -> Tensor:
    moved = affine.clone()
    moved[:3, 3] += moved[:3, 2] * slices
    return moved
