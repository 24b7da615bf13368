"""Write Cartesian k-space as an ISMRMRD file, for other reconstruction software."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.core import atomic
from medrecon.core.noise import MRINoise
from medrecon.core.scan import Scan
from medrecon.formats.common import hdf5

DWELL = 10.0
"""Of a sample [us], where a measurement file does not know it."""
NOISE, LAST = 19, 25
"""ISMRMRD's numbers of the flags."""


def write_ismrmrd(scan: Scan, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a Cartesian scan: every measured line of every slice an acquisition, its place in LPS, header as XML.

    `read_raw` gets data, mask, crop of the columns and noise back exactly, the affine to the float32 of the headers. A
    noise covariance becomes noise acquisitions that have just this covariance. A crop of the rows becomes readout
    oversampling, which readers remove. Coil maps and what else the format has no place for are left out.

    Raises:
        FileExistsError: the file exists and `overwrite` is off.
        ValueError: CT, samples along a trajectory, NaN samples, or lines that were not measured in one piece with zero
            frequency in or after it: the format has no mask.
        ImportError: `ismrmrd` is not installed.
    """
    path = Path(path)
    if scan.modality != "mri" or scan.noncartesian:
        raise ValueError(
            f"{path}: ISMRMRD is written of Cartesian MRI, not of {scan.modality}, {type(scan.geometry).__name__}"
        )
    if not bool(torch.view_as_real(scan.data).isfinite().all()):
        raise ValueError(f"{path}: NaN or infinite samples; set them to 0 and mask them")
    try:
        import ismrmrd.hdf5
    except ImportError as error:
        raise ImportError("writing ISMRMRD needs the package ismrmrd: pip install 'medrecon[mri]'") from error
    import h5py

    lines = _lines(scan, path)
    noise = _noise_lines(scan)
    table = np.zeros(len(noise) + len(lines), dtype=ismrmrd.hdf5.acquisition_dtype)
    for row, samples in zip(table, noise):
        _fill(row, samples, 0, 1 << (NOISE - 1))
    for row, (z, column, start, samples) in zip(table[len(noise) :], lines):
        _fill(row, samples, scan.data.shape[2] // 2 - start, 0)
        row["head"]["idx"]["kspace_encode_step_1"], row["head"]["idx"]["slice"] = column, z
        _place(row["head"], scan, z)
    table[-1]["head"]["flags"] |= np.uint64(1 << (LAST - 1))
    table["head"]["scan_counter"] = np.arange(len(table))
    with atomic.file(path, overwrite=overwrite) as temporary, hdf5.created(temporary) as h5:
        group = h5.create_group("dataset")
        group.create_dataset("xml", data=np.array([_header(scan)], dtype=object), dtype=h5py.special_dtype(vlen=bytes))
        group.create_dataset("data", data=table, maxshape=(None,), chunks=(min(len(table), 256),))
    return path


def _lines(scan: Scan, path: Path) -> list[tuple[int, int, int, NDArray[np.complex64]]]:
    """(slice, column, first row, samples (C, S)) of every measured line."""
    mask = scan.mask if scan.mask is not None else scan.data.abs().amax(1) > 0
    found = []
    for z in range(len(scan.data)):
        measured = mask if mask.ndim == 2 else mask[z]
        for column in measured.any(0).nonzero().flatten().tolist():
            rows = measured[:, column].nonzero().flatten()
            start, stop = int(rows[0]), int(rows[-1]) + 1
            if len(rows) != stop - start or start > scan.data.shape[2] // 2:
                raise ValueError(
                    f"{path}: column {column} of slice {z} was measured in pieces, or beyond zero "
                    "frequency only; ISMRMRD holds whole readouts"
                )
            found.append((z, column, start, scan.data[z, :, start:stop, column].contiguous().numpy()))
    return found


def _noise_lines(scan: Scan) -> list[NDArray[np.complex64]]:
    """Noise readouts (C, S) whose sample covariance is that of the scan: L times orthogonal rows."""
    coils = scan.data.shape[1]
    if not isinstance(scan.noise, MRINoise):
        return []
    known = scan.noise.covariance
    covariance = known if isinstance(known, Tensor) else known**2 * torch.eye(coils)
    samples = max(256, 4 * coils)
    factor = torch.linalg.cholesky(covariance.to(torch.complex128))
    waves = torch.fft.fft(torch.eye(samples, dtype=torch.complex128))[:coils]  # rows of norm sqrt(samples)
    return [(factor @ waves).to(torch.complex64).numpy()]


def _fill(row: Any, samples: NDArray[np.complex64], centre: int, flags: int) -> None:
    head = row["head"]
    head["version"], head["flags"] = 1, flags
    head["number_of_samples"], head["center_sample"] = samples.shape[1], centre
    head["available_channels"] = head["active_channels"] = samples.shape[0]
    head["sample_time_us"] = DWELL
    row["data"], row["traj"] = np.ascontiguousarray(samples).view(np.float32).ravel(), np.zeros(0, dtype=np.float32)


def _place(head: Any, scan: Scan, z: int) -> None:
    """Centre of the slice and its directions, RAS to LPS."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ scan.affine.numpy()
    height, width = scan.data.shape[2:]
    head["position"] = (affine @ [width // 2, height // 2, z, 1])[:3]
    for name, axis in (("phase_dir", 0), ("read_dir", 1), ("slice_dir", 2)):
        head[name] = affine[:3, axis] / np.linalg.norm(affine[:3, axis])


def _header(scan: Scan) -> bytes:
    from ismrmrd import xsd

    slices, coils, height, width = scan.data.shape
    column, row, thick = (float(v) for v in torch.linalg.vector_norm(scan.affine[:3, :3], dim=0))
    kept = scan.kspace.crop or (height, width)
    limits = xsd.encodingLimitsType(
        kspace_encoding_step_0=_limit(height, height // 2),
        kspace_encoding_step_1=_limit(width, width // 2),
        kspace_encoding_step_2=_limit(1, 0),
        slice=_limit(slices, 0),
    )
    encoding = xsd.encodingType(
        encodedSpace=_space(height, width, height * row, width * column, thick),
        reconSpace=_space(kept[0], kept[1], kept[0] * row, kept[1] * column, thick),
        encodingLimits=limits,
        trajectory=xsd.trajectoryType.CARTESIAN,
    )
    header = xsd.ismrmrdHeader(
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=0),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            systemVendor="medrecon", receiverChannels=coils, relativeReceiverNoiseBandwidth=1.0
        ),
        encoding=[encoding],
    )
    text: str = xsd.ToXML(header)
    return text.encode()


def _limit(count: int, centre: int) -> Any:
    from ismrmrd import xsd

    return xsd.limitType(minimum=0, maximum=count - 1, center=centre)


def _space(rows: int, columns: int, height: float, width: float, thick: float) -> Any:
    from ismrmrd import xsd

    return xsd.encodingSpaceType(
        matrixSize=xsd.matrixSizeType(x=rows, y=columns, z=1),
        fieldOfView_mm=xsd.fieldOfViewMm(x=height, y=width, z=thick),
    )
