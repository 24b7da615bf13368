"""The law over k-space without readouts, fastMRI, .npy and BART: a phantom that is a closed form, written by h5py and
NumPy in any layout that a file may have, comes back at its value and place, or is refused by name.

The grids have 69 120 combinations for fastMRI, 2016 for .npy and 2592 for BART; a seeded part of them is drawn.
"""

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from examples import examples
from mri_raw_maker import COILS, Plane

from medrecon.acquisition.options import RawOptions
from medrecon.core.scan import Scan
from medrecon.formats import read_raw

pytestmark = pytest.mark.usefixtures("one_thread")
BLOB = (1.0, 9.0, -14.0)
PLANE = Plane(np.zeros(3), blobs=(BLOB,))
COLUMNS = 22
FASTMRI: dict[str, tuple[Any, ...]] = {
    "dtype": ("<c8", ">c8", "<c16", "real", "halves"),
    "coils": (0, 1, 3),  # 0: no axis
    "slices": (1, 3),
    "rows": (32, 33),
    "header": (None, "same", "cropped", "reduced"),
    "stored": ("bytes", "text", "list"),
    "padding": (0, 3),
    "mask": (None, "u1", "i8", "?", "f4", "twice", "nan", "short"),
    "chunks": (None, "slices", "gzip"),
    "scale": (1e-5, 1e16),
}
NPY: dict[str, tuple[Any, ...]] = {
    "dtype": ("<c8", ">c8", "<c16", ">c16", "real", "pairs", "int"),
    "coils": (1, 3, "last"),
    "slices": (0, 1, 3),  # 0: no axis
    "rows": (32, 33),
    "order": ("C", "F"),
    "left_out": (None, "columns"),
    "scale": (1.0, 1e-5, 1e-20, 1e16),
}
BART: dict[str, tuple[Any, ...]] = {
    "coils": (1, 3),
    "slices": (1, 3, "cube"),
    "rows": (32, 33),
    "dims": ("16", "least", "time", "maps", "first", "reversed"),
    "header": (None, "more", "dos"),
    "name": (".cfl", ".hdr"),
    "left_out": (None, "columns"),
    "scale": (1e-5, 1e-20, 1e16),
}


def draw(grid: dict[str, tuple[Any, ...]], seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: values[rng.integers(len(values))] for name, values in grid.items()}


