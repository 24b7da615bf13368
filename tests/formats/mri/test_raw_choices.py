"""Several measurements, groups, contrasts and headers that speak of something else: the right one, or asked for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from mri_raw_files import SMALL, TURN, YAPS, acquisition, dat, mrd, samples, siemens, stack
from mri_raw_maker import COILS, Plane, Protocol, block, header

from medrecon import formats
from medrecon.acquisition.options import OptionError, RawOptions
from medrecon.cli import main
from medrecon.core.scan import Scan
from medrecon.formats import read_raw

pytest.importorskip("ismrmrd")
pytestmark = pytest.mark.usefixtures("one_thread")
PLANE = Plane(np.array([12.0, -34.0, 56.0]), blobs=((1.0, 14.0, -9.0), (0.7, -12.0, 20.0)))
NOISE, CALIBRATION = 19, 20


def largest(scan: Scan) -> float:
    """Of the k-space, relative to that of the phantom."""
    return float(scan.data.abs().max()) / float(np.abs(COILS).max() * np.abs(SMALL.grid(PLANE)).max())


def noise(coils: int = 3, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    white = (rng.standard_normal((coils, 128)) + 1j * rng.standard_normal((coils, 128))).astype(np.complex64)
    return [acquisition(white, None, flags=[NOISE], centre=0)]


def test_the_group_that_holds_an_image_is_read(tmp_path: Path) -> None:
    """An adjustment of noise alone, before or behind, neither takes the scan's place nor hides it."""
    for name in ("adjust", "zzz"):
        path = mrd(tmp_path / f"{name}.h5", {name: noise(), "scan": stack(PLANE)})
        scan = read_raw(path)
        assert largest(scan) == pytest.approx(1, rel=1e-4) and scan.provenance["group"] == "scan"
        assert scan.provenance["other_groups"] == {name: "0 readouts of an image, 1 others"}
        told = formats.info(path)["groups"]
        assert told["scan"]["image_readouts"] == 12 and told[name]["noise_readouts"] == 1


def test_of_several_images_one_is_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = mrd(tmp_path / "two.h5", {"adjust": stack(PLANE, scale=5), "dataset": stack(PLANE)})
    with pytest.raises(ValueError, match=r"two.h5: 2 groups hold an image \(adjust: 12 .* choose one with --group"):
        read_raw(path)
    assert largest(read_raw(path, RawOptions(group="dataset"))) == pytest.approx(1, rel=1e-4)
    with pytest.raises(OptionError, match=r"group 'other': the file has adjust, dataset"):
        read_raw(path, RawOptions(group="other"))
    assert main(["import", str(path), "-o", str(tmp_path / "scan.h5"), "--group", "adjust"]) == 0
    assert "adjust" in capsys.readouterr().out


