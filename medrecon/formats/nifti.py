"""NIfTI in and out. A JSON file beside the image carries what NIfTI has no field for: units and modality."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medrecon import RESEARCH_USE_ONLY, __version__
from medrecon.core import atomic, checksum, place, stage
from medrecon.core.stack import Stack
from medrecon.core.volume import Modality, Units, Volume
from medrecon.formats import nifti_header, nifti_values
from medrecon.formats.base import BareImageReader, ImageWriter
from medrecon.formats.common.ours import refuse_foreign

log = logging.getLogger(__name__)

SUFFIXES = (".nii.gz", ".nii")
FIRST_VOXEL = 352
"""Of a file that has no extensions."""
UNITS: dict[Modality, Units] = {"CT": "HU", "MR": "a.u."}


class Nifti(BareImageReader, ImageWriter):
    """NIfTI-1 and -2, with a JSON file beside it."""

    name = "nifti"
    summary = "NIfTI, .nii or .nii.gz"
    images = "NIfTI .nii/.nii.gz"
    suffixes = SUFFIXES

    def recognises(self, path: Path) -> bool:
        """Look at the name."""
        return path.is_file() and path.name.lower().endswith(SUFFIXES)

    def info_as(self, path: Path, modality: Modality | None) -> dict[str, Any]:
        """Return grid, spacing, units and range."""
        volume = self.read_image(path, modality=modality)
        values = volume.data.abs() if volume.data.is_complex() else volume.data
        return {
            "path": str(path),
            "kind": "NIfTI",
            "modality": volume.modality,
            "units": volume.units,
            "shape_zyx": list(volume.data.shape),
            "spacing_xyz_mm": [round(s, 5) for s in volume.spacing],
            "range": [float(values.min()), float(values.max())],
            "affine_ras": volume.affine.tolist(),
        }

    def read_image(self, path: Path, series: str | None = None, modality: Modality | None = None) -> Volume:
        """Read a 3D image; see `_read`."""
        return _read(path, series, modality)

    def check(
        self, path: Path, source: Mapping[str, Any], *, overwrite: bool = False, template: Path | None = None
    ) -> None:
        """Look at the image and at the JSON file beside it."""
        place.refuse((path, sidecar(path)), overwrite)
        refuse_foreign(sidecar(path))

    def write_image(
        self,
        stack: Stack,
        path: Path,
        *,
        overwrite: bool = False,
        template: Path | None = None,
        description: str = "",
        beside: Mapping[Path, str] | None = None,
    ) -> Path:
        """Write float32 values, a slice at a time; see `_write`. The affine needs no `template`."""
        return _write(stack, path, overwrite, description, beside or {})


def sidecar(path: Path) -> Path:
    """scan.nii.gz -> scan.json."""
    suffix = next(s for s in SUFFIXES if path.name.lower().endswith(s))
    return path.with_name(path.name[: -len(suffix)] + ".json")


def _read(path: Path, series: str | None, modality: Modality | None) -> Volume:
    """Read a 3D image, or a 2D one as a single slice.

    NIfTI does not say what the values mean: our sidecar does, else `modality`, else they are taken as MR in a.u.

    Raises:
        ValueError: damaged, 4D, no image but labels, vectors or colours, values that single precision does not hold; or
            `series` given.
    """
    if series is not None:
        raise ValueError(f"{path}: a NIfTI file holds one image; series={series!r} is for DICOM folders")
    try:
        header, stored = nifti_header.read(path)
        slope, inter = header.get_slope_inter()
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{path}: damaged or not NIfTI ({error})") from error
    try:
        nifti_values.check_meaning(header)
        array = nifti_values.scaled(_three(stored), slope, inter)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    affine = nifti_header.voxel_to_ras(header, path)
    units, modality = _meaning(path, modality)
    if modality == "CT" and np.iscomplexobj(array):
        raise ValueError(f"{path}: complex values are not CT; write its magnitude, or read it as MR")
    log.info("%s: %s %s, %s, voxel to RAS mm", path, modality, array.shape, units)
    return Volume(torch.from_numpy(array), affine, units, modality, {"nifti": str(path)})


def _three(stored: NDArray[Any]) -> NDArray[Any]:
    """(x, y, z) of one picture or one volume.

    Raises:
        ValueError: several of them, or no numbers.
    """
    if stored.dtype.kind not in "iufc":
        raise ValueError(f"expected grey values, got {stored.dtype}")
    array = stored
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or not array.size:
        raise ValueError(f"expected a 3D image, got size {stored.shape}; take one volume of it first")
    return array.reshape(array.shape[0], array.shape[1], -1)


def _write(stack: Stack, path: Path, overwrite: bool, description: str, texts: Mapping[Path, str]) -> Path:
    """Write float32 values with sform = scanner space, and the same qform where it can hold it."""
    meaning = {
        "units": stack.units,
        "modality": stack.modality,
        "orientation": "NIfTI affine: voxel to RAS mm",
        "description": description,
        "medrecon_version": __version__,
        "use": RESEARCH_USE_ONLY,
    }
    refuse_foreign(sidecar(path))
    header = _header(stack, path)
    with atomic.files(path, sidecar(path), *texts, overwrite=overwrite) as (main, note, *others):
        _save(stack, header, main)
        meaning["image_sha256"] = checksum.of_file(main)
        note.write_text(json.dumps(meaning, indent=2) + "\n", encoding="utf-8")
        atomic.write_texts(others, texts)
    return path


def _header(stack: Stack, path: Path) -> Any:
    """The header of the stack as one file."""
    import nibabel as nib

    affine, shape = stack.affine.numpy(), stack.shape[::-1]
    header: Any = nib.Nifti1Image(np.broadcast_to(np.float32(0), shape), affine).header
    nifti_header.set_forms(header, affine, shape, stage.final(path))
    header.set_slope_inter(1, 0)
    header["descrip"] = f"medrecon {__version__} {RESEARCH_USE_ONLY}".encode()
    header["vox_offset"] = FIRST_VOXEL
    return header


def _save(stack: Stack, header: Any, path: Path) -> None:
    """Header and slices: x runs fastest in the file, as in a slice (y, x)."""
    from nibabel.openers import Opener

    with Opener(str(path), "wb") as file:
        header.write_to(file)
        for values in stack:
            file.write(values.detach().cpu().float().contiguous().numpy().astype("<f4", copy=False).tobytes())


def _meaning(path: Path, modality: Modality | None) -> tuple[Units, Modality]:
    """Units and modality: from our sidecar, else as asked, else MR.

    Raises:
        ValueError: a sidecar that is damaged, of another image, or of another modality than asked for.
    """
    beside = sidecar(path)
    if beside.is_file():
        try:
            said = json.loads(beside.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{beside}: not readable as JSON ({error}); mend or remove it") from error
        ours = isinstance(said, dict) and "medrecon_version" in said
        if ours and said.get("image_sha256") not in (None, checksum.of_file(path)):
            raise ValueError(
                f"{path}: is not the image that {beside.name} beside it was written with: one of them was changed, or "
                f"writing them was cut off. Write it again; or remove {beside.name} and say the modality"
            )
        if ours and modality not in (None, said.get("modality")):
            raise ValueError(
                f"{path}: {beside.name} beside it, which medrecon wrote with it, says {said.get('modality')} in "
                f"{said.get('units')}, and {modality} was asked for; leave the modality out, or remove {beside.name}"
            )
        if ours:
            return said.get("units"), said.get("modality")
    if modality is None:
        log.warning(
            "%s: NIfTI does not say what its values are; taken as MR; give modality='CT' (--modality ct) for CT", path
        )
        modality = "MR"
    return UNITS[modality], modality
