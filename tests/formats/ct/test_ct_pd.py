"""DICOM-CT-PD: files made by the manual's own definitions, the way there and back, and every way they can be wrong."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from cone_phantoms import BALL, CYLINDER, PHANTOM, Quadric, project
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from torch import Tensor

from medrecon.acquisition.helical import fan_geometry, rebin
from medrecon.acquisition.options import RawOptions
from medrecon.cli import main
from medrecon.formats.ct_pd import raw as ct_pd
from medrecon.formats.ct_pd.views import Projections, is_ct_pd, read_ct_pd, read_views
from medrecon.formats.ct_pd.write import write_ct_pd
from medrecon.formats.measurement_file import load_scan, save_scan
from medrecon.formats.raw_data import read_raw
from medrecon.geometry import ConeGeometry, VolumeGrid
from medrecon.numerics.linalg import cg
from medrecon.operators.ct.joseph import cone
from medrecon.pipeline import reconstruct

pytestmark = pytest.mark.usefixtures("one_thread")
VIEWS, ROWS, COLUMNS = 5, 6, 40
SMALL = ConeGeometry.helix(
    97.3, VIEWS / 97.3, 60.0, (ROWS, COLUMNS), (3.0, 8.0), 400.0, 350.0, start=2.0, det_offset=(0.4, 2.0)
)


def projections(geometry: ConeGeometry, **changes: object) -> Projections:
    """What a scanner of this geometry measures of the phantom."""
    views = len(geometry.angles)
    shifts = np.array(geometry.focal_shifts) if geometry.focal_shifts else np.zeros((views, 3))
    found = Projections(
        project(geometry),
        np.array(geometry.angles),
        np.array(geometry.heights),
        np.full(views, 400.0),
        shifts,
        geometry.det_spacing,
        geometry.det_offset,
        750.0,
        geometry.detector,
        "FFSXYZ" if geometry.focal_shifts else "FFSNONE",
        97,
        0.02,
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def by_the_manual(folder: Path, vendor: str = "SIEMENS", *, turned: bool = True, types: bool = True) -> None:
    """Files written from the manual's text, sharing nothing with medrecon's reader or writer.

    Left-handed coordinates seen from the table: x right, y up, z into the gantry; phi from 12 o'clock, counter-
    clockwise: x = -rho sin phi, y = rho cos phi. With the detector at 6 o'clock column 1 is leftmost and row 1
    farthest. `turned`: an image row holds a detector column, as in published files. `types`: with private creators
    and value representations, otherwise raw bytes.
    """
    folder.mkdir()
    rho, d0, du, dv, centre = 595.0, 1085.6, 9.0, 3.0, (20.7, 3.2)
    for i in range(VIEWS):
        phi, z0 = 0.9 + 1.1 * i, -40.0 + 17.0 * i
        turn, out, up = (0.004, 5.0, -0.66) if i % 2 else (-0.002, 0.0, 0.3)
        spot = [-(rho + out) * math.sin(phi + turn), (rho + out) * math.cos(phi + turn), z0 + up]
        focal_centre = [-rho * math.sin(phi), rho * math.cos(phi), z0]
        element = np.empty((ROWS, COLUMNS, 3))
        for row in range(1, ROWS + 1):
            for column in range(1, COLUMNS + 1):
                right = (column - centre[0]) * du / d0
                x, y = d0 * math.sin(right), -d0 * math.cos(right)  # with the source at 12 o'clock
                element[row - 1, column - 1] = (
                    focal_centre[0] + x * math.cos(phi) - y * math.sin(phi),
                    focal_centre[1] + x * math.sin(phi) + y * math.cos(phi),
                    z0 - (row - centre[1]) * dv,
                )
        image = sum(q.integrals(np.array(spot), element) for q in PHANTOM)
        tag = COLUMNS - centre[0] if vendor.startswith("GE") else centre[0]
        write_by_hand(
            folder / f"{VIEWS - i:03d}.dcm",
            i + 1,
            vendor,
            image.T if turned else image,
            types,
            [
                (0x7029, 0x1010, "US", ROWS),
                (0x7029, 0x1011, "US", COLUMNS),
                (0x7029, 0x1002, "FL", du),
                (0x7029, 0x1006, "FL", dv),
                (0x7029, 0x100B, "CS", "CYLINDRICAL"),
                (0x7031, 0x1001, "FL", phi % 6.2831853),
                (0x7031, 0x1002, "FL", z0),
                (0x7031, 0x1003, "FL", rho),
                (0x7031, 0x1031, "FL", d0),
                (0x7031, 0x1033, "FL", [tag, centre[1]]),
                (0x7033, 0x100B, "FL", turn),
                (0x7033, 0x100C, "FL", up),
                (0x7033, 0x100D, "FL", out),
                (0x7033, 0x100E, "CS", "FFSXYZ"),
                (0x7033, 0x1013, "US", 6),
                (0x7033, 0x1065, "FL", list(range(1, COLUMNS + 1))),
                (0x7041, 0x1001, "DS", "0.0193"),
            ],
        )


def write_by_hand(
    path: Path, instance: int, vendor: str, image: np.ndarray, types: bool, private: list[tuple[int, int, str, object]]
) -> None:
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid(entropy_srcs=[str(instance)])
    dataset.Modality, dataset.Manufacturer, dataset.InstanceNumber = "CT", vendor, instance
    dataset.Rows, dataset.Columns = image.shape
    dataset.BitsAllocated, dataset.RescaleSlope, dataset.RescaleIntercept = 16, "1.0E-4", "-0.1"
    for group, element, vr, value in private:
        if not types:
            kind = {"FL": "<f4", "US": "<u2"}.get(vr)
            value = np.atleast_1d(value).astype(kind).tobytes() if kind else str(value).ljust(12).encode()
            vr = "UN"
        elif (group, 0x0010) not in dataset:
            dataset.add_new((group, 0x0010), "LO", "MAYO")
        dataset.add_new((group, element), vr, value)
    dataset.add_new("PixelData", "OW", np.rint((image + 0.1) / 1e-4).astype("<u2").tobytes())
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if types else ImplicitVRLittleEndian
    pydicom.dcmwrite(path, dataset, enforce_file_format=True, implicit_vr=not types, little_endian=True)


@pytest.mark.parametrize(
    ("vendor", "turned", "types"),
    [("SIEMENS", True, True), ("GE MEDICAL SYSTEMS", True, False), ("Siemens Healthineers", False, False)],
)
def test_the_manuals_rays_are_ours(tmp_path: Path, vendor: str, turned: bool, types: bool) -> None:
    """The phantom, in the manual's coordinates, projected by the manual and by the geometry that was read."""
    by_the_manual(tmp_path / "scan", vendor, turned=turned, types=types)
    found = read_ct_pd(tmp_path / "scan")
    geometry = ct_pd.cone_geometry(found)
    assert found.mu_water == pytest.approx(0.0193) and found.views_per_turn == 6 and found.focal_mode == "FFSXYZ"
    assert found.photons is not None and found.photons[0, 0] == COLUMNS and found.photons[0, -1] == 1
    truth = project(geometry)
    assert float((found.data - truth).abs().max()) < 3e-4  # 16 bits, and float32 tags
    for wrong in (
        found.data.flip(2),
        found.data.flip(1),
        project(replace(geometry, angles=tuple(-found.angles))),
        project(replace(geometry, focal_shifts=())),
        project(replace(geometry, heights=tuple(-found.heights))),
        project(replace(geometry, det_offset=(0.0, 0.0))),
    ):
        assert float((wrong - (found.data if wrong.shape == truth.shape else truth)).abs().max()) > 0.005