def truth(made: dict[str, Any], pixel: tuple[float, float], columns: range = range(COLUMNS)) -> np.ndarray:
    """(Z, C, H, W) of a stack whose slices grow brighter; 0 outside the columns."""
    rows, coils = made["rows"], made["coils"] if made["coils"] in (1, 3) else 1 if made["coils"] == 0 else 3
    (k, kx) = ((np.arange(n) - n // 2) / (n * mm) for n, mm in zip((rows, COLUMNS), pixel))
    flat = PLANE.signal(k[:, None], kx[None]) / (pixel[0] * pixel[1] * np.sqrt(rows * COLUMNS))
    flat[:, [i for i in range(COLUMNS) if i not in columns]] = 0
    slices = 1 + np.arange(4 if made["slices"] == "cube" else made["slices"] or 1)
    return np.asarray(slices[:, None, None, None] * COILS[:coils, None, None] * flat) * made["scale"]


def check(scan: Scan, wanted: np.ndarray, pixel: tuple[float, float], pitch: float, case: object) -> None:
    """Samples and mask; and where a Gaussian blob of the image lies in the room."""
    assert scan.data.shape == wanted.shape, case
    assert np.abs(scan.data.numpy() - wanted).max() <= 1e-6 * np.abs(wanted).max(), case
    mask = np.broadcast_to(scan.mask.numpy(), wanted[:, 0].shape)
    assert np.array_equal(mask, (wanted != 0).any(1)), case
    z = len(wanted) // 2
    k = np.fft.ifftshift(scan.data[z, 0].numpy())
    image = np.abs(np.fft.fftshift(np.fft.ifft2(k, norm="ortho"))) ** 2
    places = [float((image.sum(1 - a) * np.arange(image.shape[a])).sum() / image.sum()) for a in (0, 1)]
    where = scan.affine.numpy() @ [places[1], places[0], z, 1]
    blurred = (wanted[0, 0] == 0).any()  # columns are missing: a blob is wider, and its middle less sure
    middle = 2 if len(wanted) == 4 else (len(wanted) - 1) / 2  # of a slab partition n // 2, of a stack its middle
    assert np.allclose(where[:3], [-BLOB[2], -BLOB[1], pitch * (z - middle)], atol=2.0 if blurred else 0.05), case
    assert np.allclose(np.abs(scan.affine[:3, :3].numpy()), np.diag([pixel[1], pixel[0], pitch])), case


def refused(path: Path, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(path.stem) + f".*({message})"):
        read_raw(path)


def header_of(made: dict[str, Any], pixel: tuple[float, float]) -> str:
    """Of a k-space with padding; "reduced": as encoded, twice as long, before the oversampling was removed."""
    rows, over = made["rows"], 2 if made["header"] == "reduced" else 1
    kept = (rows - 8, COLUMNS - 6) if made["header"] == "cropped" else (rows, COLUMNS)
    last, centre = COLUMNS - 2 * made["padding"] - 1, COLUMNS // 2 - made["padding"]

    def space(name: str, x: float, y: float) -> str:
        field = f"<x>{x * pixel[0]}</x><y>{y * pixel[1]}</y><z>4.5</z>"
        size = f"<x>{x}</x><y>{y}</y><z>1</z>"
        return f"<{name}><matrixSize>{size}</matrixSize><fieldOfView_mm>{field}</fieldOfView_mm></{name}>"

    limits = f"<minimum>0</minimum><maximum>{last}</maximum><center>{centre}</center>"
    return (
        '<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>'
        + space("encodedSpace", over * rows, COLUMNS)
        + space("reconSpace", *kept)
        + f"<encodingLimits><kspace_encoding_step_1>{limits}</kspace_encoding_step_1></encodingLimits>"
        + "</encoding></ismrmrdHeader>"
    )


def sampling(made: dict[str, Any]) -> tuple[np.ndarray | None, np.ndarray]:
    """What is in the file, and the columns that it means."""
    columns = np.arange(COLUMNS) % 3 > 0
    columns[8:14] = True
    kind = made["mask"]
    if kind is None:
        return None, np.ones(COLUMNS, bool)
    stored = columns.astype(kind if kind in ("u1", "i8", "?", "f4") else "f4")
    if kind in ("twice", "nan"):
        stored[9] = {"twice": 0.5, "nan": np.nan}[kind]
    return stored[1:] if kind == "short" else stored, columns


def fastmri(path: Path, made: dict[str, Any], kspace: np.ndarray, pixel: tuple[float, float]) -> Path:
    stored = {"real": kspace.real, "halves": np.stack([kspace.real, kspace.imag], -1).astype("f4")}.get(made["dtype"])
    stored = kspace.astype(made["dtype"]) if stored is None else stored
    stored = stored[:, 0] if made["coils"] == 0 else stored
    how: dict[str, Any] = {} if made["chunks"] is None else {"chunks": (1, *stored.shape[1:])}
    with h5py.File(path, "w") as h5:
        h5.create_dataset("kspace", data=stored, **how, **({"compression": "gzip"} if made["chunks"] == "gzip" else {}))
        if (mask := sampling(made)[0]) is not None:
            h5["mask"] = mask
        if made["header"]:
            text = header_of(made, pixel)
            kinds = {"bytes": text.encode(), "text": text, "list": np.array([text], dtype=h5py.string_dtype())}
            h5["ismrmrd_header"] = kinds[made["stored"]]
    return path


@pytest.mark.parametrize("part", range(2))
def test_fastmri(part: int, tmp_path: Path) -> None:
    for seed in range(part, examples(96), 2):
        made = draw(FASTMRI, seed)
        pixel = (2.5, 4.0) if made["header"] else (3.0, 3.0)
        inside = range(made["padding"], COLUMNS - made["padding"])
        kspace = truth(made, pixel, inside)
        path = fastmri(tmp_path / f"{seed}.h5", made, kspace, pixel)
        why = {"real": "complex", "halves": "complex"}.get(made["dtype"]) or (made["scale"] > 1 and "multiply all by")
        why = why or {"twice": "mask: expected 0 and 1", "nan": "mask: ", "short": "mask: expected"}.get(made["mask"])
        if why:
            refused(path, why)
            continue
        scan = read_raw(path, RawOptions(pixel=None if made["header"] else 3.0))
        pitch = 4.5 if made["header"] else 3.0
        check(scan, kspace * sampling(made)[1], pixel, pitch, made)
        size = (made["rows"], COLUMNS)
        assert (scan.kspace.crop or size) == ((size[0] - 8, size[1] - 6) if made["header"] == "cropped" else size)


@pytest.mark.parametrize("part", range(2))
def test_npy(part: int, tmp_path: Path) -> None:
    for seed in range(part, examples(96), 2):
        made = draw(NPY, seed)
        kspace = truth(made, (3.0, 3.0), range(4 if made["left_out"] else 0, COLUMNS))
        stored = kspace if made["slices"] else kspace[0]
        stored = np.moveaxis(stored, -3, -1) if made["coils"] == "last" else stored
        kinds = {
            "real": stored.real.astype("f4"),
            "pairs": np.stack([stored.real, stored.imag], -1),
            "int": (stored.real * 1000 / np.abs(kspace).max()).astype("i4"),
        }
        stored = kinds[made["dtype"]] if made["dtype"] in kinds else stored.astype(made["dtype"])
        path = tmp_path / f"{seed}.npy"
        np.save(path, np.array(stored, order=made["order"]))
        why = "expected complex k-space" if made["dtype"] in kinds else None
        why = why or ("multiply all by" if made["scale"] in (1e-20, 1e16) else None)
        if why := why or ("axis" if made["coils"] == "last" else None):
            refused(path, why)
        else:
            check(read_raw(path, RawOptions(pixel=3.0)), kspace, (3.0, 3.0), 3.0, made)


def cfl(path: Path, made: dict[str, Any], kspace: np.ndarray) -> None:
    """A pair of files as BART has them: the first axis the fastest, its sizes as text."""
    if made["slices"] == "cube":  # along PHS2, by the definition of the transform
        n = np.arange(4) - 2
        kspace = np.tensordot(np.exp(-2j * np.pi * np.outer(n, n) / 4) / 2, kspace, 1)
    slices, coils, rows, columns = kspace.shape
    cube = slices if made["slices"] == "cube" else 1
    sizes = [rows, columns, cube, coils, *[1] * 9, slices if cube == 1 else 1, 1, 1]
    stored = kspace.transpose(2, 3, 0, 1) if cube > 1 else kspace.transpose(2, 3, 1, 0)
    if made["dims"] == "first":
        sizes = [1, rows, columns, coils, *[1] * 9, slices, 1, 1]
        stored = kspace.transpose(2, 3, 1, 0)
    elif made["dims"] == "reversed":
        sizes, stored = [slices, coils, rows, columns, *[1] * 12], kspace
    elif made["dims"] in ("time", "maps"):
        axis = {"time": 10, "maps": 4}[made["dims"]]
        sizes[axis] = 2
        stored = np.concatenate([stored.flatten(order="F")] * 2)
    path.with_suffix(".cfl").write_bytes(stored.astype("<c8").flatten(order="F").tobytes())
    text = sizes if made["dims"] != "least" else sizes[: 1 + max(i for i, n in enumerate(sizes) if n > 1)]
    lines = ["# Dimensions", " ".join(map(str, text)) + " "]
    lines += ["# Command", "fft -u 7 a b ", "# Files", " >b <a", "# Creator", "BART v0.8"] if made["header"] else []
    end = "\r\n" if made["header"] == "dos" else "\n"
    path.with_suffix(".hdr").write_bytes((end.join(lines) + end).encode())


@pytest.mark.parametrize("part", range(2))
def test_bart(part: int, tmp_path: Path) -> None:
    for seed in range(part, examples(96), 2):
        made = draw(BART, seed)
        kspace = truth(made, (3.0, 3.0), range(4 if made["left_out"] else 0, COLUMNS))
        path = tmp_path / f"{seed}{made['name']}"
        cfl(path, made, kspace)
        why = {"time": "one image a slice", "maps": "one image a slice", "first": "READ 1"}.get(made["dims"])
        why = why or (made["dims"] == "reversed" and "READ 1|samples; |READ and along PHS2|multiply all by")
        if why := why or (made["scale"] in (1e-20, 1e16) and "multiply all by"):
            refused(path, why)
        else:
            check(read_raw(path, RawOptions(pixel=3.0)), kspace, (3.0, 3.0), 3.0, made)


def test_the_grids_are_as_large_as_they_say() -> None:
    sizes = [int(np.prod([len(v) for v in grid.values()])) for grid in (FASTMRI, NPY, BART)]
    assert all(f"{size} " in (__doc__ or "").replace("69 120", "69120") for size in sizes), sizes
    for grid in (FASTMRI, NPY, BART):
        drawn = [draw(grid, seed) for seed in range(96)]
        for name, values in grid.items():
            assert all(sum(d[name] == v for d in drawn) > 96 / len(values) / 3 for v in values), name
