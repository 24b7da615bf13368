"""The measurement file: round trips, lazy slices, and every way it can be wrong."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from scans import AFFINE, cone, ct, mri, radial

from medrecon.core.noise import CTNoise, MRINoise
from medrecon.core.scan import Scan
from medrecon.core.scan_values import geometry_values, noise_values
from medrecon.core.volume import Units
from medrecon.formats.measurement_file import load_scan, save_scan
from medrecon.geometry import Cartesian, ConeGeometry, FanGeometry, ParallelGeometry, Trajectory


def assert_same(a: Scan, b: Scan) -> None:
    assert (a.modality, a.image_shape, a.units, a.provenance) == (b.modality, b.image_shape, b.units, b.provenance)
    for one, other in ((a.data, b.data), (a.affine, b.affine), (a.mask, b.mask), (a.maps, b.maps)):
        assert (one is None and other is None) or torch.equal(one, other)  # type: ignore[arg-type]
    for values in (geometry_values, noise_values):
        mine, theirs = values(a), values(b)
        assert list(mine) == list(theirs)
        for key, value in mine.items():
            if isinstance(value, torch.Tensor):
                assert value.dtype == theirs[key].dtype and torch.equal(value, theirs[key])
            else:
                assert value == theirs[key] and type(value) is type(theirs[key])


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


def _drop(name: str) -> Callable[[h5py.File], None]:
    return lambda h5: h5.__delitem__(name)


def _set(name: str, array: np.ndarray[Any, Any]) -> Callable[[h5py.File], None]:
    def change(h5: h5py.File) -> None:
        group, key = name.split("/")
        for kept in (h5[group], h5[group].attrs):
            if key in kept:
                del kept[key]
        h5[name] = array

    return change


def _attribute(group: str, key: str, value: object) -> Callable[[h5py.File], None]:
    def change(h5: h5py.File) -> None:
        if key in h5[group].attrs:
            del h5[group].attrs[key]
        if value is not None:
            h5[group].attrs[key] = value

    return change


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
        (_set("geometry/angles", np.full(7, np.nan)), "geometry/angles: NaN or infinite angles"),
        (_set("geometry/angles", np.zeros(6)), "geometry/angles: expected 7, one per view, got 6"),
        (_attribute("geometry", "type", "spiral"), "geometry/type: expected 'parallel', 'fan' or 'cone', got 'spiral'"),
        (_attribute("geometry", "type", None), "geometry/type: expected .* got None"),
        (_attribute("geometry", "det_count", 8), "geometry/det_count: expected 9 as in data, got 8"),
        (_attribute("geometry", "det_offset", None), "geometry/det_offset: missing"),
        (_attribute("geometry", "det_spacing", 0.0), "geometry/det_spacing: expected mm > 0"),
        (_attribute("geometry", "det_spacing", [1.0, 2.0]), "geometry/det_spacing: expected one number, got"),
        (_attribute("geometry", "source_origin", None), "geometry/source_origin: missing"),
        (_attribute("geometry", "source_origin", "far"), "not supported between"),
        (_attribute("geometry", "detector", "curved"), "geometry/detector: expected 'flat' or 'arc', got 'curved'"),
        (_set("noise/i0", np.zeros(7)), "noise/i0: expected a positive number of photons, got .* values that are not"),
        (_set("noise/i0", np.ones(9)), r"noise/i0: expected a number, \(7,\), \(4, 7\) or \(4, 7, 9\), got \(9,\)"),
        (_set("noise/i0", np.ones((7, 4))), r"noise/i0: expected .*, got \(7, 4\)"),
        (_set("noise/i0", np.ones((4, 7, 8))), r"noise/i0: expected .*, got \(4, 7, 8\)"),
        (_attribute("noise", "sigma_e", -1.0), "noise/sigma_e: expected a number >= 0, got -1.0"),
        (_attribute("noise", "mu_water", -1.0), "noise/mu_water: expected 1/mm > 0"),
        (lambda h5: h5.attrs.__setitem__("modality", "pet"), "modality: expected 'ct' or 'mri', got 'pet'"),
        (lambda h5: h5.attrs.__delitem__("units"), "'units'"),
        (lambda h5: h5.attrs.__setitem__("version", 3), "'version' is 3"),
        (lambda h5: h5.attrs.__setitem__("format", "other"), "not a medrecon measurement"),
        (_attribute("geometry", "det_count", 9.0), "geometry/det_count: expected whole numbers of elements"),
        (_attribute("/", "image_shape", [12.0, 10.0]), "image_shape: expected whole numbers .* of float64"),
        (_attribute("/", "image_shape", [12.5, 10]), "image_shape: expected whole numbers"),
        (_attribute("/", "image_shape", 12), "image_shape: expected whole numbers"),
        (_attribute("/", "provenance", "[1]"), "provenance: expected a JSON object, got list"),
        (_attribute("/", "provenance", "{"), "provenance: expected a JSON object"),
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
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_set("geometry/trajectory", np.zeros((39, 2))), r"geometry/density: expected \(39,\) .* one per sample"),
        (_set("geometry/trajectory", np.full((40, 2), np.nan)), "geometry/trajectory: expected real, finite"),
        (_set("geometry/trajectory", np.full((40, 2), 3.5)), "geometry/trajectory: reaches"),
        (_drop("geometry/trajectory"), "geometry/trajectory: missing"),
        (_set("geometry/density", -np.ones(40)), "geometry/density: expected"),
        (_attribute("geometry", "crop", [7, 8]), "geometry/crop: expected rows and columns within"),
        (_attribute("geometry", "crop", 4), "geometry/crop: expected rows and columns, got 4"),
        (_attribute("geometry", "type", "spiral"), "geometry/type: expected 'cartesian' or 'noncartesian'"),
        (_set("noise/covariance", -np.eye(2)), "noise/covariance: not positive definite"),
        (_set("noise/covariance", np.eye(3)), r"noise/covariance: expected \(2, 2\)"),
    ],
)
def test_damaged_kspace_files_name_file_and_key(
    tmp_path: Path, damage: Callable[[h5py.File], None], message: str
) -> None:
    path = save_scan(radial(), tmp_path / "m.h5")
    with h5py.File(path, "r+") as h5:
        damage(h5)
    with pytest.raises(ValueError, match=message) as error:
        load_scan(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("form", ["views", "slices and views", "rays", "bowtie"])
def test_photons_are_written_as_short_as_they_are(tmp_path: Path, form: str) -> None:
    """(V,) and (Z, V) in the file, whose readers know which axis that is; of the rank of the data in a scan."""
    scan = replace(ct(), data=ct().data / 100)
    z, v, d = scan.data.shape
    short = {"views": (v,), "slices and views": (z, v), "rays": (z, v, d), "bowtie": (1, 1, d)}[form]
    whole = {"views": (1, v, 1), "slices and views": (z, v, 1), "rays": (z, v, d), "bowtie": (1, 1, d)}[form]
    i0 = 1e4 + torch.arange(float(torch.Size(short).numel()), dtype=torch.float64)
    path = save_scan(replace(scan, noise=CTNoise(i0.reshape(whole))), tmp_path / "scan.h5")
    with h5py.File(path) as h5:
        assert h5["noise/i0"].shape == short
    back, part = load_scan(path), load_scan(path, slices=(1, 2))
    assert isinstance(back.noise, CTNoise) and isinstance(part.noise, CTNoise)
    assert isinstance(back.noise.i0, torch.Tensor) and torch.equal(back.noise.i0, i0.reshape(whole))
    assert torch.equal(part.noise.precision(part.data), back.noise.precision(back.data)[1:2])
    assert_same(scan.slices(1, 2), replace(part, noise=scan.noise))


def written(path: Path, root: dict[str, Any], groups: dict[str, dict[str, Any]]) -> Path:
    """A file of docs/guide/measurement_file.md, key by key: arrays are datasets, all else attributes."""
    with h5py.File(path, "w") as h5:
        for name, values in {"/": {"format": "medrecon-measurement", **root}, **groups}.items():
            group = h5.require_group(name)
            for key, value in values.items():
                if isinstance(value, np.ndarray):
                    group[key] = value
                else:
                    group.attrs[key] = value
    return path


CT_ROOT = {
    "version": 1,
    "modality": "ct",
    "units": "HU",
    "image_shape": (12, 10),
    "provenance": "{}",
    "affine": np.eye(4),
}
FAN = {"type": "fan", "angles": np.linspace(0, 6, 7), "det_count": 9, "det_spacing": 1.5, "det_offset": 0.25}
FAN |= {"source_origin": 570.0, "origin_detector": 500.0, "pixel_spacing": [1.0, 1.0], "bed": "carbon"}


def test_an_old_fan_beam_is_read(tmp_path: Path) -> None:
    """Version 1, without `detector`, with numbers as integers and with an attribute that nothing knows."""
    data = np.random.default_rng(0).random((4, 7, 9)).astype(np.float32)
    i0 = np.linspace(1e4, 2e4, 28).reshape(4, 7)
    noise = {"i0": i0, "sigma_e": 5, "model_absolute": 0.01, "mu_water": 0.02}
    path = written(tmp_path / "old.h5", {**CT_ROOT, "data": data}, {"geometry": FAN, "noise": noise})
    scan = load_scan(path)
    assert scan.geometry == FanGeometry(tuple(np.linspace(0, 6, 7)), 9, 1.5, 570.0, 500.0, 0.25)
    assert np.array_equal(scan.data.numpy(), data) and scan.mu_water == 0.02 and isinstance(scan.noise, CTNoise)
    assert isinstance(scan.noise.i0, torch.Tensor) and np.array_equal(scan.noise.i0[..., 0].numpy(), i0)
    assert (scan.noise.sigma_e, scan.noise.model_absolute, scan.noise.model_relative) == (5.0, 0.01, 0.002)


def test_an_old_parallel_beam_without_noise_is_read(tmp_path: Path) -> None:
    own = ("angles", "det_count", "det_spacing", "det_offset")
    rays = {"type": "parallel", **{key: FAN[key] for key in own}}
    root = {**CT_ROOT, "units": "1/mm", "data": np.zeros((4, 7, 9), np.float32)}
    scan = load_scan(written(tmp_path / "old.h5", root, {"geometry": rays, "noise": {}}))
    assert scan.geometry == ParallelGeometry(tuple(np.linspace(0, 6, 7)), 9, 1.5, 0.25)
    assert scan.noise is None and scan.mu_water is None and scan.units == "1/mm"


def test_an_old_scan_of_unknown_photons_keeps_what_is_known(tmp_path: Path) -> None:
    root = {**CT_ROOT, "data": np.zeros((4, 7, 9), np.float32)}
    noise = {"model_absolute": 0.0, "mu_water": 0.021}
    scan = load_scan(written(tmp_path / "old.h5", root, {"geometry": FAN, "noise": noise}))
    assert isinstance(scan.noise, CTNoise) and scan.noise.i0 is None and scan.noise.model_absolute == 0
    assert noise_values(load_scan(save_scan(scan, tmp_path / "new.h5"))) == {
        "sigma_e": 0.0,
        "model_absolute": 0.0,
        "model_relative": 0.002,
        "mu_water": 0.021,
    }


def test_an_old_cone_beam_is_read(tmp_path: Path) -> None:
    """Version 2: pairs as attributes, heights and focal shifts as datasets."""
    shifts = np.array([[0.001, 0.0, 0.5]] * 7)
    rays = {**FAN, "type": "cone", "det_shape": [4, 9], "det_spacing": [2.0, 1.5], "det_offset": [0.5, 0.25]}
    rays |= {"detector": "arc", "heights": np.arange(7.0), "focal_shifts": shifts}
    del rays["det_count"]
    root = {**CT_ROOT, "version": 2, "image_shape": (5, 6, 7), "data": np.zeros((1, 7, 4, 9), np.float32)}
    scan = load_scan(written(tmp_path / "old.h5", root, {"geometry": rays, "noise": {"i0": np.full(7, 1e4)}}))
    assert scan.geometry == ConeGeometry(
        tuple(np.linspace(0, 6, 7)),
        (4, 9),
        (2.0, 1.5),
        570.0,
        500.0,
        tuple(np.arange(7.0)),
        (0.5, 0.25),
        "arc",
        tuple(map(tuple, shifts)),
    )
    assert isinstance(scan.noise, CTNoise) and torch.as_tensor(scan.noise.i0).shape == (1, 7, 1, 1)


MRI_ROOT = {
    "version": 1,
    "modality": "mri",
    "units": "a.u.",
    "image_shape": (6, 8),
    "provenance": "{}",
    "affine": np.eye(4),
}


@pytest.mark.parametrize("geometry", [{}, {"type": "cartesian"}, {"crop": [4, 5]}])
@pytest.mark.parametrize("noise", [{}, {"sigma": 0.5}, {"covariance": np.eye(2, dtype=np.complex64)}])
def test_old_cartesian_kspace_is_read(tmp_path: Path, geometry: dict[str, Any], noise: dict[str, Any]) -> None:
    mask = np.ones((6, 8), dtype=bool)
    root = {**MRI_ROOT, "data": np.ones((3, 2, 6, 8), np.complex64), "mask": mask, "version": 2 if geometry else 1}
    scan = load_scan(written(tmp_path / "old.h5", root, {"geometry": geometry, "noise": noise}))
    assert scan.geometry == Cartesian((4, 5) if "crop" in geometry else None)
    known = scan.noise.covariance if isinstance(scan.noise, MRINoise) else None
    assert (known is None) == (noise == {}) and (known == 0.5 if "sigma" in noise else True)
    assert scan.mask is not None and bool(scan.mask.all()) and scan.maps is None


def test_an_old_trajectory_is_read(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-3, 3, (40, 2))
    geometry = {"type": "noncartesian", "trajectory": samples, "density": np.ones(40, np.float32), "crop": [4, 5]}
    root = {**MRI_ROOT, "version": 2, "data": np.ones((3, 2, 40), np.complex64)}
    scan = load_scan(written(tmp_path / "old.h5", root, {"geometry": geometry, "noise": {"sigma": 1}}))
    assert isinstance(scan.geometry, Trajectory) and np.array_equal(scan.geometry.samples.numpy(), samples)
    assert scan.geometry.density is not None and scan.geometry.density.dtype == torch.float32
    assert scan.geometry.crop == (4, 5) and scan.noncartesian


SOURCE = ("detector", "origin_detector", "source_origin")


@pytest.mark.parametrize(
    ("scan", "attributes", "datasets", "version"),
    [
        (
            ct(),
            {"det_count", "det_offset", "det_spacing", "detector", "origin_detector", "source_origin"},
            {"angles"},
            1,
        ),
        (ct(fan=False), {"det_count", "det_offset", "det_spacing"}, {"angles"}, 1),
        (
            cone(),
            {"det_shape", "det_offset", "det_spacing", "detector", "origin_detector", "source_origin"},
            {"angles", "heights", "focal_shifts"},
            2,
        ),
        (mri(), set(), set(), 1),
        (radial(), {"crop"}, {"trajectory", "density"}, 2),
    ],
)
def test_the_keys_in_the_file(
    tmp_path: Path, scan: Scan, attributes: set[str], datasets: set[str], version: int
) -> None:
    """What other programs, and older versions, find in it."""
    if scan.modality == "ct":
        attributes = attributes | {"type", "det_offset", "det_spacing", "pixel_spacing"}
    elif scan.noncartesian:
        attributes = attributes | {"type"}
    with h5py.File(save_scan(scan, tmp_path / "m.h5")) as h5:
        assert set(h5["geometry"].attrs) == attributes and set(h5["geometry"]) == datasets
        assert h5.attrs["version"] == version and h5.attrs["format"] == "medrecon-measurement"
        noise = {"i0", "sigma_e", "model_absolute", "model_relative", "mu_water"} if scan.modality == "ct" else set()
        assert set(h5["noise"].attrs) == noise
        assert set(h5["noise"]) == ({"covariance"} if scan.modality == "mri" else set())


def test_samples_outside_the_mask_are_refused(tmp_path: Path) -> None:
    scan = mri()
    assert scan.mask is not None
    path = save_scan(replace(scan, mask=scan.mask.roll(3, 1)), tmp_path / "m.h5")
    with pytest.raises(ValueError, match=r"m\.h5: .*samples outside the mask are not 0"):
        load_scan(path)


@pytest.mark.parametrize(("scan", "units"), [(ct(), "a.u."), (mri(), "HU"), (mri(), "1/mm")])
def test_units_are_those_of_the_modality(scan: Scan, units: Units) -> None:
    with pytest.raises(ValueError, match="units: "):
        replace(scan, units=units)


def test_counts_and_noise_out_of_range_in_a_file(tmp_path: Path) -> None:
    """As other programs write them, without our digest."""

    def change(path: Path, key: str, factor: float) -> Path:
        with h5py.File(path, "r+") as h5:
            del h5.attrs["sha256"], h5["sha256"]
            h5[key][...] = factor * h5[key][...]
        return path

    counts = change(save_scan(ct(), tmp_path / "counts.h5"), "data", 1e4)
    with pytest.raises(ValueError, match=r"counts\.h5: slice 0: .*are they counts"):
        load_scan(counts)
    noisy = save_scan(replace(mri(), noise=MRINoise(1.0)), tmp_path / "noisy.h5")
    with h5py.File(noisy, "r+") as h5:
        del h5.attrs["sha256"]
        h5["noise"].attrs["sigma"] = 1e15
    with pytest.raises(ValueError, match=r"noisy\.h5: noise/sigma: noise of 1e\+15"):
        load_scan(noisy)
    small = change(save_scan(replace(mri(), noise=None), tmp_path / "small.h5"), "data", 1e-20)
    with pytest.raises(ValueError, match=r"small\.h5: data: the largest sample is"):
        load_scan(small)


@pytest.mark.parametrize("spacing", [[0.9, 1.2], [0.9], [-1.0, 1.0]])
def test_a_pixel_that_differs_from_the_affine(spacing: list[float], tmp_path: Path) -> None:
    path = save_scan(ct(), tmp_path / "m.h5")
    with h5py.File(path, "r+") as h5:
        del h5.attrs["sha256"]
        h5["geometry"].attrs["pixel_spacing"] = spacing
    with pytest.raises(ValueError, match=r"m\.h5: geometry/pixel_spacing: .* and the affine has"):
        load_scan(path)
