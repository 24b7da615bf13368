"""Damaged raw files, and some made to fill the memory or to take for ever: refused by name, before anything is read."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from mri_raw_files import SMALL, YAPS, dat, mrd, siemens, stack
from mri_raw_maker import Plane, Protocol, header

from medrecon.acquisition.options import RawOptions
from medrecon.formats import info, read_raw
from medrecon.formats.bart.cfl import pair
from medrecon.formats.common import storage
from medrecon.geometry import Cartesian

pytestmark = pytest.mark.usefixtures("one_thread")
PLANE = Plane(np.array([12.0, -34.0, 56.0]), blobs=((1.0, 14.0, -9.0),))


def outcome(read: Callable[[Path], Any], path: Path) -> tuple[Any, str]:
    """What was read, or None and the error."""
    try:
        return read(path), ""
    except ValueError as error:
        return None, str(error)


def test_an_ismrmrd_file_with_zeros_anywhere_is_refused_or_right(tmp_path: Path) -> None:
    """HDF5 itself never returns from some of these: the heap that holds the samples has no end."""
    pytest.importorskip("ismrmrd")
    path = mrd(tmp_path / "scan.h5", {"dataset": stack(PLANE)})
    raw, truth, stopped = path.read_bytes(), read_raw(path).data, 0
    for start in range(0, len(raw), 1024):
        path.write_bytes(raw[:start] + bytes(min(4096, len(raw) - start)) + raw[start + 4096 :])
        for read in (read_raw, info):
            found, told = outcome(read, path)
            assert str(path) in told if found is None else read is info or torch.equal(found.data, truth)
            stopped += "the heap of its arrays breaks off" in told
    assert stopped > 10


def test_samples_that_claim_more_than_the_file_holds(tmp_path: Path) -> None:
    """HDF5 takes the memory first: 16 GiB for one damaged number."""
    pytest.importorskip("ismrmrd")
    path = mrd(tmp_path / "scan.h5", {"dataset": stack(PLANE)})
    with h5py.File(path) as h5:
        table = h5["dataset/data"]
        kind = table.id.get_type()
        at = kind.get_member_offset(kind.get_member_index(b"data"))
        offset = table.id.get_chunk_info(0).byte_offset + 7 * kind.get_size() + at
    raw = bytearray(path.read_bytes())
    assert struct.unpack_from("<I", raw, offset) == (2 * 3 * 64,)
    struct.pack_into("<I", raw, offset, 2**32 - 1)
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"scan.h5: dataset/data: row 7 claims 4294967295 numbers, and the file has"):
        read_raw(path)


@pytest.mark.parametrize("matrix", [(60000, 12, 1), (64, 60000, 1), (64, 12, 60000), (60000, 60000, 60000)])
def test_a_matrix_out_of_proportion(matrix: tuple[int, int, int], tmp_path: Path) -> None:
    pytest.importorskip("ismrmrd")
    wide = Protocol(matrix, tuple(max(1.0, 0.05 * n) for n in matrix), (matrix[0] // 2, *matrix[1:]))
    made = stack(PLANE)
    for row in made[6:] if matrix[2] > 1 else []:
        row["head"]["idx"]["kspace_encode_step_2"] = 1
    path = mrd(tmp_path / "big.h5", {"dataset": made}, header(wide, centre=(6, 0)))
    with pytest.raises(ValueError, match=r"big.h5: the encoded matrix \(.*\) asks for \d+ MiB of k-space"):
        read_raw(path)


@pytest.mark.parametrize("value", ["abc", "-4", "0", "1e400", "nan"])
def test_a_matrix_that_is_none(value: str, tmp_path: Path) -> None:
    pytest.importorskip("ismrmrd")
    xml = header(SMALL).replace(b"<y>12</y>", f"<y>{value}</y>".encode())
    path = mrd(tmp_path / "bad.h5", {"dataset": stack(PLANE)}, xml)
    with pytest.raises(ValueError, match=r"bad\.h5: "):
        read_raw(path)


@pytest.mark.parametrize("chunked", [True, False], ids=["chunks", "compressed"])
def test_datasets_that_claim_more_than_the_file_holds(chunked: bool, tmp_path: Path) -> None:
    """Chunks that were never written read as zeros; compressed ones can be a thousand times their storage."""
    bomb = tmp_path / "bomb.h5"
    with h5py.File(bomb, "w") as h5:
        if chunked:
            h5.create_dataset("kspace", (10**6, 8, 64, 64), "c8", chunks=(1, 8, 64, 64))[0] = 1
        else:
            h5.create_dataset(
                "kspace", data=np.zeros((256, 4, 128, 128), "c8"), compression="gzip", chunks=(1, 4, 128, 128)
            )
    message = "slice 1 was never written" if chunked else r"128 MiB, the file holds [\d.]+ MiB"
    with pytest.raises(ValueError, match=rf"bomb.h5: kspace: .*{message}"):
        read_raw(bomb)
    if chunked:
        assert read_raw(bomb, RawOptions(slices=(0, 1), pixel=1.0)).data.shape == (1, 8, 64, 64)
    with h5py.File(tmp_path / "fine.h5", "w") as h5:
        h5.create_dataset("a", data=np.ones((3, 5)), chunks=(2, 2), compression="gzip")
        h5.create_dataset("b", data=np.zeros(0))
        h5.create_dataset("c", (3, 4), "f8")
        storage.check_stored(h5["a"], "a")
        storage.check_stored(h5["b"], "b")
        with pytest.raises(ValueError, match=r"c: .*was never written"):
            storage.check_stored(h5["c"], "c")


def test_a_text_that_claims_more_than_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "text.h5"
    with h5py.File(path, "w") as h5:
        place = h5.create_dataset("text", data="a" * 100, dtype=h5py.string_dtype())
        storage.check_text(place, "text")
        offset = place.id.get_offset()
    raw = bytearray(path.read_bytes())
    struct.pack_into("<I", raw, offset, 2**31)
    path.write_bytes(raw)
    with h5py.File(path) as h5, pytest.raises(ValueError, match="text: claims 2147483648 letters, and the file has"):
        storage.check_text(h5["text"], "text")


def broken(change: str, tmp_path: Path) -> Path:
    """A twix file, spoilt."""
    made, yaps = siemens(PLANE), YAPS
    if change == "counter":
        made[5].mdh.Counter.Lin = 65535
    if change == "array":
        yaps += "\nsSliceArray.asSlice[99999999].dThickness = 5.0"
    if change == "word":
        yaps += "\n" + "x" * 200_000
    if change == "nothing":
        made[5].mdh.UsedChannels = 0
    if change == "coils":
        made[5].mdh.UsedChannels = made[5].mdh.SamplesInScan = 65535
    path = dat(tmp_path / "scan.dat", [("gre", made)], yaps)
    raw = bytearray(path.read_bytes())
    at = raw.index(b"MeasYaps") - 1000
    if change == "header":
        start = struct.unpack_from("<Q", raw, 16)[0]
        struct.pack_into("<I", raw, start, 2**31)
    if change == "span":
        struct.pack_into("<Q", raw, 24, 2**40)
    assert at > 0
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("counter", "the counter Lin runs from 0 to 65535 with its centre at 6, and the header has 12"),
        ("array", "an array of 99999999 entries"),
        ("word", "a word or a gap of more than 4096 characters"),
        ("header", "the header of measurement 0 has 2147483648 bytes"),
        ("span", "measurement 0 goes on to byte"),
        ("coils", "its readouts go on to byte"),
        ("nothing", "has no samples of any receiver"),
    ],
)
def test_twix_that_would_take_all_memory_or_time(change: str, message: str, tmp_path: Path) -> None:
    pytest.importorskip("twixtools")
    path = broken(change, tmp_path)
    for read in (read_raw, info):
        with pytest.raises(ValueError, match=rf"scan.dat: .*{message}"):
            read(path)


def test_a_vb_file_of_zeros_ends(tmp_path: Path) -> None:
    """A block of no receivers has no length there: twixtools stays at it for ever."""
    pytest.importorskip("twixtools")
    from mri_raw_files import TURN, samples
    from mri_raw_maker import block, twix

    data = samples(PLANE, sign=+1)[0]
    kind = {"centre": 32, "lines": 12, "place": PLANE.centre, "quaternion": TURN, "ve": False}
    path = twix(tmp_path / "vb.dat", [block(data[s], s, **kind) for s in range(12)], YAPS)
    raw = path.read_bytes()
    path.write_bytes(raw[:-8000] + bytes(8000))
    with pytest.raises(ValueError, match=r"vb.dat: truncated or damaged: the block at byte \d+ has no samples"):
        read_raw(path)


@pytest.mark.parametrize(
    "shape",
    [
        "(-1, 3, 8, 8)",
        "(2, -3, -8, 8)",
        "(99999999999, 3, 8, 8)",
        "(2**70, 3)",
        "(2, 3, 8, 7)",
        "'a'",
        "(2, 3, 8, 8",
        "(True,)",
    ],
)
def test_npy_shapes_that_cannot_be(shape: str, tmp_path: Path) -> None:
    path = tmp_path / "k.npy"
    text = f"{{'descr': '<c8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(2 * 3 * 8 * 8 * 8))
    for read in (read_raw, info):
        with pytest.raises(ValueError, match=r"k\.npy: not a \.npy array of numbers, truncated or damaged"):
            read(path)


@pytest.mark.parametrize("line", ["9 " * 16, "99999999999999999999 4", "²  4", "-3 4", "4.0 4", "9" * 5000, "0 4"])
def test_bart_dimensions_that_cannot_be(line: str, tmp_path: Path) -> None:
    data, text = pair(tmp_path / "k")
    data.write_bytes(bytes(128))
    text.write_text(f"# Dimensions\n{line}\n")
    with pytest.raises(ValueError, match=r"k\.(cfl|hdr): "):
        read_raw(data)


def test_a_matlab_file_that_swells(tmp_path: Path) -> None:
    body = zlib.compress(struct.pack("<II", 14, 2**31) + bytes(1000))
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<HH", 0x0100, 0x4D49)
    path = tmp_path / "bomb.mat"
    path.write_bytes(head + struct.pack("<II", 15, len(body)) + body)
    with pytest.raises(ValueError, match=r"bomb.mat: \d+ bytes claim to be 2048 MiB"):
        read_raw(path)


def test_geometry_of_what_is_read_is_unchanged(tmp_path: Path) -> None:
    """A control: the file that the others spoil."""
    pytest.importorskip("twixtools")
    scan = read_raw(dat(tmp_path / "scan.dat", [("gre", siemens(PLANE))]))
    assert scan.data.shape == (1, 3, 32, 12) and scan.geometry == Cartesian()
