"""The measurement file: round trips, lazy slices, and every way it can be wrong."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from medrecon.core.scan import Scan, load_scan, save_scan
from medrecon.pipeline.noise_level import ct_precision

AFFINE = torch.tensor([[-1.0, 0, 0.2, 5], [0, 0.9, 0, -7], [0, 0.1, 2.5, 3], [0, 0, 0, 1]], dtype=torch.float64)


def ct(fan: bool = True) -> Scan:
    geometry: dict[str, Any] = {
        "type": "fan" if fan else "parallel",
        "angles": torch.linspace(0, 6.2, 7, dtype=torch.float64),
        "det_count": 9,
        "det_spacing": 1.5,
        "det_offset": 0.25,
        "pixel_spacing": [0.9, 1.0],
    }
    if fan:
        geometry |= {"source_origin": 570.0, "origin_detector": 500.0}
    return Scan(
        modality="ct",
        data=torch.arange(4 * 7 * 9, dtype=torch.float32).reshape(4, 7, 9),
        image_shape=(12, 10),
        affine=AFFINE,
        units="HU",
        geometry=geometry,
        noise={"i0": 1e4, "sigma_e": 5.0, "model_absolute": None, "mu_water": 0.0192},
        provenance={"source": "x", "seed": 3, "inverse_crime": False, "acceleration": {"nominal": 4.0}},
    )


def mri(per_slice_mask: bool = False) -> Scan:
    generator = torch.Generator().manual_seed(1)
    data = torch.randn(3, 2, 6, 8, generator=generator, dtype=torch.complex64)
    mask = torch.rand(3, 6, 8, generator=generator) > 0.5
    return Scan(
        modality="mri",
        data=data,
        image_shape=(6, 8),
        affine=AFFINE,
        units="a.u.",
        mask=mask if per_slice_mask else mask[0],
        maps=torch.randn(3, 2, 6, 8, generator=generator, dtype=torch.complex64),
        noise={"covariance": torch.eye(2, dtype=torch.complex64) * 0.1},
    )


def assert_same(a: Scan, b: Scan) -> None:
    assert (a.modality, a.image_shape, a.units, a.provenance) == (b.modality, b.image_shape, b.units, b.provenance)
    for one, other in ((a.data, b.data), (a.affine, b.affine), (a.mask, b.mask), (a.maps, b.maps)):
        assert (one is None and other is None) or torch.equal(one, other)  # type: ignore[arg-type]
    for mine, theirs in ((a.geometry, b.geometry), (a.noise, b.noise)):
        mine = {k: v for k, v in mine.items() if v is not None}
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            if isinstance(value, torch.Tensor):
                assert value.dtype == theirs[key].dtype and torch.equal(value, theirs[key])
            else:
                assert value == theirs[key] and type(value) is type(theirs[key])


def radial() -> Scan:
    """Three slices, two coils, forty samples along a trajectory, cropped."""
    g = torch.Generator().manual_seed(1)
    trajectory = (torch.rand(40, 2, generator=g, dtype=torch.float64) - 0.5) * torch.tensor([6.0, 8.0])
    return replace(
        mri(),
        data=torch.randn(3, 2, 40, generator=g, dtype=torch.complex64),
        mask=None,
        geometry={
            "type": "noncartesian",
            "trajectory": trajectory,
            "density": torch.rand(40, generator=g),
            "crop": [4, 5],
        },
    )


@pytest.mark.parametrize("scan", [ct(), ct(fan=False), mri(), mri(per_slice_mask=True), radial()])
def test_round_trip_and_lazy_slices(tmp_path: Path, scan: Scan) -> None:
    path = save_scan(scan, tmp_path / "m.h5")
    assert_same(scan, load_scan(path))
    assert_same(scan.slices(1, 3), load_scan(path, slices=(1, 3)))
    moved = scan.slices(2, 3).affine @ torch.tensor([1.0, 2, 0, 1], dtype=torch.float64)
    torch.testing.assert_close(moved, AFFINE @ torch.tensor([1.0, 2, 2, 1], dtype=torch.float64))
    with pytest.raises(ValueError, match="slices 2:9 are not within"):
        load_scan(path, slices=(2, 9))


def test_existing_file_is_refused(tmp_path: Path) -> None:
    path = save_scan(ct(), tmp_path / "m.h5")
    with pytest.raises(FileExistsError, match="--overwrite"):
        save_scan(mri(), path)
    assert load_scan(path).modality == "ct"
    assert load_scan(save_scan(mri(), path, overwrite=True)).modality == "mri"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modality": "pet"}, "modality"),
        ({"data": torch.zeros(4, 7, 9, dtype=torch.float64)}, "data: expected torch.float32"),
        ({"data": torch.zeros(7, 9)}, "data: expected torch.float32 of rank 3"),
        ({"image_shape": (3,)}, "image_shape"),
        ({"affine": AFFINE.float()}, "affine: expected float64"),
        ({"units": "kg"}, "units"),
        ({"geometry": {}}, "geometry/type"),
        ({"geometry": {**ct().geometry, "angles": torch.zeros(3)}}, "geometry/angles: expected 7"),
        ({"geometry": {**ct().geometry, "angles": torch.full((7,), float("nan"))}}, "geometry/angles: NaN"),
        ({"geometry": {**ct().geometry, "det_count": 8}}, "geometry/det_count: expected 9"),
        ({"geometry": {**ct().geometry, "det_spacing": 0.0}}, "geometry/det_spacing"),
        (
            {"geometry": {k: v for k, v in ct().geometry.items() if k != "source_origin"}},
            "geometry/source_origin: miss",
        ),
    ],
)
def test_wrong_ct_fields_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(ct(), **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_shape": (8, 6)}, "image_shape"),
        ({"mask": torch.ones(8, 6, dtype=torch.bool)}, "mask: expected"),
        ({"mask": torch.ones(6, 8)}, "mask: expected torch.bool"),
        ({"maps": mri().data[:, :1]}, "maps: expected"),
    ],
)
def test_wrong_mri_fields_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(mri(), **change)


def _drop(name: str) -> Callable[[h5py.File], None]:
    return lambda h5: h5.__delitem__(name)


def _nan(h5: h5py.File) -> None:
    h5["data"][2, 0, 0] = np.nan


def _retype(h5: h5py.File) -> None:
    del h5["data"]
    h5["data"] = np.zeros((4, 7, 9))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop("data"), "'data'"),
        (_drop("affine"), "'affine'"),
        (_drop("geometry"), "'geometry'"),
        (_drop("geometry/angles"), "geometry/angles: missing"),
        (lambda h5: h5.attrs.__delitem__("units"), "'units'"),
        (lambda h5: h5.attrs.__setitem__("version", 3), "'version' is 3"),
        (lambda h5: h5.attrs.__setitem__("format", "other"), "not a medrecon measurement"),
        (_nan, "data: NaN or infinite samples in slice 2"),
        (_retype, "data: expected torch.float32"),
    ],
)
def test_damaged_files_name_file_and_key(tmp_path: Path, damage: Callable[[h5py.File], None], message: str) -> None:
    path = save_scan(ct(), tmp_path / "m.h5")
    with h5py.File(path, "r+") as h5:
        damage(h5)
    with pytest.raises(ValueError, match=message) as error:
        load_scan(path)
    assert str(path) in str(error.value)


def test_truncated_foreign_and_missing_files(tmp_path: Path) -> None:
    path = save_scan(ct(), tmp_path / "m.h5")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated"):
        load_scan(path)
    path.write_text("text")
    with pytest.raises(ValueError, match="not HDF5"):
        load_scan(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_scan(tmp_path / "none.h5")


def test_flipped_bits_are_noticed(tmp_path: Path) -> None:
    path = save_scan(ct(), tmp_path / "m.h5")
    raw = bytearray(path.read_bytes())
    place = raw.find(ct().data[1].numpy().tobytes())
    assert place > 0
    raw[place + 5] ^= 1
    path.write_bytes(bytes(raw))
    with pytest.raises(ValueError, match="damaged"):
        load_scan(path)


def test_bad_values_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    bad = ct().data.clone()
    bad[3, 1, 1] = float("inf")
    with pytest.raises(ValueError, match=r"m\.h5: data: NaN or infinite samples in slice 3"):
        save_scan(replace(ct(), data=bad), path)
    with pytest.raises(ValueError, match="provenance must hold JSON"):
        save_scan(replace(ct(), provenance={"x": torch.zeros(1)}), path)
    with pytest.raises(ValueError, match="noise/i0: dict cannot be stored"):
        save_scan(replace(ct(), noise={"i0": {}}), path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["views", "slices and views", "rays", "bowtie"])
def test_photons_of_each_view_round_trip(tmp_path: Path, form: str) -> None:
    scan = ct()
    z, v, d = scan.data.shape
    shape = {"views": (v,), "slices and views": (z, v), "rays": (z, v, d), "bowtie": (1, 1, d)}[form]
    i0 = 1e4 + torch.arange(float(torch.Size(shape).numel()), dtype=torch.float64).reshape(shape)
    path = save_scan(replace(scan, noise={**scan.noise, "i0": i0}), tmp_path / "scan.h5")
    back = load_scan(path)
    assert torch.equal(back.noise["i0"], i0)
    precision = ct_precision(back.data, back.noise)
    for part in (load_scan(path, slices=(1, 2)), back.slices(1, 2)):
        assert torch.equal(part.noise["i0"], i0[1:2] if shape[0] == z and len(shape) > 1 else i0)
        assert torch.equal(ct_precision(part.data, part.noise), precision[1:2])


def test_photons_of_a_wrong_shape_are_named() -> None:
    scan = ct()
    z, v, d = scan.data.shape
    for shape in ((v + 1,), (v, z), (z, v, d + 1), (d,)):
        with pytest.raises(ValueError, match="noise/i0"):
            replace(scan, noise={"i0": torch.full(shape, 1e4)})


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        ({"type": "spiral"}, "geometry/type"),
        ({"trajectory": None}, "geometry/trajectory: expected"),
        ({"trajectory": torch.zeros(39, 2)}, r"geometry/trajectory: expected \(40, 2\)"),
        ({"trajectory": torch.full((40, 2), 3.5)}, "geometry/trajectory: reaches"),
        ({"trajectory": torch.full((40, 2), float("nan"))}, "geometry/trajectory: expected real, finite"),
        ({"density": -torch.ones(40)}, "geometry/density"),
        ({"crop": [7, 8]}, "geometry/crop: expected rows and columns within"),
    ],
)
def test_wrong_trajectories_are_named(geometry: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(radial(), geometry={**radial().geometry, **geometry})
    with pytest.raises(ValueError, match="mask: not for"):
        replace(radial(), mask=torch.ones(6, 8, dtype=torch.bool))


def test_the_crop_keeps_the_middle_of_k_space_in_the_middle() -> None:
    rows, columns = radial().crop or (None, None)
    assert (rows, columns) == (slice(1, 5), slice(2, 7))  # pixels 3 and 4 of 6 x 8 become 2 and 2 of 4 x 5
