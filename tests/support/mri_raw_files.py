"""Small ISMRMRD and twix files of a known phantom; what a header or a counter says can be changed."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from mri_raw_maker import COILS, Array, Plane, Protocol, block, header, twix

SMALL = Protocol((64, 12, 1), (160.0, 96.0, 5.0), (32, 12, 1))
"""32 x 12 pixels of 2.5 x 8 mm, read out twice as densely."""
YAPS = """sKSpace.lBaseResolution = 32
sKSpace.lPhaseEncodingLines = 12
sKSpace.lPartitions = 1
sKSpace.ucDimension = 2
sKSpace.ucTrajectory = 1
sSliceArray.asSlice[0].dThickness = 5.0
sSliceArray.asSlice[0].dPhaseFOV = 96.0
sSliceArray.asSlice[0].dReadoutFOV = 80.0
sRXSPEC.alDwellTime[0] = 5000"""
"""The header of SMALL for twix."""
TURN = np.array([0.8, 0.2, -0.4, 0.4])
"""A unit quaternion, scalar first."""


def rotation() -> Array:
    """Readout, phase, slice [LPS] in rows, of TURN, which turns (phase, readout, slice)."""
    w, v = TURN[0], TURN[1:]
    cross = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    turn = (w * w - v @ v) * np.eye(3) + 2 * np.outer(v, v) + 2 * w * cross
    return np.asarray(turn.T[[1, 0, 2]])


def samples(plane: Plane, protocol: Protocol = SMALL, sign: float = -1, partitions: int = 1) -> Array:
    """(partitions, lines, C, readout) complex k-space of a slice, or of a slab whose blob lies in its middle."""
    k = np.arange(protocol.matrix[0]) - protocol.matrix[0] // 2
    flat = plane.signal(k[:, None] / protocol.field_mm[0], protocol.k(1)[None], sign) * protocol.scale(len(k))
    across = np.ones(partitions)
    return np.asarray(across[:, None, None, None] * (flat.T[:, None] * COILS[:, None])[None]).astype(np.complex64)


def acquisition(
    data: Array, plane: Plane | None, flags: Iterable[int] = (), centre: int | None = None, **idx: Any
) -> Any:
    """A row of the library's own table: samples (C, S), counters by their names in the standard."""
    import ismrmrd.hdf5

    row = np.zeros(1, dtype=ismrmrd.hdf5.acquisition_dtype)[0]
    head = row["head"]
    head["version"], head["flags"] = 1, sum(1 << (flag - 1) for flag in flags)
    head["active_channels"], head["number_of_samples"] = data.shape
    head["center_sample"], head["sample_time_us"] = data.shape[1] // 2 if centre is None else centre, 5.0
    for name, value in idx.items():
        if name == "encoding_space_ref":
            head[name] = value
        elif name.startswith("user"):
            head["idx"]["user"][int(name[4:])] = value
        else:
            head["idx"][{"step1": "kspace_encode_step_1", "step2": "kspace_encode_step_2"}.get(name, name)] = value
    if plane is not None:
        head["position"] = plane.centre
        for name, axis in zip(("read_dir", "phase_dir", "slice_dir"), plane.axes, strict=True):
            head[name] = axis
    row["data"] = np.ascontiguousarray(data, dtype=np.complex64).view(np.float32).ravel()
    row["traj"] = np.zeros(0, dtype=np.float32)
    return row


def stack(plane: Plane, *, scale: float = 1.0, protocol: Protocol = SMALL, sign: float = -1, **idx: Any) -> list[Any]:
    """All lines of a slice."""
    lines = samples(plane, protocol, sign)[0]
    return [acquisition(scale * data, plane, step1=step, **idx) for step, data in enumerate(lines)]


def mrd(path: Path, groups: dict[str, Sequence[Any]], xml: bytes | None = None) -> Path:
    """An ISMRMRD file of some groups that share a header."""
    with h5py.File(path, "w") as h5:
        for name, rows in groups.items():
            group = h5.create_group(name)
            text = np.array([xml or header(SMALL)], dtype=object)
            group.create_dataset("xml", data=text, dtype=h5py.special_dtype(vlen=bytes))
            table = np.zeros(len(rows), dtype=rows[0].dtype)
            for i, row in enumerate(rows):
                table[i] = row
            group.create_dataset("data", data=table, maxshape=(None,), chunks=(max(1, len(rows)),))
    return path


def siemens(plane: Plane, scale: float = 1.0, lines: Iterable[int] | None = None, **counters: Any) -> list[Any]:
    """All lines of a slice as blocks of a twix file."""
    data = samples(plane, sign=+1)[0]
    return [
        block(scale * data[s], s, centre=32, lines=12, place=plane.centre, quaternion=TURN, **counters)
        for s in (range(12) if lines is None else lines)
    ]


def dat(path: Path, measurements: Sequence[tuple[str, Sequence[Any]]], yaps: str = YAPS) -> Path:
    """A VE file of some measurements, (protocol, blocks) each, in the place of an older one."""
    import twixtools
    from mri_raw_maker import twix_header

    path.unlink(missing_ok=True)
    if len(measurements) == 1:
        return twix(path, list(measurements[0][1]), f'tProtocolName = "{measurements[0][0]}"\n{yaps}')
    heads = [twix_header(f'tProtocolName = "{name}"\n{yaps}', "") for name, _ in measurements]
    scans = [{"mdb": list(b), "hdr_str": head, "hdr": {}} for head, (_, b) in zip(heads, measurements, strict=True)]
    twixtools.write_twix(scans, str(path))
    return path
