"""The measurement file: a scan as HDF5. See docs/guide/measurement_file.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medrecon.acquisition.line_integrals import check_line_integrals
from medrecon.core import atomic
from medrecon.core.noise import MRINoise
from medrecon.core.on_disk import OnDisk, each
from medrecon.core.scan import Scan, moved, noise_of, within
from medrecon.core.scan_ranges import check_noise
from medrecon.core.scan_values import geometry_of, geometry_values, noise_model, noise_values
from medrecon.formats.base import Format
from medrecon.formats.common import digest, hdf5
from medrecon.formats.common.storage import check_stored
from medrecon.formats.contents import brief

FORMAT = "medrecon-measurement"
VERSIONS = (1, 2)
"""Those that are read; 2 holds cone beams, trajectories and crops, all else is still written as 1."""
Load = Callable[[Any, int, int], Tensor]
"""Gives items start..stop-1 of a dataset."""
APART = ("data", "maps", "mask")
"""What is read slice by slice, and has digests of its slices."""


class MeasurementFile(Format):
    """medrecon's own HDF5; see docs/guide/measurement_file.md."""

    name = "measurement"
    summary = "a medrecon measurement .h5, which medrecon recon takes"

    def recognises(self, path: Path) -> bool:
        """Look for medrecon's mark in an HDF5 file."""
        return hdf5.holds(path, lambda h5: {"format", "version", "image_shape"} <= set(h5.attrs))

    def info(self, path: Path) -> dict[str, Any]:
        """Return shapes, geometry, acceleration, noise and provenance."""
        scan = load_scan(path)
        found: dict[str, Any] = {
            "path": str(path),
            "kind": f"{scan.modality} measurement",
            "data": list(scan.data.shape),
            "image_shape": list(scan.image_shape),
            "units": scan.units,
        }
        if scan.modality == "ct":
            found["geometry"], found["views"] = brief(geometry_values(scan)), len(scan.rays.angles)
        if scan.mask is not None:
            sampled = max(1, int(scan.mask.sum()))
            found["coils"], found["acceleration"] = scan.data.shape[1], round(scan.mask.numel() / sampled, 3)
        noise = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in noise_values(scan).items()}
        return {**found, "noise": noise, "provenance": scan.provenance}