def test_measurements_of_a_twix_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A noise-only last one, an adjustment first, and two images."""
    pytest.importorskip("twixtools")
    kind = {"centre": 32, "lines": 12, "place": PLANE.centre, "quaternion": TURN}
    rng = np.random.default_rng(1)
    white = rng.standard_normal((3, 64)) + 1j * rng.standard_normal((3, 64))
    quiet = [block(white, 0, flags=["NOISEADJSCAN"], **kind) for _ in range(4)]
    for measured in (
        [("gre", siemens(PLANE)), ("noise", quiet)],
        [("AdjCoilSens", siemens(PLANE, 5.0)), ("gre", siemens(PLANE))],
        [("gre", siemens(PLANE)), ("AdjCoilSens", siemens(PLANE, 5.0) + quiet)],
    ):
        scan = read_raw(dat(tmp_path / "scan.dat", measured))
        assert largest(scan) == pytest.approx(1, rel=1e-4)
        assert scan.provenance["measurement"] == [name for name, _ in measured].index("gre")
        assert (scan.noise is not None) == any("NOISEADJSCAN" in b.get_active_flags() for _, m in measured for b in m)
    path = dat(tmp_path / "two.dat", [("gre", siemens(PLANE)), ("epi", siemens(PLANE, 3.0))])
    with pytest.raises(ValueError, match=r"two.dat: 2 measurements hold an image: 0 \(gre\), 1 \(epi\); choose one"):
        read_raw(path)
    assert [one["protocol"] for one in formats.info(path)["measurements"]] == ["gre", "epi"]
    assert main(["import", str(path), "-o", str(tmp_path / "s.h5"), "--measurement", "1", "--json"]) == 0
    assert '"protocol": "epi"' in capsys.readouterr().out
    with pytest.raises(OptionError, match="measurement 2: the file has 0 to 1"):
        read_raw(path, RawOptions(measurement=2))


@pytest.mark.parametrize("counter", ["segment", "user0", "user7"])
def test_what_a_free_counter_tells_apart_is_not_averaged(counter: str, tmp_path: Path) -> None:
    made = stack(PLANE, **{counter: 0}) + stack(PLANE, scale=5, **{counter: 1})
    path = mrd(tmp_path / "two.h5", {"dataset": made})
    with pytest.raises(ValueError, match=rf"readouts 0 and 12 .* counter {counter} \(0 and 1\).*--where.{counter} N"):
        read_raw(path)
    for value, size in ((0, 1), (1, 5)):
        assert largest(read_raw(path, RawOptions(where={counter: value}))) == pytest.approx(size, rel=1e-4)
    with pytest.raises(OptionError, match=rf"where.{counter} 4: the file has 0, 1"):
        read_raw(path, RawOptions(where={counter: 4}))
    with pytest.raises(OptionError, match=r"where\.ida: no such counter; there are: segment, encoding, user0"):
        read_raw(path, RawOptions(where={"ida": 0}))
    assert main(["import", str(path), "-o", str(tmp_path / "s.h5"), f"--where.{counter}", "1"]) == 0


@pytest.mark.parametrize(("theirs", "ours"), [("Seg", "segment"), ("Ida", "ida"), ("Ide", "ide")])
def test_free_counters_of_twix(theirs: str, ours: str, tmp_path: Path) -> None:
    pytest.importorskip("twixtools")
    made = siemens(PLANE, **{theirs: 0}) + siemens(PLANE, 5.0, **{theirs: 1})
    path = dat(tmp_path / "two.dat", [("gre", made)])
    with pytest.raises(ValueError, match=rf"two.dat: readouts 0 and 12 .* counter {ours} "):
        read_raw(path)
    assert largest(read_raw(path, RawOptions(where={ours: 1}))) == pytest.approx(5, rel=1e-4)


def test_only_averages_are_averaged(tmp_path: Path) -> None:
    """Free counters of lines of different places do no harm; two lines without a difference do."""
    shots = [acquisition(data, PLANE, step1=s, segment=s % 3) for s, data in enumerate(samples(PLANE)[0])]
    assert largest(read_raw(mrd(tmp_path / "shots.h5", {"dataset": shots}))) == pytest.approx(1, rel=1e-4)
    mean = read_raw(mrd(tmp_path / "mean.h5", {"dataset": stack(PLANE) + stack(PLANE, scale=3, average=1)}))
    assert largest(mean) == pytest.approx(2, rel=1e-4) and mean.provenance["averages"]["usual"] == 2
    twice = mrd(tmp_path / "twice.h5", {"dataset": stack(PLANE) + stack(PLANE, scale=5)})
    with pytest.raises(ValueError, match=r"readouts 0 and 12 have the same counters \(slice 0, step1 0, step2 0, aver"):
        read_raw(twice)


def test_encodings_of_one_header(tmp_path: Path) -> None:
    xml = header(SMALL)
    one = xml[xml.index(b"<encoding>") : xml.index(b"</encoding>") + 11]
    both = xml.replace(one, one + one)
    made = stack(PLANE) + stack(PLANE, scale=5, encoding_space_ref=1)
    path = mrd(tmp_path / "two.h5", {"dataset": made}, both)
    with pytest.raises(ValueError, match=r"image in encodings 0, 1 of the header; choose one with --where.encoding N"):
        read_raw(path)
    assert largest(read_raw(path, RawOptions(where={"encoding": 1}))) == pytest.approx(5, rel=1e-4)
    prescan = stack(PLANE) + stack(PLANE, scale=5, encoding_space_ref=1, flags=[CALIBRATION])
    assert largest(read_raw(mrd(tmp_path / "pre.h5", {"dataset": prescan}, both))) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("mode", [None, "separate", "external", "embedded"])
def test_calibration_lines_stay_apart_unless_the_header_says_otherwise(mode: str | None, tmp_path: Path) -> None:
    """Four lines of another contrast, 5 times as bright, two of them where the image has a line as well."""
    extra = [acquisition(5 * samples(PLANE)[0][s], PLANE, step1=s, flags=[CALIBRATION]) for s in (4, 5, 6, 7)]
    path = mrd(tmp_path / "scan.h5", {"dataset": stack(PLANE)[::2] + extra}, header(SMALL, calibration=mode))
    scan = read_raw(path)
    columns = {*range(0, 12, 2), *((5, 7) if mode == "embedded" else ())}
    assert set(scan.mask.any(0).nonzero().flatten().tolist()) == columns
    truth = COILS[:, None, None] * SMALL.grid(PLANE)[:, ::2]
    assert np.abs(scan.data[0, :, :, ::2].numpy() - truth).max() < 1e-4 * np.abs(truth).max()
    assert scan.provenance["calibration_lines_left_out"] == (2 if mode == "embedded" else 4)


@pytest.mark.parametrize("mode", [None, 1, 2, 4])
def test_calibration_lines_of_twix(mode: int | None, tmp_path: Path) -> None:
    pytest.importorskip("twixtools")
    made = siemens(PLANE, lines=range(0, 12, 2)) + siemens(PLANE, 5.0, range(4, 8), flags=["PATREFSCAN"])
    yaps = YAPS + (f"\nsPat.lAccelFactPE = 2\nsPat.ucRefScanMode = {mode}" if mode else "")
    scan = read_raw(dat(tmp_path / "scan.dat", [("gre", made)], yaps))
    assert set(scan.mask.any(0).nonzero().flatten().tolist()) == {0, 2, 4, 6, 8, 10, *((5, 7) if mode == 2 else ())}
    truth = COILS[:, None, None] * SMALL.grid(PLANE, +1)[:, ::2]
    assert np.abs(scan.data[0, :, :, ::2].numpy() - truth).max() < 1e-4 * np.abs(truth).max()


def planes(count: int, step: float = 7.0) -> list[Plane]:
    return [replace(PLANE, centre=PLANE.centre + z * step * PLANE.axes[2]) for z in range(count)]


@pytest.mark.parametrize("partitions", [2, 3, 60])
def test_a_matrix_that_counts_slices_makes_no_slab(partitions: int, tmp_path: Path) -> None:
    xml = header(replace(SMALL, matrix=(64, 12, partitions), image=(32, 12, partitions)))
    for count in (1, 3):
        made = [a for z, plane in enumerate(planes(count)) for a in stack(plane, slice=z)]
        scan = read_raw(mrd(tmp_path / f"{count}.h5", {"dataset": made}, xml))
        assert scan.data.shape == (count, 3, 32, 12) and largest(scan) == pytest.approx(1, rel=1e-4)
        assert float(scan.affine[:3, 2].norm()) == pytest.approx(7 if count > 1 else 5, rel=1e-4)
        assert "slices: all readouts have encode step 2 = 0" in scan.provenance["dimensions"]


def test_partitions_are_not_averaged_into_a_slice(tmp_path: Path) -> None:
    slab = replace(SMALL, matrix=(64, 12, 4), field_mm=(160.0, 96.0, 20.0))
    made = [
        acquisition(data, PLANE, step1=s, step2=p)
        for p, lines in enumerate(samples(PLANE, slab, partitions=4))
        for s, data in enumerate(lines)
    ]
    with pytest.raises(ValueError, match=r"4 encode steps 2 \(0 to 3\), and the header's encoded matrix \(64"):
        read_raw(mrd(tmp_path / "flat.h5", {"dataset": made}))


def test_twix_of_three_dimensions_with_one_partition(tmp_path: Path) -> None:
    pytest.importorskip("twixtools")
    for partitions in (1, 8):
        yaps = YAPS.replace("ucDimension = 2", "ucDimension = 4").replace(
            "lPartitions = 1", f"lPartitions = {partitions}"
        )
        made = [a for z, plane in enumerate(planes(2)) for a in siemens(plane, Sli=z)]
        scan = read_raw(dat(tmp_path / "scan.dat", [("gre", made)], yaps))
        assert scan.data.shape == (2, 3, 32, 12) and largest(scan) == pytest.approx(1, rel=1e-4)
    made = siemens(PLANE, Par=0) + siemens(PLANE, 5.0, Par=1)
    with pytest.raises(ValueError, match="2 encode steps 2"):
        read_raw(dat(tmp_path / "two.dat", [("gre", made)]))


def test_positions_and_directions_that_are_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neighbours of the slice's thickness and a word about it; never an order or a place that was guessed silently."""
    nowhere = [replace(PLANE, centre=np.zeros(3)) for _ in range(3)]
    made = [a for z, plane in enumerate(nowhere) for a in stack(plane, scale=1 + z, slice=z)]
    scan = read_raw(mrd(tmp_path / "zero.h5", {"dataset": made}))
    assert "positions of the slices are not in the file" in caplog.text and "5 mm" in scan.provenance["positions"]
    assert np.allclose(scan.affine[:3, 2].norm(), 5) and largest(scan.slices(1, 2)) == pytest.approx(2, rel=1e-4)
    blind = [replace(PLANE, centre=np.array([0.0, 0, 7 * z])) for z in range(3)]
    made = [a for z, plane in enumerate(blind) for a in stack(plane, slice=z)]
    for row in made:
        for name in ("read_dir", "phase_dir", "slice_dir"):
            row["head"][name] = 0
    scan = read_raw(mrd(tmp_path / "blind.h5", {"dataset": made}))
    assert torch.allclose(scan.affine[:3, 2], torch.tensor([0.0, 0, 7]).double())
    assert "taken as axial" in scan.provenance["orientation"]
    for row in made:
        row["head"]["position"] = row["head"]["position"][[2, 1, 0]]
    with pytest.raises(ValueError, match=r"have no directions, and their positions follow \[7.0, 0.0, 0.0\]"):
        read_raw(mrd(tmp_path / "sagittal.h5", {"dataset": made}))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("read_dir", (0.5, 0.5, 0.5), "readout 0: its directions .* are not three unit vectors"),
        ("slice_dir", (0, 0, 0), "readout 0: its directions .* are not three unit vectors"),
        ("position", (0, np.nan, 0), "readout 0: its position or directions are NaN"),
    ],
)
def test_places_that_cannot_be(field: str, value: Any, message: str, tmp_path: Path) -> None:
    made = stack(PLANE)
    for row in made:
        row["head"][field] = value
    with pytest.raises(ValueError, match=message):
        read_raw(mrd(tmp_path / "bad.h5", {"dataset": made}))