@pytest.mark.parametrize("detector", ["arc", "flat"])
@pytest.mark.parametrize("vendor", ["medrecon", "GE MEDICAL SYSTEMS"])
def test_there_and_back(tmp_path: Path, detector: str, vendor: str) -> None:
    shifts = tuple((0.003 * i, -float(i), 0.3 * i) for i in range(VIEWS))
    geometry = replace(SMALL, detector=detector, focal_shifts=shifts)
    photons = torch.rand(VIEWS, COLUMNS, generator=torch.Generator().manual_seed(0)) * 1e4
    wanted = projections(geometry, photons=photons, manufacturer=vendor, patient_position="FFS")
    found = read_ct_pd(write_ct_pd(wanted, tmp_path / "scan"))
    same = ct_pd.cone_geometry(found)
    assert float((found.data - wanted.data).abs().max()) <= 0.51 * float(wanted.data.max()) / 65535
    for name in ("heights", "focal_shifts", "det_offset", "det_spacing", "source_origin", "origin_detector"):
        np.testing.assert_allclose(getattr(same, name), getattr(geometry, name), rtol=1e-6, atol=1e-5)
    turn = np.array(same.angles) - geometry.angles
    np.testing.assert_allclose(turn, 2 * math.pi * np.round(turn[0] / (2 * math.pi)), atol=1e-6)
    assert same.detector == detector and found.patient_position == "FFS" and found.focal_mode == "FFSXYZ"
    assert found.photons is not None and torch.equal(found.photons, photons)


