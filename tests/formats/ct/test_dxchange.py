"""DXchange HDF5: values, geometry, centre and noise of files with known truth; every mistake named; the real tooth."""

import math
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from ct_phantoms import Ellipse
from raw_maker import dxchange, lines, parallel

from medrecon.acquisition.options import RawOptions
from medrecon.core.scan import Scan
from medrecon.formats.measurement_file import load_scan, save_scan
from medrecon.formats.raw_data import read_raw
from medrecon.geometry import ImageGrid
from medrecon.pipeline import reconstruct

pytestmark = pytest.mark.usefixtures("one_thread")
PITCH = 0.004  # mm
PITCH_KEY = "measurement/instrument/detector/actual_pixel_size_x"
OBJECT = tuple(
    Ellipse(x, y, a, b, t, mu)
    for x, y, a, b, t, mu in (
        (0.02, -0.03, 0.2, 0.15, 0.4, 2.0),
        (0.09, 0.02, 0.05, 0.03, 0.0, 1.0),
        (-0.06, -0.06, 0.02, 0.03, 0.0, -1.5),
    )
)
RAYS = parallel(120, 128, 5.3, PITCH)
THETA = np.rad2deg(RAYS.angles)


def projections(rows: int = 3) -> np.ndarray:
    """(V, Z, D), slices of rising density."""
    p = lines(RAYS, OBJECT).double().numpy()
    return np.stack([p * (1 + 0.1 * z) for z in range(rows)], axis=1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return dxchange(tmp_path / "scan.h5", projections(), THETA, pixel=(PITCH * 1e3, "um"))


def inside(scan: Scan) -> float:
    """Mean attenuation of the reconstruction well inside the big ellipse, away from the small ones, over the truth."""
    volume, _ = reconstruct(scan, "fbp")
    assert volume.units == "1/mm"
    grid = ImageGrid(scan.image_shape, (volume.spacing[1], volume.spacing[0]))
    mask = OBJECT[0].inside(grid, 0.7) & ~OBJECT[1].inside(grid, 1.3) & ~OBJECT[2].inside(grid, 1.5)
    return float(volume.data[0][mask].mean()) / OBJECT[0].mu


def test_attenuation_geometry_and_centre(file: Path) -> None:
    scan = read_raw(file)
    assert scan.data.shape == (3, 120, 128) and scan.image_shape == (128, 128) and scan.units == "1/mm"
    assert np.allclose(scan.data.transpose(0, 1).numpy(), projections(), atol=2e-4)
    assert scan.geometry.det_spacing == pytest.approx(PITCH)
    assert abs(scan.provenance["rotation_centre_elements"] - (127 / 2 + 5.3)) < 0.05
    assert scan.geometry.det_offset == pytest.approx(RAYS.det_offset, abs=0.05 * PITCH)
    assert scan.noise is None  # flats without noise say nothing
    assert inside(scan) == pytest.approx(1, abs=0.01)
    assert float(scan.affine[2, 2]) == pytest.approx(PITCH)


def test_a_wrong_centre_is_worse(file: Path) -> None:
    """The control: with the axis two elements off, no image explains the data as well."""
    right, wrong = (
        reconstruct(read_raw(file, RawOptions(slices=(0, 1), centre=127 / 2 + c)), "cgls")[1]["chi2"]
        for c in (5.3, 7.3)
    )
    assert wrong > 1.4 * right


def test_options_and_round_trip(file: Path, tmp_path: Path) -> None:
    scan = read_raw(file, RawOptions(slices=(1, 3), size=64, pixel_size=0.008, centre=68.8))
    assert scan.data.shape[0] == 2 and scan.image_shape == (64, 64)
    assert scan.grid.spacing == (0.016, 0.016) and scan.provenance["rotation_centre_from"] == "given"
    assert torch.equal(scan.data, read_raw(file).data[1:3])
    again = load_scan(save_scan(scan, tmp_path / "out.h5"))
    assert again.units == "1/mm" and torch.equal(again.data, scan.data) and again.provenance == scan.provenance


def test_without_pixel_size_values_are_per_element(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = dxchange(tmp_path / "a.h5", projections(1), THETA)
    read_raw(path, RawOptions(pixel_size=0.004))
    assert not caplog.text
    scan = read_raw(path)
    assert "a.h5: no pixel size in the file: an element counts as 1 mm; --pixel-size sets it" in caplog.text
    assert "taken as 1 mm" in scan.provenance["detector_pixel_from"] and scan.geometry.det_spacing == 1.0
    volume, _ = reconstruct(scan, "fbp")
    assert float(volume.data.max()) == pytest.approx(3 * PITCH, rel=0.2)  # 2 + 1 per mm


def test_without_theta_it_is_half_a_turn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    both = parallel(121, 128, 5.3, PITCH, arc=math.pi * 121 / 120)  # 0 and 180 degrees included
    p = lines(both, OBJECT).double().numpy()[:, None]
    scan = read_raw(dxchange(tmp_path / "a.h5", p, None, pixel=(PITCH, "mm")))
    assert "both included" in scan.provenance["theta"]
    assert "a.h5: no exchange/theta: the views count as evenly from 0 to 180 degrees, both included" in caplog.text
    assert np.allclose(scan.geometry.angles, both.angles) and inside(scan) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("last", [358, 360])
def test_without_theta_a_whole_turn_is_refused(last: int, tmp_path: Path) -> None:
    """Its last view is the first one again, not its mirror image."""
    around = replace(RAYS, angles=tuple(np.deg2rad(np.arange(0, last + 1, 2))))
    p = lines(around, OBJECT).double().numpy()[:, None]
    with pytest.raises(ValueError, match=r"a\.h5: exchange/theta: missing, and the last view is the first one again"):
        read_raw(dxchange(tmp_path / "a.h5", p, None, pixel=(PITCH, "mm")))


def test_a_symmetric_object_over_half_a_turn_without_theta_is_read(tmp_path: Path) -> None:
    """The last view is the first one again here too, but the middle one is not its mirror image."""
    half = parallel(121, 128, 9.3, PITCH, arc=math.pi * 121 / 120)
    p = lines(half, (Ellipse(0, 0, 0.2, 0.1, 0.4, 2.0),)).double().numpy()[:, None]
    scan = read_raw(dxchange(tmp_path / "a.h5", p, None, pixel=(PITCH, "mm")))
    assert abs(scan.provenance["rotation_centre_elements"] - (127 / 2 + 9.3)) < 0.1


def test_photons_of_the_flats_predict_the_noise(tmp_path: Path) -> None:
    """chi^2/m of the truth is 1 with the i0 that was found, at two doses."""
    for i0 in (1e3, 3e4):
        scan = read_raw(dxchange(tmp_path / f"{i0}.h5", projections(1), THETA, i0=i0))
        residual = scan.data[0] - torch.from_numpy(projections(1)[:, 0])
        expected = torch.exp(torch.from_numpy(projections(1)[:, 0])) / scan.noise.i0
        assert scan.noise.i0 == pytest.approx(i0, rel=0.1)
        assert float((residual.square() / expected).mean()) == pytest.approx(1.1, abs=0.15)  # 10 flats add a tenth


@pytest.mark.parametrize("axes", ["y:theta:x", "theta:x:y"])
def test_other_axes(axes: str, tmp_path: Path, file: Path) -> None:
    path = dxchange(tmp_path / "a.h5", projections(), THETA, pixel=(PITCH, "mm"), axes=axes)
    assert torch.equal(read_raw(path).data, read_raw(file).data)
    assert torch.equal(read_raw(path, RawOptions(slices=(1, 2), centre=60.0)).data, read_raw(file).data[1:2])


@pytest.mark.parametrize(("units", "factor", "sign"), [("deg", 1, -1), ("radians", math.pi / 180, 1)])
def test_units_and_sense_of_the_angles(units: str, factor: float, sign: int, tmp_path: Path) -> None:
    path = dxchange(tmp_path / "a.h5", projections(1), sign * THETA * factor, units=units)
    assert np.allclose(read_raw(path, RawOptions(centre=60.0)).geometry.angles, sign * np.array(RAYS.angles))


@pytest.mark.parametrize(
    "order", ["golden", "golden, turning on", "interlaced", "one twice", "all twice", "wraps", "jitter"]
)
def test_angles_in_any_order(order: str, tmp_path: Path) -> None:
    """As beamlines take them: the centre is found, and every pixel is that of the same views in order."""
    count, golden = 120, 180 * (math.sqrt(5) - 1) / 2
    theta = {
        "golden": np.mod(np.arange(count) * golden, 180),
        "golden, turning on": np.arange(count) * golden,
        "interlaced": np.concatenate([THETA[i::4] for i in range(4)]),
        "one twice": np.sort(np.append(THETA, THETA[46])),
        "all twice": np.repeat(THETA[::2], 2),
        "wraps": np.mod(THETA + 350, 360),
        "jitter": np.where(np.arange(count) == 50, THETA - 1.51, THETA),
    }[order]
    rays = replace(RAYS, angles=tuple(np.deg2rad(theta)))
    p = lines(rays, OBJECT).double().numpy()[:, None]
    scan = read_raw(dxchange(tmp_path / "a.h5", p, theta, pixel=(PITCH, "mm")))
    assert np.allclose(scan.geometry.angles, rays.angles)  # in the order of the data
    assert abs(scan.provenance["rotation_centre_elements"] - (127 / 2 + 5.3)) < 0.1
    assert inside(scan) == pytest.approx(1, abs=0.01)
    rising = np.argsort(np.mod(theta, 360), kind="stable")
    ordered = dxchange(tmp_path / "b.h5", p[rising], np.mod(theta, 360)[rising], pixel=(PITCH, "mm"))
    same = read_raw(ordered, RawOptions(centre=scan.provenance["rotation_centre_elements"]))
    a, b = (reconstruct(s, "fbp")[0].data for s in (scan, same))
    torch.testing.assert_close(a, b, rtol=0, atol=2e-4)


@pytest.mark.parametrize("nm", [650, 50, 20])
def test_nanometres(nm: int, tmp_path: Path) -> None:
    """The same shape in other units of length: attenuation times length stays."""
    pitch = nm * 1e-6
    scan = read_raw(dxchange(tmp_path / "a.h5", projections(1), THETA, pixel=(nm * 1e-9, "m")), RawOptions(centre=68.8))
    volume, _ = reconstruct(scan, "fbp")
    assert volume.spacing == pytest.approx((pitch,) * 3)
    again = read_raw(dxchange(tmp_path / "b.h5", projections(1), THETA, pixel=(PITCH, "mm")), RawOptions(centre=68.8))
    torch.testing.assert_close(volume.data * (pitch / PITCH), reconstruct(again, "fbp")[0].data, rtol=1e-4, atol=1e-4)


def change(key: str, value: object) -> object:
    def spoil(h5: h5py.File) -> None:
        attributes = dict(h5[key].attrs) if key in h5 else {}
        if key in h5:
            del h5[key]
        if value is not None:
            h5[key] = value(None) if callable(value) else value
            h5[key].attrs.update(attributes)

    return spoil


def attribute(key: str, name: str, value: str) -> object:
    return lambda h5: h5[key].attrs.update({name: value})


BROKEN = [
    (change("exchange/data", None), r"exchange/data: missing"),
    (change("exchange/data_white", None), r"exchange/data_white: missing"),
    (change("exchange/data_dark", None), r"exchange/data_dark: missing"),
    (change("exchange/data", np.zeros((3, 4))), r"exchange/data: expected rank 3, got shape \(3, 4\)"),
    (change("exchange/data", "text"), r"exchange/data: expected a dataset of numbers"),
    (change("exchange/data", np.full((120, 3, 128), np.nan)), r"data: 46080 NaN or infinite"),
    (change("exchange/data", np.zeros((120, 3, 128))), r"data: samples at or below the dark field: 100%"),
    (change("exchange/data_white", np.ones((10, 3, 100))), r"data_white: expected images of 3 rows and 128 columns"),
    (change("exchange/data_white", np.full((10, 3, 128), np.inf)), r"exchange/data_white: 3840 NaN or infinite"),
    (change("exchange/data_white", np.zeros((10, 3, 128))), r"no brighter than the dark field.*swapped"),
    (change("exchange/data_shift_x", np.zeros(120)), r"exchange/data_shift_x: views that were moved"),
    (change("exchange/theta", THETA[:-1]), r"exchange/theta: expected 120 angles, one per view, got 119"),
    (change("exchange/theta", np.where(np.arange(120) < 30, THETA, 0)), r"theta: 91 of the 120 views are at 0; were"),
    (change("exchange/theta", np.where(np.arange(120) % 30, THETA, 7.0)), r"theta: 4 of the 120 views are at 7; were"),
    (change("exchange/theta", np.where(np.arange(120) == 7, np.nan, THETA)), r"exchange/theta: 1 NaN.*at \[7\]"),
    (change("exchange/theta", THETA * 0), r"120 of the 120 views are at 0"),
    (attribute("exchange/theta", "units", "rad"), r"exchange/theta: spans 178.5 rad, 28 turns; check the units"),
    (attribute("exchange/theta", "units", "grad"), r"exchange/theta: unknown units 'grad'"),
    (attribute("exchange/data", "axes", "a:b:c"), r"axes is 'a:b:c'; expected theta:y:x"),
    (attribute(PITCH_KEY, "units", "cm"), r"4 cm is 40 mm.*check the units"),
    (attribute(PITCH_KEY, "units", "inch"), r"unknown units of length"),
]


@pytest.mark.parametrize(("spoil", "message"), BROKEN, ids=[m[:40] for _, m in BROKEN])
def test_bad_files_name_file_and_key(spoil, message: str, file: Path) -> None:
    with h5py.File(file, "a") as h5:
        spoil(h5)
    with pytest.raises(ValueError, match=message) as error:
        read_raw(file)
    assert str(error.value).startswith(f"{file}: ")


def test_angles_in_radians_without_units(tmp_path: Path) -> None:
    path = dxchange(tmp_path / "a.h5", projections(1), np.array(RAYS.angles), units=None)
    with pytest.raises(ValueError, match=r"exchange/theta: spans 3\.1.* has no units.*radians\?"):
        read_raw(path)


def test_truncated_and_other_files(file: Path, tmp_path: Path) -> None:
    (tmp_path / "half.h5").write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"half\.h5: not HDF5, truncated or damaged"):
        read_raw(tmp_path / "half.h5", RawOptions(format="dxchange"))
    with h5py.File(tmp_path / "other.h5", "w") as h5:
        h5["x"] = 1
    with pytest.raises(ValueError, match=r"other\.h5: not raw data medrecon reads .*dxchange: .*htc2022: "):
        read_raw(tmp_path / "other.h5")


def test_tooth(corpus: Path) -> None:
    """Real: enamel well over dentine over air, and air is 0."""
    scan = read_raw(corpus / "raw" / "raw_ct_tooth" / "tooth.h5", RawOptions(slices=(0, 1)))
    assert scan.data.shape == (1, 181, 640) and 4e4 < scan.noise.i0 < 5.5e4
    image = reconstruct(scan, "fbp")[0].data[0]
    spots = (image[225:235, 300:340], image[290:300, 380:400], image[100:150, 100:150])
    enamel, dentine, air = (float(spot.mean()) for spot in spots)
    assert enamel > 1.4 * dentine > 0.005 and abs(air) < 0.02 * enamel
