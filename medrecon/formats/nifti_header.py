"""What a NIfTI header says, checked: nibabel mends what is impossible in it without a word, and reads on.

Standard: nifti.nimh.nih.gov, nifti1.h. Lengths are mm here.
"""

from __future__ import annotations

import gzip
import logging
import math
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from numpy.typing import NDArray

from medrecon.core.volume import check_affine

log = logging.getLogger(__name__)

Affine = NDArray[np.float64]
MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""mm of the codes of length: unknown, m, mm, micron."""
SCANNER = 1
"""Code of a form that leads to the scanner's coordinates, and not to those of an atlas or another scan."""
CODES = range(6)
DEFLATED = 1032
"""Bytes that one byte of a deflate stream makes at most."""
EXACT = 1e-5
"""Distance of a voxel from its place that counts as none [mm]."""
RIGHT_ANGLED = 5e-5
"""Cosine of the angle between two axes up to which ITK takes them as orthogonal."""
APART = 0.5
"""Distance between two places of a voxel from which they are said to differ, in parts of the smallest voxel size."""


def opened(path: Path) -> BinaryIO:
    """Open a file, compressed or not, whatever its name says."""
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path, "rb")) if compressed else path.open("rb")


def read(path: Path) -> tuple[Any, NDArray[Any]]:
    """Read the header and the stored values, indices (x, y, z, ...), to the last byte, so that checksums are compared.

    Raises:
        ValueError, OSError, EOFError: damaged, cut short, or longer than its header says.
    """
    with closing(opened(path)) as stream:
        header = _header(stream)
        shape, kind = header.get_data_shape(), header.get_data_dtype()
        start, size = int(header["vox_offset"]), math.prod(shape) * kind.itemsize
        room = path.stat().st_size * (DEFLATED if isinstance(stream, gzip.GzipFile) else 1)
        if start + size > room:
            raise ValueError(f"it claims {size} bytes of voxels, {shape} of {kind}, and cannot hold them: cut short?")
        values = header.raw_data_from_fileobj(stream)
        stream.seek(start + size)
        if extra := len(stream.read(1 << 20)):
            raise ValueError(
                f"{extra} bytes or more behind the voxels {shape} of {kind}: a number in its header is wrong"
            )
    return header, values


def voxel_to_ras(header: Any, path: Path) -> torch.Tensor:
    """Return the (4, 4) affine of the scanner's coordinates [mm], by the form that SimpleITK takes too.

    The sform if it leads to the scanner or is alone, else the qform. Where they agree the sform, which has more digits.
    Without either the voxel size alone.

    Raises:
        ValueError: no form that places the voxels, or lengths in no known unit.
    """
    code = int(header["xyzt_units"]) & 7
    if code not in MM:
        raise ValueError(f"{path}: xyzt_units has no unit of length of code {code}")
    forms = {name: _form(header, name, MM[code]) for name in ("sform", "qform") if header[f"{name}_code"] > 0}
    good = {name: form for name, form in forms.items() if not isinstance(form, str)}
    if not good:
        if forms:
            raise ValueError(f"{path}: {'; '.join(f'{name}: {why}' for name, why in forms.items())}")
        log.warning("%s: no orientation (sform and qform codes are 0); left and right are not known", path)
        base = np.array(header.get_base_affine(), dtype=np.float64)
        return torch.from_numpy(np.diag([MM[code], MM[code], MM[code], 1.0]) @ base)
    for name in forms.keys() - good.keys():
        log.warning("%s: %s; the %s is taken", path, f"{name}: {forms[name]}", next(iter(good)))
    taken = next(iter(good))
    if taken == "sform":
        _compare_sizes(good["sform"], MM[code] * header["pixdim"][1:4].astype(float), path)
    if len(good) == 2:
        apart = farthest(good["sform"], good["qform"], header.get_data_shape()[:3])
        if apart > APART * float(np.linalg.norm(good["sform"][:3, :3], axis=0).min()):
            taken = "sform" if header["sform_code"] == SCANNER else "qform"
            log.warning(
                "%s: its sform (code %d) and qform (code %d) place a voxel %.3g mm apart; the %s is taken",
                path,
                header["sform_code"],
                header["qform_code"],
                apart,
                taken,
            )
    return torch.from_numpy(np.ascontiguousarray(good[taken]))


