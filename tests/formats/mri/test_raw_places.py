"""Where raw MRI lies: readouts that disagree, slices beside their place, lengths in other units; one bad slice."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mri_raw_files import SMALL, YAPS, acquisition, dat, mrd, siemens, stack
from mri_raw_maker import Plane, header

from medrecon.acquisition.options import RawOptions
from medrecon.formats import read_raw

pytest.importorskip("ismrmrd")
pytestmark = pytest.mark.usefixtures("one_thread")
PLANE = Plane(np.array([12.0, -34.0, 56.0]), blobs=((1.0, 14.0, -9.0),))


def planes(count: int, step: float = 7.0) -> list[Plane]:
    return [replace(PLANE, centre=PLANE.centre + step * z * PLANE.axes[2]) for z in range(count)]


def rows(places: list[Plane]) -> list[Any]:
    return [row for z, plane in enumerate(places) for row in stack(plane, slice=z)]


@pytest.mark.parametrize("line", [0, 17, 35])
@pytest.mark.parametrize("name", ["position", "read_dir", "phase_dir", "slice_dir"])
def test_one_readout_elsewhere_moves_nothing_and_is_named(
    name: str, line: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = rows(planes(3))
    good = read_raw(mrd(tmp_path / "good.h5", {"dataset": made}))
    assert not caplog.records
    made[line]["head"][name] = made[line]["head"][name][::-1].copy()
    scan = read_raw(mrd(tmp_path / "one.h5", {"dataset": made}))
    assert torch.equal(scan.affine, good.affine) and torch.equal(scan.data, good.data)
    assert f"slice {line // 12}: 1 of its 12 readouts lie elsewhere (readout {line}," in caplog.text
    assert scan.provenance["readouts_elsewhere"] == {str(line // 12): 1}


@pytest.mark.parametrize("line", [0, 7])
def test_one_readout_of_twix_elsewhere(line: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("twixtools")
    good = read_raw(dat(tmp_path / "good.dat", [("gre", siemens(PLANE))]))
    for change in ("place", "turn"):
        made = siemens(PLANE)
        if change == "place":
            made[line].mdh.SliceData.SlicePos.Cor += 25
        else:
            made[line].mdh.SliceData.Quaternion[1] *= -1
        caplog.clear()
        scan = read_raw(dat(tmp_path / "one.dat", [("gre", made)]))
        assert torch.equal(scan.affine, good.affine) and f"(readout {line}," in caplog.text


def test_a_scanner_that_followed_the_patient_is_refused(tmp_path: Path) -> None:
    made = rows(planes(2))
    for n, row in enumerate(made[12:]):
        row["head"]["position"][0] += 0.3 * n
    path = mrd(tmp_path / "moved.h5", {"dataset": made})
    with pytest.raises(
        ValueError, match=r"moved.h5: slice 1: its readouts lie at several places \(readout 12, 1\.\d+ mm"
    ):
        read_raw(path)
    assert read_raw(path, RawOptions(slices=(0, 1))).data.shape[0] == 1


@pytest.mark.parametrize(
    ("move", "message"),
    [
        (lambda z: PLANE.axes[0] * 0.7 * (z == 2), "slice 2 lies 0.7 mm beside its place in an even stack"),
        (lambda z: PLANE.axes[1] * 0.1 * z * (4 - z), "shifted in their plane: slice 2 lies 0.4 mm"),  # bent
        (lambda z: PLANE.axes[1] * 200.0 * z, "only 7 mm along their normal"),
        (lambda z: PLANE.axes[2] * -6.99 * z, "0.01 mm apart"),  # positions in metres, thickness in mm
    ],
)
def test_slices_beside_their_place_are_refused(move: Callable[[int], Any], message: str, tmp_path: Path) -> None:
    made = rows([replace(p, centre=p.centre + move(z)) for z, p in enumerate(planes(5))])
    with pytest.raises(ValueError, match=rf"bad.h5: .*{message}"):
        read_raw(mrd(tmp_path / "bad.h5", {"dataset": made}))


def test_a_stack_that_leans_lies_where_it_is(tmp_path: Path) -> None:
    places = [replace(p, centre=p.centre + 3.0 * z * p.axes[1]) for z, p in enumerate(planes(3))]
    scan = read_raw(mrd(tmp_path / "lean.h5", {"dataset": rows(places)}))
    for z, plane in enumerate(places):
        assert np.allclose((scan.affine.numpy() @ [6, 16, z, 1])[:3], [-1, -1, 1] * plane.centre, atol=1e-4)


def test_slices_without_positions_keep_their_place_when_read_alone(tmp_path: Path) -> None:
    nowhere = [replace(p, centre=np.zeros(3)) for p in planes(4)]
    path = mrd(tmp_path / "k.h5", {"dataset": rows(nowhere)})
    whole, part = read_raw(path), read_raw(path, RawOptions(slices=(2, 4)))
    assert torch.allclose(part.affine, whole.slices(2, 4).affine)


@pytest.mark.parametrize(
    ("field", "image"),
    [
        ((0.16, 96.0, 5.0), (0.08, 96.0, 5.0)),
        ((160.0, 0.096, 5.0), (80.0, 0.096, 5.0)),
        ((160.0, 96.0, 0.005), (80.0, 96.0, 0.005)),
        ((160.0, 96.0, 5.0), (0.08, 96.0, 5.0)),
        ((160.0, 96.0, 5.0), (80.0, 0.096, 5.0)),
        ((160e3, 96e3, 5.0), (80e3, 96e3, 5.0)),
    ],
)
def test_lengths_in_other_units_are_refused(field: Any, image: Any, tmp_path: Path) -> None:
    import ismrmrd

    parsed = ismrmrd.xsd.CreateFromDocument(header(SMALL))
    for space, values in (("encodedSpace", field), ("reconSpace", image)):
        of = getattr(parsed.encoding[0], space).fieldOfView_mm
        of.x, of.y, of.z = values
    with pytest.raises(ValueError, match=r"k.h5: header: .*are all lengths in mm\?"):
        read_raw(mrd(tmp_path / "k.h5", {"dataset": stack(PLANE)}, ismrmrd.xsd.ToXML(parsed).encode()))


@pytest.mark.parametrize(("name", "mm"), [("dThickness", "5.0"), ("dPhaseFOV", "96.0"), ("dReadoutFOV", "80.0")])
def test_lengths_of_twix_in_other_units_are_refused(name: str, mm: str, tmp_path: Path) -> None:
    pytest.importorskip("twixtools")
    yaps = YAPS.replace(f"{name} = {mm}", f"{name} = {float(mm) / 1000}")
    assert yaps != YAPS
    with pytest.raises(ValueError, match=r"k.dat: header: .*are all lengths in mm\?"):
        read_raw(dat(tmp_path / "k.dat", [("gre", siemens(PLANE))], yaps))


def not_a_number(row: Any) -> Any:
    row["data"] = row["data"] * np.nan
    return row


def fewer_coils(row: Any) -> Any:
    return acquisition(row["data"].view(np.complex64).reshape(3, -1)[:2], PLANE, slice=2, step1=4)


def far_step(row: Any) -> Any:
    row["head"]["idx"]["kspace_encode_step_1"] = 99
    return row


def twice(row: Any) -> Any:
    row["head"]["idx"]["kspace_encode_step_1"] = 5
    return row


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (not_a_number, "readout 28: NaN"),
        (fewer_coils, "readout 28: 2 coils"),
        (far_step, "readout 28: encode step 1 is 99"),
        (twice, "readouts 28 and 29 have the same counters"),
    ],
)
def test_a_bad_slice_costs_no_other(spoil: Callable[[Any], Any], message: str, tmp_path: Path) -> None:
    made = rows(planes(3))
    good = read_raw(mrd(tmp_path / "good.h5", {"dataset": made}), RawOptions(slices=(0, 2)))
    made[28] = spoil(made[28])
    path = mrd(tmp_path / "bad.h5", {"dataset": made})
    with pytest.raises(ValueError, match=message):
        read_raw(path)
    scan = read_raw(path, RawOptions(slices=(0, 2)))
    assert torch.equal(scan.data, good.data) and torch.equal(scan.affine, good.affine)
