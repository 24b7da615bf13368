"""A measurement file that is not as it was written is refused, whatever was changed; values have a physical range."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from scans import cone, ct, mri, radial

from medrecon.core.noise import CTNoise
from medrecon.core.scan import Scan
from medrecon.formats.measurement_file import load_scan, save_scan
from medrecon.geometry import ParallelGeometry, Trajectory


def stored(path: Path) -> list[tuple[str, int, int]]:
    """(name, first byte, bytes) of what the datasets of a file hold, its digests among them."""
    places: list[tuple[str, int, int]] = []

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and item.chunks is None:
            places.append((name, item.id.get_offset(), item.nbytes))
        elif isinstance(item, h5py.Dataset):
            chunks = [item.id.get_chunk_info(i) for i in range(item.id.get_num_chunks())]
            places.extend((name, chunk.byte_offset, chunk.size) for chunk in chunks)

    with h5py.File(path) as h5:
        h5.visititems(visit)
    return places


@pytest.mark.parametrize("scan", [ct(), mri(per_slice_mask=True), radial(), cone()])
def test_a_flipped_bit_in_any_array_is_refused(tmp_path: Path, scan: Scan) -> None:
    if scan.modality == "ct":
        i0 = torch.full((1, 7, *[1] * (scan.data.ndim - 2)), 1e4, dtype=torch.float64)
        scan = replace(scan, noise=CTNoise(i0))
    path = save_scan(scan, tmp_path / "m.h5")
    whole, draw = path.read_bytes(), random.Random(0)
    places = stored(path)
    assert {"affine", "data", "sha256/data"} < {name for name, *_ in places}
    for _, start, size in places:
        damaged = bytearray(whole)
        damaged[start + draw.randrange(size)] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"m\.h5"):
            load_scan(path)


def _scale(name: str, factor: float) -> Callable[[h5py.File], None]:
    def change(h5: h5py.File) -> None:
        group, _, key = name.rpartition("/")
        if key in h5[group or "/"].attrs:
            h5[group or "/"].attrs[key] = h5[group or "/"].attrs[key] * factor
        else:
            h5[name][:3] = h5[name][:3] * factor

    return change


@pytest.mark.parametrize("name", ["affine", "geometry/angles", "geometry/det_spacing", "noise/i0", "noise/mu_water"])
def test_a_plausible_change_is_refused_too(tmp_path: Path, name: str) -> None:
    i0 = torch.full((4, 7, 1), 1e4, dtype=torch.float64)
    path = save_scan(replace(ct(), noise=CTNoise(i0)), tmp_path / "m.h5")
    with h5py.File(path, "r+") as h5:
        _scale(name, 1.01)(h5)
    for slices in (None, (1, 2)):
        with pytest.raises(ValueError, match=r"m\.h5: damaged, or changed since it was written"):
            load_scan(path, slices=slices)
    with h5py.File(path, "r+") as h5:
        del h5.attrs["sha256"]  # as of another program: taken as it is
    if name == "affine":  # the pixel is told a second time
        with pytest.raises(ValueError, match="geometry/pixel_spacing"):
            load_scan(path)
    else:
        load_scan(path)


def test_slices_are_checked_alone(tmp_path: Path) -> None:
    path = save_scan(ct(), tmp_path / "m.h5")
    with h5py.File(path, "r+") as h5:
        h5["data"][2, 3, 4] += 1
    assert torch.equal(load_scan(path, slices=(0, 2)).data, ct().data[:2])
    for slices in (None, (2, 3), (1, 4)):
        with pytest.raises(ValueError, match="data: slice 2 is damaged"):
            load_scan(path, slices=slices)


def test_virtual_data_without_their_source_are_no_zeros(tmp_path: Path) -> None:
    path = save_scan(ct(), tmp_path / "m.h5")
    with h5py.File(path, "r+") as h5:
        layout = h5py.VirtualLayout(h5["data"].shape, "f4")
        layout[...] = h5py.VirtualSource(str(tmp_path / "gone.h5"), "data", h5["data"].shape)
        del h5["data"]
        h5.create_virtual_dataset("data", layout)
    with pytest.raises(ValueError, match="data: is a virtual dataset"):
        load_scan(path)


def changed(scan: Scan, **fields: Any) -> Scan:
    return replace(scan, geometry=replace(scan.geometry, **fields))


GRID = ct().affine


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(ct(), mu_water=-0.02), "noise/mu_water: expected 1/mm > 0"),
        (lambda: replace(ct(), mu_water=0.0), "noise/mu_water: expected 1/mm > 0"),
        (lambda: replace(ct(), mu_water=float("nan")), "noise/mu_water: expected 1/mm > 0"),
        (lambda: replace(ct(), mu_water=1e5), "noise/mu_water: expected 1/mm > 0"),
        (lambda: changed(ct(), det_spacing=1e300), "geometry/det_spacing: expected .* check the units"),
        (lambda: changed(ct(), source_origin=1e300), "geometry/source_origin: 1e.300 mm is no length"),
        (lambda: changed(ct(), det_offset=-1e30), "geometry/det_offset: .* is no length"),
        (lambda: changed(cone(), heights=(1e30,) * 7), "geometry/heights: .* is no length"),
        (lambda: changed(ct(), angles=tuple(range(0, 350, 50))), "geometry/angles: 0 to 300 look like degrees"),
        (lambda: changed(ct(), angles=tuple(i * 180 / 7 for i in range(7))), "geometry/angles: .* look like degrees"),
        (lambda: changed(ct(), angles=tuple(0.5 + i * 360 / 7 for i in range(7))), "look like degrees"),
        (lambda: replace(ct(), affine=GRID * 1e300), "affine: "),
        (
            lambda: replace(ct(), affine=torch.diag(torch.tensor([1e300, 1, 1, 1], dtype=torch.float64))),
            "affine: has voxels of 1e.300",
        ),
        (
            lambda: replace(ct(), affine=torch.diag(torch.tensor([1e-9, 1, 1, 1]).double())),
            "affine: has voxels of 1e-09",
        ),
        (lambda: replace(ct(), affine=torch.full((4, 4), float("nan")).double()), "affine: is singular or not finite"),
        (lambda: replace(ct(), affine=GRID[:, [0, 1, 1, 3]]), "affine: is singular or not finite"),
        (lambda: replace(ct(), affine=GRID[[0, 1, 2, 2]]), "affine: ends in the row"),
        (lambda: changed(radial(), samples=torch.zeros(40, 2)), "trajectory: all samples are at one place"),
        (lambda: changed(radial(), density=torch.zeros(40)), "geometry/density: all weights are 0"),
        (lambda: replace(mri(), mask=torch.zeros(6, 8, dtype=torch.bool)), "mask: is false everywhere"),
    ],
)
def test_what_no_scanner_has_is_refused(make: Callable[[], Scan], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "angles",
    [
        np.arange(400) * np.pi * (3 - np.sqrt(5)),  # golden angle, added up
        np.arange(185) * np.pi * (3 - np.sqrt(5)),  # beyond 360 rad
        np.arange(3600) * 2 * np.pi / 360,  # ten turns
        np.arange(1000) * 2 * np.pi / 984,
        np.radians(np.arange(720)),
        np.tile(np.arange(7) * 0.3, 30),  # repeated
        np.arange(6.0),  # a step of 1 rad within a turn
    ],
)
def test_angles_in_radians_are_taken(angles: np.ndarray[Any, Any]) -> None:
    data = torch.zeros(1, len(angles), 9)
    scan = replace(ct(), data=data, geometry=ParallelGeometry(tuple(angles), 9, 1.5), noise=None)
    assert scan.rays.angles == tuple(angles)


def test_nanometres_and_beamlines_are_taken() -> None:
    small = GRID.clone()
    small[:3, :3] *= 5e-5 / 2
    scan = replace(ct(), affine=small, geometry=replace(ct().geometry, det_spacing=5e-5, source_origin=1.5e5))
    assert scan.grid.spacing[1] < 1e-4
    single = replace(radial(), data=radial().data[..., :1], geometry=Trajectory(torch.zeros(1, 2)))
    assert single.noncartesian