def test_written_files_are_dicom_without_a_patient(tmp_path: Path) -> None:
    folder = write_ct_pd(projections(SMALL), tmp_path / "scan")
    dataset = pydicom.dcmread(sorted(folder.iterdir())[1])
    assert len(list(folder.iterdir())) == VIEWS
    assert (dataset.InstanceNumber, dataset.Modality, str(dataset.PatientName)) == (2, "CT", "SYNTHETIC")
    assert not dataset.PatientBirthDate and dataset[0x7029, 0x0010].value == "DetectorSystemArrangementModule"
    assert dataset.pixel_array.shape == (COLUMNS, ROWS) and dataset[0x7031, 0x1001].VR == "FL"
    with pytest.raises(FileExistsError):
        write_ct_pd(projections(SMALL), folder)
    broken = projections(SMALL)
    broken.data[1, 2, 3] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        write_ct_pd(broken, tmp_path / "other")
    with pytest.raises(ValueError, match="geometry only"):
        write_ct_pd(read_ct_pd(folder, pixels=False), tmp_path / "other")
    assert [p.name for p in tmp_path.iterdir()] == ["scan"]


def test_parts_of_a_scan(tmp_path: Path) -> None:
    folder = write_ct_pd(projections(SMALL), tmp_path / "scan")
    whole, part = read_ct_pd(folder), read_ct_pd(folder, views=(1, 4))
    assert torch.equal(part.data, whole.data[1:4]) and np.array_equal(part.heights, whole.heights[1:4])
    headers = read_ct_pd(folder, pixels=False)
    assert headers.data.shape == (0, ROWS, COLUMNS) and np.array_equal(headers.angles, whole.angles)
    assert torch.equal(read_views(headers, 2, 5), whole.data[2:5])
    with pytest.raises(ValueError, match=r"views 0:9 are not within 0:5"):
        read_ct_pd(folder, views=(0, 9))


def edit(change: Callable[[pydicom.Dataset], object]) -> Callable[[Path], object]:
    def edited(path: Path) -> None:
        dataset = pydicom.dcmread(path)
        change(dataset)
        dataset.save_as(path)

    return edited


def put(group: int, element: int, value: object) -> Callable[[Path], object]:
    return edit(lambda dataset: setattr(dataset[group, element], "value", value))


def drop(group: int, element: int) -> Callable[[Path], object]:
    return edit(lambda dataset: dataset.__delitem__((group, element)))


FIRST, THIRD = "projection_00001.dcm", "projection_00003.dcm"


