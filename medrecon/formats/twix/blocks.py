"""The measurement blocks of a twix file as readouts, their noise with its own dwell time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.acquisition.kspace.readouts import Index, Readouts
from medrecon.formats.twix.header import protocol

COUNTERS = {
    "step1": "Lin",
    "step2": "Par",
    "slice": "Sli",
    "average": "Ave",
    "contrast": "Eco",
    "phase": "Phs",
    "repetition": "Rep",
    "set": "Set",
}
NOT_IMAGE = (
    "ACQEND",
    "SYNCDATA",
    "HPFEEDBACK",
    "REFPHASESTABSCAN",
    "PHASESTABSCAN",
    "MDH_VOP",
    "RETRO_DUMMYSCAN",
    "noname60",
)
FREE = {"segment": "Seg", "ida": "Ida", "idb": "Idb", "idc": "Idc", "idd": "Idd", "ide": "Ide"}


def holds_image(blocks: list[Any]) -> bool:
    """Tell whether a measurement has readouts of an image."""
    return any(b.is_image_scan() for b in blocks)


def readouts_of(measurements: list[dict[str, Any]], number: int, version: str, size: int) -> Readouts:
    """Return all readouts of a measurement, and noise readouts of another one where it has none: of the last before it,
    or the first behind it.

    Raises:
        ValueError: truncated, or no readouts.
    """
    one = measurements[number]
    ended = any(b.is_flag_set("ACQEND") for b in one["mdb"])
    blocks = [b for b in one["mdb"] if not any(b.is_flag_set(f) for f in NOT_IMAGE)]
    blocks = [b for b in blocks if not b.is_flag_set("RTFEEDBACK") or b.is_flag_set("PHASCOR")]
    if not blocks:
        raise ValueError(f"truncated: measurement {number} has no readouts")
    if (stop := max(int(b.mem_pos) + int(b.dma_len) for b in blocks)) > size:
        raise ValueError(f"truncated: its readouts go on to byte {stop}, the file has {size}; copy it again")
    if not ended and "LASTSCANINMEAS" not in blocks[-1].get_active_flags():
        raise ValueError(f"truncated: the measurement breaks off after {len(blocks)} readouts, without its end marker")
    dwell = np.full(len(blocks), one["hdr"]["MeasYaps"]["sRXSPEC"]["alDwellTime"][0] / 1e3)
    noise = np.array([b.is_flag_set("NOISEADJSCAN") for b in blocks])
    dwell[noise] = [_noise_dwell(b, version, one["hdr"]) for b in blocks if b.is_flag_set("NOISEADJSCAN")]
    for other in () if noise.any() else (*reversed(measurements[:number]), *measurements[number + 1 :]):
        own = [b for b in other["mdb"] if b.is_flag_set("NOISEADJSCAN")]
        if own and own[0].mdh.UsedChannels == blocks[0].mdh.UsedChannels:
            blocks += own
            dwell = np.append(dwell, [_noise_dwell(b, version, other["hdr"]) for b in own])
            noise = np.append(noise, np.ones(len(own), dtype=bool))
            break
    return _table(blocks, noise, dwell)


def _table(blocks: list[Any], noise: NDArray[np.bool_], dwell: NDArray[np.float64]) -> Readouts:
    heads = [b.mdh for b in blocks]
    places = [h.SliceData for h in heads]

    def flag(name: str) -> NDArray[np.bool_]:
        return np.array([b.is_flag_set(name) for b in blocks])

    def load(index: Index) -> NDArray[np.complex64]:
        return np.stack([blocks[i].data for i in index])

    def counters(names: dict[str, str]) -> dict[str, Index]:
        return {ours: np.array([getattr(h.Counter, c) for h in heads], dtype=np.int64) for ours, c in names.items()}

    return Readouts(
        counters=counters(COUNTERS),
        noise=noise,
        navigator=flag("PHASCOR"),
        calibration=flag("PATREFSCAN") & ~flag("PATREFANDIMASCAN"),
        reverse=flag("REFLECT"),
        coils=np.array([h.UsedChannels for h in heads], dtype=np.int64),
        samples=np.array([h.SamplesInScan for h in heads], dtype=np.int64),
        centre=np.array([h.CenterCol for h in heads], dtype=np.int64),
        discard=np.array([[h.CutOff.Pre, h.CutOff.Post] for h in heads], dtype=np.int64),
        dwell=dwell,
        position=np.array([[p.SlicePos.Sag, p.SlicePos.Cor, p.SlicePos.Tra] for p in places], dtype=np.float64),
        directions=np.stack([_directions(np.asarray(p.Quaternion, dtype=np.float64)) for p in places]),
        load=load,
        offcentre=np.array([h.ReadOutOffcentre for h in heads], dtype=np.float64),
        free=counters(FREE),
    )


def _directions(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Readout, phase, slice [LPS] in rows, of a unit quaternion (scalar first) that turns (phase, readout, slice).

    0 where the quaternion is 0; no rotation where it is not of unit length.
    """
    if not quaternion.any():
        return np.zeros((3, 3))
    w, x, y, z = quaternion
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    return turn.T[[1, 0, 2]]


def _noise_dwell(block: Any, version: str, header: dict[str, Any]) -> float:
    """Dwell time of a noise readout [us]: the header has that of the image only."""
    name = protocol(header)
    samples = int(block.mdh.SamplesInScan)
    if "AdjQuietCoilSens" in name:
        return 4.0
    if "AdjCoilSens" in name:
        return 5.0
    return 1e6 / samples / 130 if version == "VB" else int(76800 / samples) / 10