def save_scan(scan: Scan, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write the measurement as HDF5, whole or not at all.

    Raises:
        FileExistsError: the file exists and `overwrite` is off.
        ValueError: NaN or infinite samples, or a provenance that is not JSON.
    """
    path = Path(path)
    try:
        provenance = json.dumps(scan.provenance, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: provenance must hold JSON values only ({error})") from error
    with atomic.file(path, overwrite=overwrite) as temporary, hdf5.created(temporary) as h5:
        for name, tensor in (("data", scan.data), ("maps", scan.maps), ("mask", scan.mask)):
            if tensor is not None:
                _store(h5, name, tensor.detach(), f"{path}: {name}", scan.volumetric)
        h5["affine"] = scan.affine.numpy()
        _store_values(h5.create_group("geometry"), geometry_values(scan))
        _store_values(h5.create_group("noise"), noise_values(scan))
        h5.attrs.update(modality=scan.modality, units=scan.units, image_shape=scan.image_shape, provenance=provenance)
        h5.attrs.update(format=FORMAT, version=VERSIONS[_second(scan)])
        digest.seal(h5, APART)
    return path


def separable(path: Path) -> int:
    """Return how many slices of a file can be read, and reconstructed, each without the others; 0 if none, as of
    another file.

    Those of CT can; MRI's noise and intensity are found from all, and a cone beam crosses several.
    """
    found = 0

    def is_one(h5: Any) -> bool:
        nonlocal found
        _require_ours(h5)
        if h5.attrs.get("modality") == "ct" and np.size(h5.attrs.get("image_shape")) == 2 and "data" in h5:
            found = len(h5["data"])
        return True

    return found if hdf5.holds(path, is_one) else 0


def load_scan(path: str | Path, *, slices: tuple[int, int] | None = None, on_disk: bool = False) -> Scan:
    """Read a measurement; with `slices` = (a, b) only slices a..b-1 are read from disk.

    Args:
        on_disk: check all, one slice after the other, and leave samples and coil maps where they are: `scan.data[a:b]`
            reads slices a..b-1, and so does everything that goes through a scan slice by slice.

    Raises:
        FileNotFoundError: no such file.
        ValueError: names the file and the key: not ours, another version, truncated or damaged, changed since it was
            written, something missing, of a wrong kind, out of its physical range, or with NaN samples; links to other
            files; or slices of a cone beam.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with hdf5.opened(path) as h5:
        _require_ours(h5)
        try:
            return _scan(h5, slices, _later(path) if on_disk else _now)
        except KeyError as error:
            raise ValueError(f"not a complete measurement file: {error.args[0]}") from error
        except (OSError, RuntimeError) as error:
            raise ValueError(f"damaged, its contents cannot be read ({error}); make it again") from error
        except (TypeError, IndexError, AttributeError, OverflowError, MemoryError) as error:
            raise ValueError(f"damaged, or not written by medrecon ({error})") from error


def _scan(h5: Any, slices: tuple[int, int] | None, load: Load) -> Scan:
    image_shape, modality = _image_shape(h5.attrs["image_shape"]), h5.attrs["modality"]
    volumetric = len(image_shape) == 3
    start, stop = within(slices, len(h5["data"]), volumetric)
    geometry, noise = _load_values(h5["geometry"]), _load_values(h5["noise"])
    scan = Scan(
        modality=modality,
        data=load(_dataset(h5, "data"), start, stop),
        image_shape=image_shape,
        affine=moved(torch.from_numpy(h5["affine"][()]), start),
        units=h5.attrs["units"],
        geometry=geometry_of(modality, geometry),
        mask=_now(_dataset(h5, "mask"), start, stop) if "mask" in h5 else None,
        maps=load(_dataset(h5, "maps"), start, stop) if "maps" in h5 else None,
        noise=noise_of(noise_model(modality, noise, h5["data"].shape), start, stop),
        mu_water=float(noise["mu_water"]) if modality == "ct" and "mu_water" in noise else None,
        provenance=_provenance(h5.attrs["provenance"]),
        first=start,
    )
    for name, tensor in (("data", scan.data), ("maps", scan.maps)):
        if tensor is not None:
            _require_finite(tensor, name, start, scan.volumetric)
    if scan.mask is not None:
        _check_mask(scan.data, scan.mask)
    loaded = {"data": scan.data, "mask": scan.mask, "maps": scan.maps}
    digest.check(h5, {name: tensor for name, tensor in loaded.items() if tensor is not None}, start)
    if isinstance(scan.noise, MRINoise):
        check_noise(scan.data, scan.noise)
    if modality == "ct" and "pixel_spacing" in geometry:
        _check_spacing(geometry["pixel_spacing"], scan)
    if modality == "ct":
        check_line_integrals(scan.data, Path(h5.filename))
    return scan


def _image_shape(value: Any) -> tuple[int, ...]:
    found = np.asarray(value)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise ValueError(f"image_shape: expected whole numbers (H, W) or (Z, H, W), got {value!r} of {found.dtype}")
    return tuple(int(n) for n in found)


def _provenance(text: Any) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"provenance: expected a JSON object ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"provenance: expected a JSON object, got {type(found).__name__}")
    return found


def _check_spacing(value: Any, scan: Scan) -> None:
    """The pixel is told twice, in the affine too: where they differ one of them is wrong."""
    expected = scan.grid.spacing[-2:]
    found = np.asarray(value, dtype=float)
    if found.shape != (2,) or not np.allclose(found, expected, rtol=1e-4, atol=0):
        raise ValueError(
            f"geometry/pixel_spacing: {found.tolist()} mm (row, column), and the affine has {list(expected)}: one of "
            "them is wrong"
        )


def _require_ours(h5: Any) -> None:
    if h5.attrs.get("format") != FORMAT:
        raise ValueError(f"not a medrecon measurement (attribute 'format' is {h5.attrs.get('format')!r})")
    if (version := h5.attrs.get("version")) not in VERSIONS:
        known = " and ".join(map(str, VERSIONS))
        raise ValueError(f"attribute 'version' is {version}; this medrecon reads {known}. Update medrecon")


def _second(scan: Scan) -> bool:
    """Whether a scan holds what version 1 did not know."""
    return scan.volumetric or scan.noncartesian or scan.crop is not None


def _store(h5: Any, name: str, tensor: Tensor, place: str, views: bool) -> None:
    """One chunk per slice, so that slices can be read alone, or per view; checksums, so that damage is noticed."""
    alone, shape = 1 + views, tuple(tensor.shape)
    chunk = (1,) * alone + shape[alone:] if len(shape) > 2 else shape
    dtype = tensor[:0].cpu().numpy().dtype
    sparse = tensor.is_complex() or tensor.dtype == torch.bool  # zeros compress; noisy sinograms do not
    dataset = h5.create_dataset(name, shape, dtype, chunks=chunk, fletcher32=True, compression=1 if sparse else None)
    for z, item in enumerate(each(tensor)):
        _require_finite(item, place, z, views)
        dataset[z : z + 1] = item.cpu().resolve_conj().numpy()


def _dataset(h5: Any, name: str) -> Any:
    from h5py import Dataset

    dataset = h5[name]
    if not isinstance(dataset, Dataset):
        raise ValueError(f"{name}: expected a dataset")
    check_stored(dataset, name)
    return dataset


def _now(dataset: Any, start: int, stop: int) -> Tensor:
    """Items start..stop-1 of a dataset, or all of one that is not of slices."""
    return torch.from_numpy(dataset[()] if dataset.ndim == 2 else dataset[start:stop])


def _later(path: Path) -> Load:
    """Return what does as `_now` when items are asked for, of a file that is still the same."""
    then = _identity(path)

    def load(dataset: Any, start: int, stop: int) -> Tensor:
        name = dataset.name

        def read(first: int, end: int) -> Tensor:
            if _identity(path) != then:
                # No ValueError: that is of one slice, and the run would go on and empty all that follow.
                raise OSError(f"{path}: was changed or replaced while it was read; run it again")
            try:
                with hdf5.reopened(path) as h5:
                    return torch.from_numpy(h5[name][start + first : start + end])
            except ValueError as error:
                raise OSError(f"{path}: cannot be read any more ({error})") from error

        return OnDisk.of(read, (stop - start, *dataset.shape[1:]), torch.from_numpy(np.empty(0, dataset.dtype)).dtype)

    return load


def _identity(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _check_mask(data: Tensor, mask: Tensor) -> None:
    for z, item in enumerate(each(data)):
        if bool(torch.where(mask if mask.ndim == 2 else mask[z], 0, item).any()):
            raise ValueError("data and mask do not fit: samples outside the mask are not 0")


def _store_values(group: Any, values: dict[str, Any]) -> None:
    """Arrays become datasets; numbers, texts and lists become attributes."""
    for key, value in values.items():
        if isinstance(value, Tensor):
            group[key] = value.detach().cpu().numpy()
        else:
            group.attrs[key] = value


def _load_values(group: Any) -> dict[str, Any]:
    for name, item in group.items():
        check_stored(item, f"{group.name[1:]}/{name}")
    values: dict[str, Any] = {key: torch.from_numpy(item[()]) for key, item in group.items()}
    for key, value in group.attrs.items():
        values[key] = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
    return values


def _require_finite(tensor: Tensor, name: str, first: int, views: bool) -> None:
    for index, part in enumerate(tensor[0] if views else tensor):
        if not bool((torch.view_as_real(part) if part.is_complex() else part).isfinite().all()):
            where = f"{'view' if views else 'slice'} {first + index}"
            raise ValueError(f"{name}: NaN or infinite samples in {where}; set them to 0 and mask them")