@pytest.mark.parametrize(
    ("name", "damage", "complaint"),
    [
        (THIRD, lambda p: p.write_bytes(p.read_bytes()[:-100]), "truncated"),
        (THIRD, lambda p: p.write_bytes(p.read_bytes()[:400]), "truncated|missing"),
        (FIRST, drop(0x7031, 0x1001), r"not a DICOM-CT-PD projection: \(7031,1001\)"),
        (FIRST, edit(lambda d: setattr(d, "Manufacturer", "ACME")), r"\(0008,0070\) Manufacturer is 'ACME'"),
        (THIRD, drop(0x7031, 0x1002), r"\(7031,1002\) DetectorFocalCenterAxialPosition is missing"),
        (FIRST, drop(0x7031, 0x1033), r"\(7031,1033\) DetectorCentralElement is missing"),
        (FIRST, put(0x7029, 0x100B, "CONICAL"), r"\(7029,100b\) DetectorShape.*'CONICAL'"),
        (THIRD, put(0x7031, 0x1001, math.nan), r"\(7031,1001\).*NaN"),
        (THIRD, put(0x7031, 0x1033, [1.0, 2.0, 3.0]), r"\(7031,1033\).*expected 2 values, got 3"),
        (THIRD, edit(lambda d: d.add_new((0x7031, 0x1002), "UN", b"abc")), r"\(7031,1002\).*expected FL"),
        (THIRD, put(0x7029, 0x1011, COLUMNS + 1), r"\(7029,1011\) NumberofDetectorColumns is 41, but 40 in .*00001"),
        (THIRD, put(0x7031, 0x1033, [1.0, 2.0]), r"\(7031,1033\).*differs"),
        (THIRD, edit(lambda d: setattr(d, "Rows", 7)), r"image of 7 x 6, but 6 detector rows"),
        (FIRST, put(0x7031, 0x1003, 40.0), r"\(7031,1003\).*40 mm, expected 100 to 2000 mm; in cm or m"),
        (FIRST, put(0x7029, 0x1006, 0.03), r"\(7029,1006\).*in cm"),
        (FIRST, put(0x7041, 0x1001, "1000"), r"\(7041,1001\).*0\.02 1/mm"),
        (FIRST, put(0x7039, 0x1009, "NO"), r"\(7039,1009\) LogFlag is NO"),
        (THIRD, edit(lambda d: setattr(d, "RescaleSlope", 0)), "RescaleSlope"),
        (THIRD, edit(lambda d: d.__delitem__("RescaleSlope")), "RescaleSlope is missing or empty"),
        (THIRD, edit(lambda d: setattr(d, "RescaleIntercept", None)), "RescaleIntercept is missing or empty"),
        (FIRST, put(0x7029, 0x1010, 60000), "60000 detector rows and 40 columns do not fit into a file of"),
        (THIRD, edit(lambda d: setattr(d, "BitsAllocated", 32)), "BitsAllocated is 32"),
        (THIRD, edit(lambda d: d.__delitem__("InstanceNumber")), r"\(0020,0013\)"),
        (THIRD, edit(lambda d: setattr(d, "InstanceNumber", 2)), "instance number 2 again, as projection_00002"),
        (THIRD, Path.unlink, "instance number 3 is missing, after projection_00002"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, damage: Callable[[Path], object], complaint: str) -> None:
    folder = tmp_path / "scan"
    write_ct_pd(projections(SMALL), folder)
    damage(folder / name)
    with pytest.raises(ValueError, match=complaint) as caught:
        read_ct_pd(folder)
    assert name in str(caught.value) or "is missing, after" in str(caught.value)


def test_bad_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_ct_pd(tmp_path / "nowhere")
    (tmp_path / "LICENSE").write_text("text")
    with pytest.raises(ValueError, match="no DICOM files"):
        read_ct_pd(tmp_path)
    assert not is_ct_pd(tmp_path) and not is_ct_pd(tmp_path / "LICENSE")


def test_water_in_per_cm_is_understood(tmp_path: Path) -> None:
    folder = write_ct_pd(projections(SMALL), tmp_path / "scan")
    put(0x7041, 0x1001, "0.2")(folder / FIRST)
    assert read_ct_pd(folder).mu_water == pytest.approx(0.02)


def test_unfit_photons_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_ct_pd(projections(SMALL, photons=torch.ones(VIEWS, COLUMNS)), tmp_path / "scan")
    put(0x7033, 0x1065, [1.0, 2.0])(folder / FIRST)
    assert read_ct_pd(folder).photons is None and "2 values for 40 columns" in caplog.text


HELIX = ConeGeometry.helix(80.4, 1.9, 24.0, (12, 40), (4.4, 9.0), 400.0, 350.0, start=0.4, det_offset=(1.0, 2.25))


@pytest.fixture(scope="module")
def helical(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A helical scan of the phantom, with a flying focal spot."""
    shifts = tuple((0.006, 5.0, -0.9) if i % 2 else (-0.004, 0.0, 0.0) for i in range(len(HELIX.angles)))
    folder = tmp_path_factory.mktemp("ct-pd") / "scan"
    photons = torch.full((len(shifts), HELIX.det_shape[1]), 1e4)
    return write_ct_pd(projections(replace(HELIX, focal_shifts=shifts), photons=photons), folder)


def test_read_raw_gives_fan_slices(helical: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `read_raw` gives is the rebinned scan, whole or in blocks, and survives the measurement file."""
    monkeypatch.setattr(ct_pd, "BUDGET", 0)  # a block is one slice
    scan = read_raw(helical, RawOptions(slice_spacing=5.0, size=32, pixel=6.0))
    found = read_ct_pd(helical)
    geometry = ct_pd.cone_geometry(found)
    first, steps = float(scan.affine[2, 3]), len(scan.data)
    expected = rebin(found.data, geometry, [first + 5.0 * i for i in range(steps)])
    assert steps > 5 and float((scan.data - expected).abs().max()) < 1e-4
    assert scan.provenance["table_feed_mm"] == pytest.approx(24.0, rel=1e-3)
    assert scan.provenance["patient_position"] == (found.patient_position or "unknown, taken as HFS")
    kept = load_scan(save_scan(scan, tmp_path / "scan.h5"))
    assert kept.geometry.detector == "arc" and kept.mu_water == pytest.approx(0.02)
    fan = kept.rays
    assert fan == replace(fan_geometry(geometry), angles=fan.angles) and np.allclose(
        fan.angles, fan_geometry(geometry).angles
    )
    some = read_raw(helical, RawOptions(slice_spacing=5.0, size=32, pixel=6.0, slices=(2, 4)))
    assert torch.equal(some.data, scan.data[2:4]) and float(some.affine[2, 3]) == pytest.approx(first + 10.0)


def test_import_on_the_command_line(helical: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scan.h5"
    assert main(["import", str(helical), "-o", str(out), "--slice-spacing", "5", "--slices", "2:4", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["format"], said["data"], said["geometry"]["detector"]) == ("ct_pd", [2, 40, 40], "arc")
    assert said["noise"]["i0"]["shape"] == [2, 40, 40] and said["noise"]["i0"]["mean"] > 1e4
    assert said["provenance"]["opposite_rays_differ"]["as read"] < 0.02


def test_direct_import_keeps_the_cone_beam(helical: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The views as they are, a volume that holds all they see, and the ball at its place in the patient."""
    out = tmp_path / "scan.h5"
    argv = ["import", str(helical), "-o", str(out), "--direct", "--slice-spacing", "4", "--size", "30", "--pixel", "5"]
    assert main([*argv, "--json"]) == 0
    said, scan = json.loads(capsys.readouterr().out), load_scan(out)
    projections = read_ct_pd(helical)
    first, stop = said["provenance"]["slices_measured"]
    assert said["provenance"]["rebinning"] == "none" and 0 < first < stop < scan.image_shape[0]
    rays, views = scan.rays, scan.data.shape[1]
    full = ct_pd.cone_geometry(projections)
    skipped = int(np.flatnonzero((projections.data == scan.data[0, 0]).flatten(1).all(1))[0])
    assert torch.equal(scan.data[0], projections.data[skipped : skipped + views])
    kept = full.subset(range(skipped, skipped + views))
    lift = np.array(kept.heights) - np.array(rays.heights)
    assert np.ptp(lift) < 1e-9 and replace(kept, heights=rays.heights) == rays
    assert scan.affine[2, 3] + 4 * (scan.image_shape[0] - 1) / 2 == pytest.approx(lift[0])  # heights from its middle
    # The volume ends with the slices that the outermost rays still see where they leave the field of view, 150 mm wide.
    source, rows = kept.source_heights(), kept.row_heights()
    wide = (kept.source_origin + 75) / (kept.source_origin + kept.origin_detector)
    bottom, top = float(scan.affine[2, 3]), float(scan.affine[2, 3]) + 4 * (scan.image_shape[0] - 1)
    assert 0 <= (source + (rows[:, 0] - source) * wide).min() - bottom < 4
    assert 0 <= top - (source + (rows[:, -1] - source) * wide).max() < 4
    assert scan.noise.i0.shape == (1, views, 1, 40)
    volume, _ = reconstruct(scan, "cgls")
    bright = (volume.data[first:stop].double() - 500).clamp(0, 500)
    z, y, x = (
        float((bright.sum(axes) * torch.arange(n)).sum() / bright.sum())
        for axes, n in zip(((1, 2), (0, 2), (0, 1)), bright.shape, strict=True)
    )
    place = (volume.affine @ torch.tensor([x, y, z + first, 1.0], dtype=torch.float64))[:3]  # head first, supine
    assert np.allclose(place, (-BALL.centre[0], BALL.centre[1], BALL.centre[2]), atol=0.8)


def test_centre_of_the_user(helical: Path) -> None:
    """Counted from 0 in the columns of the files."""
    moved = read_raw(helical, RawOptions(slice_spacing=9.0, centre=19.0))
    assert moved.geometry.det_offset == pytest.approx(-4.5)
    assert read_raw(helical, RawOptions(slice_spacing=9.0)).geometry.det_offset == pytest.approx(2.25)


def test_another_reading_gives_itself_away(helical: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Opposite rays agree best as the files are meant, and a file that means another thing is noticed."""
    found = read_ct_pd(helical, pixels=False)
    readings = ct_pd.compare_readings(found, ct_pd.cone_geometry(found), 1.0)
    assert len(readings) == 5 and not caplog.records
    assert all(1.1 * readings[ct_pd.AS_READ] < value for name, value in readings.items() if name != ct_pd.AS_READ)
    wrong = replace(found, det_offset=(found.det_offset[0], -found.det_offset[1] - found.det_spacing[1]))
    ct_pd.compare_readings(wrong, ct_pd.cone_geometry(wrong), 1.0)
    assert "with central column from the other end" in caplog.text


@pytest.mark.parametrize(
    ("position", "right", "up"),
    [
        ("HFS", "L", "A"),
        ("FFS", "R", "A"),
        ("HFP", "R", "P"),
        ("FFP", "L", "P"),
        ("HFDR", "P", "L"),
        ("HFDL", "A", "R"),
        ("FFDR", "A", "L"),
        ("", "L", "A"),
    ],
)
def test_patient_directions(position: str, right: str, up: str) -> None:
    """Seen from the table: a supine patient who entered head first shows the feet, and the left side on the right."""
    directions = {"L": (-1, 0, 0), "R": (1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0)}
    affine = ct_pd._affine(position, 11, 2.0, -7.0, 1.5).numpy()
    np.testing.assert_allclose(affine[:3, 0], np.multiply(2, directions[right]))
    np.testing.assert_allclose(affine[:3, 1], np.multiply(-2, directions[up]))
    np.testing.assert_allclose(affine @ [5, 5, 2, 1], [0, 0, -4, 1], atol=1e-12)


def test_a_changing_radius_is_refused(tmp_path: Path) -> None:
    broken = projections(SMALL)
    broken.radii[2] += 1
    with pytest.raises(ValueError, match=r"varies by 1\.00 mm"):
        ct_pd.cone_geometry(read_ct_pd(write_ct_pd(broken, tmp_path / "scan")))
    shutil.rmtree(tmp_path / "scan")


def test_phantom_is_off_centre() -> None:
    """Otherwise mirrored scans would pass."""
    assert all(BALL.centre) and CYLINDER.centre[0] and CYLINDER.centre[1]


def test_three_dimensional_reconstruction(tmp_path: Path) -> None:
    """The volume that fits the helical projections best, by the exact cone-beam operator: the ball is where it is."""
    shifts = tuple((0.006, 5.0, -0.9) if i % 2 else (-0.004, 0.0, 0.0) for i in range(len(HELIX.angles)))
    geometry = replace(HELIX, focal_shifts=shifts)
    body = Quadric((10.0, -8.0, 0.0), (60.0, 50.0, 15.0), 0.02)
    measured = projections(geometry, data=project(geometry, (body, BALL)))
    found = read_ct_pd(write_ct_pd(measured, tmp_path / "scan"))
    grid = VolumeGrid((14, 40, 40), (3.0, 4.0, 4.0))

    def off(geometry: ConeGeometry) -> float:
        """How far from its place the ball comes out [mm]."""
        rays = cone.trace(geometry, grid)
        back = torch.from_numpy(cone.adjoint(found.data[None].numpy(), rays, grid.shape))

        def gram(x: Tensor) -> Tensor:
            return torch.from_numpy(cone.adjoint(cone.forward(x.numpy(), rays), rays, grid.shape))

        volume = cg(gram, back, ndim=3, iterations=12).x[0]
        weight = (volume - 0.028).clamp_min(0)
        x, y = (torch.from_numpy(c) for c in grid.plane().coordinates())
        z = torch.from_numpy(grid.heights())
        near = ((z[:, None, None] - 3) ** 2 + (y[:, None] - 12) ** 2 + (x - 36) ** 2) < 30**2
        weight = weight * near
        mean = [float((weight * c).sum() / weight.sum()) for c in (x, y[:, None], z[:, None, None])]
        return math.dist(mean, BALL.centre)

    read = ct_pd.cone_geometry(found)
    assert off(read) < 0.25
    assert off(replace(read, focal_shifts=())) > 0.35
    assert off(replace(read, heights=tuple(-z for z in read.heights))) > 1
