"""To a fastMRI file: `kspace`, `mask`, `ismrmrd_header` and, of a fully sampled scan, `reconstruction_rss`."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from medrecon.core import atomic
from medrecon.core.scan import Scan
from medrecon.core.volume import Volume
from medrecon.formats.common import hdf5
from medrecon.formats.fastmri import header as fastmri_header
from medrecon.numerics.fourier import centred_ifft


def write_fastmri(scan: Scan, path: Path, *, overwrite: bool = False, target: Volume | None = None) -> Path:
    """Write the scan as fastMRI's loader defines it; single coil without the coils' axis.

    `mask` (W,) is written when columns are missing within the measured range, which the encoding limits tell. The
    target is `target`, or the root sum of squares of a fully sampled scan, cropped. The pixel pitch is kept; position
    and orientation, coil maps and noise have no place there.

    Raises:
        FileExistsError: the file exists and `overwrite` is off.
        ValueError: not Cartesian, a mask other than of whole columns, NaN, or a target on another grid.
    """
    if scan.modality != "mri" or scan.noncartesian:
        raise ValueError(f"{path}: a fastMRI file holds Cartesian k-space, not {scan.modality} along other samples")
    columns = _columns(scan, path)
    first, last = int(columns.nonzero()[0]), int(columns.nonzero()[-1])
    full = bool(columns[first : last + 1].all())
    header = _header(scan, (last - first, scan.image_shape[1] // 2 - first))
    image = target.data if target is not None else root_sum_of_squares(scan) if full else None
    if image is not None and image.shape != (len(scan.data), *header.recon[:2]):
        raise ValueError(f"{path}: target: expected {(len(scan.data), *header.recon[:2])}, got {tuple(image.shape)}")
    kspace = scan.data if scan.data.shape[1] > 1 else scan.data[:, 0]
    with atomic.file(path, overwrite=overwrite) as temporary, hdf5.created(temporary) as h5:
        h5.create_dataset("kspace", data=kspace.cpu().numpy(), chunks=(1, *kspace.shape[1:]))
        h5["ismrmrd_header"] = fastmri_header.build(header, scan.data.shape[1])
        if not full:
            h5["mask"] = columns.numpy().astype("u1")
        if image is not None:
            h5["reconstruction_rss" if scan.data.shape[1] > 1 else "reconstruction_esc"] = image.float().cpu().numpy()
            h5.attrs.update(max=float(image.max()), norm=float(torch.linalg.vector_norm(image.double())))
        h5.attrs["acquisition"] = str(scan.provenance.get("acquisition", "unknown"))
    return path


def root_sum_of_squares(scan: Scan) -> Tensor:
    """Return (Z, h, w) of a Cartesian scan, cropped as fastMRI does: from (n - m) // 2."""
    image = centred_ifft(scan.data).abs().square().sum(1).sqrt()
    kept = scan.kspace.crop or scan.image_shape
    (top, h), (left, w) = (((n - m) // 2, m) for n, m in zip(scan.image_shape, kept, strict=True))
    return image[:, top : top + h, left : left + w]


def _columns(scan: Scan, path: Path) -> Tensor:
    """(W,) the columns that were sampled."""
    mask = scan.mask if scan.mask is not None else (scan.data != 0).any(1)
    columns: Tensor = mask.flatten(0, -2).any(0)
    if not bool((mask == columns).all()):
        raise ValueError(
            f"{path}: fastMRI's mask is of whole columns, the same in all slices, and this scan's is not; "
            f"export it as bart, or keep the measurement file"
        )
    if not bool(columns[: scan.image_shape[1] // 2 + 1].any()):
        raise ValueError(f"{path}: no column up to zero frequency was sampled, which fastMRI's limits cannot say")
    return columns


def _header(scan: Scan, limits: tuple[int, int]) -> fastmri_header.Header:
    height, width = scan.image_shape
    h, w = scan.kspace.crop or scan.image_shape
    column, row, pitch = torch.linalg.vector_norm(scan.affine[:3, :3], dim=0).tolist()
    return fastmri_header.Header(
        (height, width, 1), (height * row, width * column, pitch), (h, w, 1), (h * row, w * column, pitch), limits
    )