def test_twix_without_a_quaternion_is_taken_as_axial(tmp_path: Path) -> None:
    pytest.importorskip("twixtools")
    kind = {"centre": 32, "lines": 12, "place": PLANE.centre}
    data = samples(PLANE, sign=+1)[0]
    made = [block(data[s], s, quaternion=np.zeros(4), **kind) for s in range(12)]
    assert "taken as axial" in read_raw(dat(tmp_path / "a.dat", [("gre", made)])).provenance["orientation"]
    made = [block(data[s], s, quaternion=2 * TURN, **kind) for s in range(12)]
    with pytest.raises(ValueError, match=r"b\.dat: readout 0: its directions"):
        read_raw(dat(tmp_path / "b.dat", [("gre", made)]))


def test_averages_and_contrasts_along_a_trajectory(tmp_path: Path) -> None:
    """Spokes measured twice are averaged, with their noise; two contrasts of one spoke are refused."""
    round_ = Protocol((32, 16, 1), (160.0, 80.0, 5.0), (16, 16, 1))

    def spokes(scale: float = 1.0, **idx: Any) -> list[Any]:
        made = []
        for s in range(24):
            r, angle = (np.arange(32) - 16) / 32, np.pi * s / 24
            k = np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1)
            row = acquisition(scale * COILS[:, None] * PLANE.signal(k[:, 0] / 5, k[:, 1] / 5), PLANE, step1=s, **idx)
            row["head"]["trajectory_dimensions"], row["traj"] = 2, k.astype(np.float32).ravel()
            made.append(row)
        return made

    xml = header(round_, trajectory="radial", bandwidth=1.0)
    one = read_raw(mrd(tmp_path / "one.h5", {"dataset": noise() + spokes()}, xml))
    mean = read_raw(mrd(tmp_path / "mean.h5", {"dataset": noise() + spokes() + spokes(3, average=1)}, xml))
    assert mean.data.shape == one.data.shape and torch.allclose(mean.data, 2 * one.data, rtol=1e-4, atol=1e-4)
    assert torch.allclose(mean.noise.covariance, one.noise.covariance / 2)
    assert torch.equal(mean.geometry.samples, one.geometry.samples) and mean.provenance["averages"] == 2
    with pytest.raises(ValueError, match="counter user1"):
        read_raw(mrd(tmp_path / "two.h5", {"dataset": spokes() + spokes(5, user1=1)}, xml))
    with pytest.raises(ValueError, match="uneven averages"):
        read_raw(mrd(tmp_path / "some.h5", {"dataset": spokes() + spokes(average=1)[:5]}, xml))