def set_forms(header: Any, affine: Affine, shape: tuple[int, ...], path: Path) -> None:
    """Write the affine [mm] of voxels (x, y, z) as sform; as qform too, code 0 unless it places every voxel the same.

    A quaternion of single precision is not exact, least of all near half a turn, and has no shear.
    """
    if _sheared(affine):
        log.warning(
            "%s: the grid is sheared (a tilted gantry?), which only an sform holds; nibabel and FSL read it, programs "
            "built on ITK (SimpleITK, 3D Slicer) do not open the file",
            path,
        )
    header.set_sform(affine, code=SCANNER)
    header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
    header.set_xyzt_units("mm")
    try:
        header.set_qform(affine, code=SCANNER)
        fits = farthest(header.get_qform(), header.get_sform(), shape) <= EXACT
    except ValueError:  # a quaternion that rounding made longer than 1
        fits = False
    if not fits:
        header.set_qform(None, code=0)
        header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))


def farthest(a: Affine, b: Affine, shape: tuple[int, ...]) -> float:
    """Return the largest distance between the places that two affines give a voxel: that of a corner."""
    last = [n - 1 for n in (*shape, 1, 1)[:3]]
    corners = np.array([[x, y, z, 1] for x in (0, last[0]) for y in (0, last[1]) for z in (0, last[2])]).T
    return float(np.linalg.norm(((a - b) @ corners)[:3], axis=0).max())


def _header(stream: BinaryIO) -> Any:
    """Read and check the header, and leave the stream behind it."""
    import nibabel as nib

    start = stream.read(4)
    stream.seek(0)
    size = {int.from_bytes(start, "little"), int.from_bytes(start, "big")}
    kind = nib.Nifti2Header if 540 in size else nib.Nifti1Header
    if not size & {348, 540}:
        raise ValueError("its first number is not 348 or 540, the length of a header")
    header: Any = kind.from_fileobj(stream, check=False)
    magic = bytes(header["magic"].item()).rstrip(b"\0")[:3]
    if magic not in (b"n+1", b"n+2"):
        raise ValueError("it is the .hdr of a pair; join it with its .img" if magic[:2] == b"ni" else "no NIfTI mark")
    rank, sizes = int(header["dim"][0]), header["dim"]
    if not 1 <= rank <= 7 or (sizes[1 : rank + 1] < 1).any():
        raise ValueError(f"dim is {sizes.tolist()}")
    bits = header.get_data_dtype().itemsize * 8
    if bits != header["bitpix"]:
        raise ValueError(f"bitpix is {header['bitpix']}, and voxels of its datatype have {bits} bits")
    least, offset = int(header.structarr.dtype.itemsize) + 4, float(header["vox_offset"])
    if not (math.isfinite(offset) and offset >= least and offset == int(offset)):
        raise ValueError(f"vox_offset is {offset:g}, not a number of bytes from {least} on")
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if math.isinf(slope) or (math.isnan(slope) and math.isfinite(inter) and inter != 0):
        raise ValueError(f"scl_slope is {slope:g} and scl_inter {inter:g}")
    for form in ("sform_code", "qform_code"):
        if int(header[form]) not in CODES:
            raise ValueError(f"{form} is {header[form]}, not 0 to 5")
    if rank < 3 and header["pixdim"][3] == 0:
        header["pixdim"][3] = 1.0  # a picture has no third size
    if header["sform_code"] == 0:  # else the sform tells the sizes
        _check_sizes(header)
    return header


def _check_sizes(header: Any) -> None:
    pixdim = header["pixdim"].astype(float)
    if pixdim[0] not in (-1, 0, 1):
        raise ValueError(f"pixdim[0], the handedness, is {pixdim[0]:g}, not 1 or -1")
    spatial = pixdim[1 : 1 + min(3, int(header["dim"][0]))]
    if not (np.isfinite(spatial).all() and (spatial > 0).all()):
        raise ValueError(f"pixdim, the voxel size, is {spatial.tolist()}")


def _form(header: Any, name: str, scale: float) -> Affine | str:
    """The affine [mm] of a form, or why it places nothing."""
    try:
        if name == "qform":
            _check_sizes(header)
        form = np.array(header.get_sform() if name == "sform" else header.get_qform(), dtype=np.float64)
        form[:3] *= scale
        check_affine(torch.from_numpy(form))
    except ValueError as error:
        return str(error).removeprefix("Volume: ")
    return form


def _compare_sizes(sform: Affine, pixdim: NDArray[np.float64], path: Path) -> None:
    """Say where the voxel size beside an sform is another one: other programs may take that."""
    sizes = np.linalg.norm(sform[:3, :3], axis=0)
    if not np.allclose(sizes, pixdim, rtol=0.01, atol=0):
        log.warning("%s: voxels of %s mm by its sform, of %s mm by its pixdim", path, sizes.round(5), pixdim.round(5))


def _sheared(affine: Affine) -> bool:
    """Whether the axes of the voxels are not at right angles, by as much as ITK refuses."""
    unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(unit.T @ unit - np.eye(3)).max() > RIGHT_ANGLED)