@pytest.mark.parametrize("how", ["noise", "data", "both", "none"])
def test_dead_coils_are_left_out_and_said(how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made, quiet = stack(PLANE), noise()
    for row in made if how in ("data", "both") else []:
        row["data"] = (row["data"].reshape(3, -1) * np.array([1, 0, 1])[:, None]).ravel().astype(np.float32)
    for row in quiet if how in ("noise", "both") else []:
        row["data"] = (row["data"].reshape(3, -1) * np.array([1, 0, 1])[:, None]).ravel().astype(np.float32)
    scan = read_raw(mrd(tmp_path / "coils.h5", {"dataset": quiet + made}))
    whole = read_raw(mrd(tmp_path / "whole.h5", {"dataset": noise() + stack(PLANE)}))
    left = [0, 1, 2] if how == "none" else [0, 2]
    assert torch.equal(scan.data, whole.data[:, left])
    assert torch.allclose(scan.noise.covariance, whole.noise.covariance[left][:, left])
    assert scan.provenance.get("dead_coils") == (None if how == "none" else [1])
    assert ("coils [1] have no noise or no signal" in caplog.text) == (how != "none")
    for row in (silent := stack(PLANE)):
        row["data"] = np.zeros_like(row["data"])
    with pytest.raises(ValueError, match="nothing was measured"):
        read_raw(mrd(tmp_path / "zero.h5", {"dataset": silent}))


def test_info_names_what_can_be_chosen(tmp_path: Path) -> None:
    path = mrd(tmp_path / "scan.h5", {"dataset": noise() + stack(PLANE) + stack(PLANE, contrast=1, user2=4)})
    told = formats.info(path)
    assert told["counters"] == {"contrast": "0, 1", "user2": "0, 4"} and told["image_readouts"] == 24
    with h5py.File(path) as h5:
        assert list(h5) == ["dataset"]
