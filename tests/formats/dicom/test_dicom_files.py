"""What holds the images: folders with links, files that lack part of their wrapping, damage, and bombs."""

import os
import random
import threading
import zlib
from pathlib import Path

import dicom_grid as grid
import numpy as np
import pydicom
import pytest
import torch
from dicom_grid import Freedoms
from dicom_maker import OBLIQUE, file_at, make_series, values
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless

from medrecon import formats
from medrecon.core import atomic
from medrecon.core.volume import Volume
from medrecon.data.describe import _kind
from medrecon.formats import read
from medrecon.formats.dicom.format import Dicom


def test_links_to_folders_and_files_are_followed_once(tmp_path: Path) -> None:
    """A linked folder, the same again, a linked slice and a circle."""
    make_series(tmp_path / "store" / "sub-01")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "sub-01").symlink_to("../store/sub-01")
    (tmp_path / "study" / "again").symlink_to("../store/sub-01")
    (tmp_path / "store" / "sub-01" / "circle").symlink_to("..")
    np.testing.assert_array_equal(read(tmp_path / "study").data.numpy(), values(6, (12, 16)))
    (tmp_path / "slices").mkdir()
    for path in (tmp_path / "store" / "sub-01").glob("im*"):
        (tmp_path / "slices" / path.name).symlink_to(path)
    assert len(read(tmp_path / "slices").data) == 6


@pytest.mark.parametrize("what", ["link to nothing", "empty"])
def test_a_slice_that_is_not_there_does_not_shorten_the_volume(what: str, tmp_path: Path) -> None:
    make_series(tmp_path / "s", prefix="im.dcm")
    last = file_at(tmp_path / "s", 5)
    last = last.rename(last.with_suffix(".dcm"))
    if what == "empty":
        last.write_bytes(b"")
    else:
        last.unlink()
        last.symlink_to("gone")
    with pytest.raises(ValueError, match=f"{what}, a slice may be missing") as error:
        read(tmp_path / "s")
    assert str(last) in str(error.value)


@pytest.mark.parametrize("rest", [b"", b"\0" * 131, b"rubbish" * 100])
@pytest.mark.parametrize("pattern", ["IM{:04d}", "1.2.840.{}", "I.{:03d}", "s{}.dcm"])
def test_what_is_left_of_a_slice_does_not_shorten_the_volume(pattern: str, rest: bytes, tmp_path: Path) -> None:
    """It is no DICOM file any more; its name tells."""
    make_series(tmp_path / "s")
    for i in range(6):
        file_at(tmp_path / "s", i).rename(tmp_path / "s" / pattern.format(i + 1))
    (tmp_path / "s" / "LICENSE").write_text("no image")
    assert read(tmp_path / "s").data.shape[0] == 6
    last = tmp_path / "s" / pattern.format(6)
    last.write_bytes(rest)
    with pytest.raises(ValueError, match="a slice may be missing") as error:
        read(tmp_path / "s")
    assert str(last) in str(error.value)


def test_a_link_to_itself_is_told(tmp_path: Path) -> None:
    make_series(tmp_path / "s")
    (tmp_path / "s" / "loop").symlink_to("loop")
    with pytest.raises(ValueError, match="loop: a link to nothing"):
        read(tmp_path / "s")


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_series(tmp_path / "s" / "a")
    make_series(tmp_path / "s" / "b")
    listed = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError, match="s/b"):
        read(tmp_path / "s")


def test_pipes_and_devices_do_not_hang(tmp_path: Path) -> None:
    make_series(tmp_path / "s")
    os.mkfifo(tmp_path / "s" / "pipe.dcm")
    said: list[str] = []

    def attempt() -> None:
        assert len(read(tmp_path / "s").data) == 6
        for path in (tmp_path / "s" / "pipe.dcm", Path("/dev/zero")):
            with pytest.raises(ValueError, match="a pipe, a socket or a device") as error:
                read(path)
            said.append(str(error.value))

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(20)
    assert len(said) == 2 and str(tmp_path / "s" / "pipe.dcm") in said[0]


def test_compressed_pixels_need_a_transfer_syntax(tmp_path: Path) -> None:
    f = Freedoms(syntax=RLELossless)
    grid.write(f, tmp_path / "s")
    for path in (tmp_path / "s").iterdir():
        data = path.read_bytes()
        at = data.index(b"\x02\0\x10\0UI")
        path.write_bytes(data[:at] + data[at + 8 + int.from_bytes(data[at + 6 : at + 8], "little") :])
    with pytest.raises(ValueError, match="the pixels are compressed, and TransferSyntaxUID does not say how") as error:
        read(tmp_path / "s")
    assert str(tmp_path / "s") in str(error.value)


def test_files_without_preamble_are_known_by_all(tmp_path: Path) -> None:
    """A folder of them describes itself, and text or numbers that begin like one are none."""
    grid.write(Freedoms("MR", wrapping="no preamble"), tmp_path / "s")
    assert _kind(tmp_path / "s") == ("dicom", "MR") and formats.info(tmp_path / "s")["kind"] == "DICOM"
    (tmp_path / "x").write_bytes(b"\x08\0\x05\0" + bytes(5000))
    assert not Dicom().recognises(tmp_path / "x")


def test_deflated_bombs_are_refused_before_they_unfold(tmp_path: Path) -> None:
    """A hundred MiB of zeros as one element; a deflated image of one value is no bomb."""
    folder = grid.write(Freedoms(syntax=DeflatedExplicitVRLittleEndian), tmp_path / "s")
    path = sorted(folder.iterdir())[0]
    data = path.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    inside = zlib.decompress(data[start:], -zlib.MAX_WBITS)
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = squeeze.compress(inside)
    for _ in range(100):
        packed += squeeze.compress(bytes(2**20))
    path.write_bytes(data[:start] + packed + squeeze.flush())
    with pytest.raises(ValueError, match=r"deflated, and more than 6\d MiB when inflated") as error:
        read(folder)
    assert str(path) in str(error.value)
    flat = pydicom.dcmread(make_flat(tmp_path / "flat"))
    flat.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    flat.save_as(tmp_path / "flat.dcm")
    assert (tmp_path / "flat.dcm").stat().st_size < 4000 and float(read(tmp_path / "flat.dcm").data.max()) == -1000


def make_flat(folder: Path) -> Path:
    make_series(folder, count=1, size=(512, 512))
    path = next(folder.iterdir())
    dataset = pydicom.dcmread(path)
    dataset.PixelData = np.full((512, 512), 24, "<u2").tobytes()
    dataset.save_as(path)
    return path


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_more_pixels_claimed_than_the_file_can_hold_take_no_memory(syntax: str, tmp_path: Path) -> None:
    make_series(tmp_path / "s", count=1)
    path = next((tmp_path / "s").iterdir())
    dataset = pydicom.dcmread(path)
    if syntax == RLELossless:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.Rows = dataset.Columns = 65535
    dataset.save_as(path)
    with pytest.raises(ValueError, match=r"claims 1638\d MiB of pixels") as error:
        read(path)
    assert str(path) in str(error.value)


def test_slices_that_are_left_out_may_be_damaged(tmp_path: Path) -> None:
    make_series(tmp_path / "s")
    bad = file_at(tmp_path / "s", 4)
    bad.write_bytes(bad.read_bytes()[:-50])
    with pytest.raises(ValueError, match=bad.name):
        read(tmp_path / "s")
    part = read(tmp_path / "s", slices=lambda count: (1, count - 2))
    np.testing.assert_array_equal(part.data.numpy(), values(6, (12, 16))[1:4])
    assert len(part.source["dicom"]) == 3
    header = pydicom.dcmread(part.source["dicom"][0])
    place = np.array(header.ImagePositionPatient, float) * [-1, -1, 1]
    np.testing.assert_allclose(part.affine[:3, 3].numpy(), place, atol=1e-6)


def test_slices_of_other_formats_are_cut_after_reading(tmp_path: Path) -> None:
    make_series(tmp_path / "s")
    formats.write(read(tmp_path / "s"), tmp_path / "v.nii.gz")
    whole = read(tmp_path / "v.nii.gz", modality="CT")
    part = read(tmp_path / "v.nii.gz", modality="CT", slices=lambda count: (2, count))
    np.testing.assert_array_equal(part.data.numpy(), whole.data.numpy()[2:])
    np.testing.assert_allclose(part.affine.numpy(), whole.slices(2, 6).affine.numpy())


@pytest.mark.parametrize("enhanced", [False, True])
def test_damage_is_refused_by_name_or_changes_nothing(enhanced: bool, tmp_path: Path) -> None:
    """Sixty headers cut, zeroed or shifted at places of a fixed seed; what no format could tell is left out."""
    f = Freedoms("MR", enhanced, slopes="mixed", padding="high", plane="oblique", count=3)
    folder = grid.write(f, tmp_path / "s")
    path = sorted(folder.iterdir())[0]
    data, draw = path.read_bytes(), random.Random(5)
    end = data.index(b"\xe0\x7f\x10\0")  # of the header
    refused = 0
    for _ in range(60):
        at, length = draw.randrange(132, end - 64), draw.randrange(8, 64)
        kind = draw.choice(["cut", "zeroed", "shifted"])
        parts = {"cut": (b"", b""), "zeroed": (bytes(length), data[at + length :]), "shifted": (b"\1", data[at:])}
        path.write_bytes(data[:at] + b"".join(parts[kind]))
        try:
            volume = read(folder)
        except ValueError as error:
            assert str(folder) in str(error), (kind, at)  # noqa: PT017
            refused += 1
            continue
        np.testing.assert_array_equal(volume.data.numpy(), f.expected(), err_msg=f"{kind} at {at}")
        np.testing.assert_allclose(volume.affine.numpy(), f.affine(), atol=1e-6, err_msg=f"{kind} at {at}")
    assert refused > 30


@pytest.mark.parametrize(
    ("own", "meta"),
    [
        ("1.2.840.10008.5.1.4.1.1.299", None),
        ("1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.2"),
        (None, "1.2.84010008.5.1.4.1.1.2"),
        (None, "1.2.826.0.1.3680043"),
    ],
)
def test_a_slice_whose_class_is_damaged_is_not_left_out(own: str | None, meta: str | None, tmp_path: Path) -> None:
    """It is the last one, and its class is not known, another than its meta information says, or said there alone."""
    make_series(tmp_path / "s")
    dataset = pydicom.dcmread(path := file_at(tmp_path / "s", 5))
    for holder, name, value in (
        (dataset, "SOPClassUID", own),
        (dataset.file_meta, "MediaStorageSOPClassUID", meta or "1.2.3"),
    ):
        delattr(holder, name)
        if value is not None:
            setattr(holder, name, value)
    if meta is None:
        del dataset.file_meta.MediaStorageSOPClassUID
    pydicom.dcmwrite(path, dataset, enforce_file_format=False)
    with pytest.raises(ValueError, match="restore or remove it") as error:
        read(tmp_path / "s")
    assert f"{path}: damaged DICOM file" in str(error.value)


def test_objects_of_known_and_of_private_classes_are_left_out(tmp_path: Path) -> None:
    make_series(tmp_path / "s")
    for name, uid in (("sr", "1.2.840.10008.5.1.4.1.1.88.33"), ("csa", "1.3.12.2.1107.5.9.1")):
        make_series(tmp_path / "t", count=1, prefix=name)
        dataset = pydicom.dcmread(next((tmp_path / "t").glob(f"{name}*")))
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid
        dataset.save_as(tmp_path / "s" / name)
    assert len(read(tmp_path / "s").data) == 6


def test_modality_and_class_agree(tmp_path: Path) -> None:
    make_series(tmp_path / "s", modality="MR", Modality="CT")
    with pytest.raises(ValueError, match="SOPClassUID is that of MR, and Modality says CT") as error:
        read(tmp_path / "s")
    assert str(tmp_path / "s") in str(error.value)


DAMAGES = ("cut at 0", "cut at 100", "cut at 131", "magic", "lost", "header", "start", "rubbish")


@pytest.mark.parametrize(
    ("name", "damage"), [*(("IM0003", damage) for damage in DAMAGES), ("b.dat", "rubbish"), ("c.dcm", "cut at 60")]
)
def test_a_damaged_slice_of_another_name_is_not_left_out_in_silence(
    damage: str, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The last slice, of a name unlike the others': nothing else tells that it is missing."""
    make_series(tmp_path / "s", InstanceNumber=None)
    data = (path := file_at(tmp_path / "s", 5)).read_bytes()
    path.unlink()
    rest = {
        "magic": data[:128] + b"XXXX" + data[132:],
        "lost": data[3:],
        "header": bytes(256) + data[256:],
        "start": data[132:][:60],
        "rubbish": bytes((i * 7919 + 13) % 251 for i in range(len(data))),
    }
    path = tmp_path / "s" / name
    path.write_bytes(rest[damage] if damage in rest else data[: int(damage.split()[-1])])
    try:
        assert len(read(tmp_path / "s").data) == 5
        assert f"{path}: is no DICOM file, and may have been one" in caplog.text
    except ValueError as error:
        assert f"{path}: " in str(error) and "restore or remove it" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("name", "content"),
    [("README", b"The knee of a dog, see LICENSE."), (".DS_Store", b"\0\0\0\1Bud1" + bytes(600)), ("a.json", b"{}")]
    + [("._im1", b"\0\5\x16\7\0\2\0\0Mac OS X"), ("dump.txt", b"(0008,0016) UI 1.2.840.10008.5.1.4.1.1.2")],
)
def test_what_never_was_an_image_is_left_out_in_silence(
    name: str, content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_series(tmp_path / "s")
    (tmp_path / "s" / name).write_bytes(content)
    assert len(read(tmp_path / "s").data) == 6 and not caplog.records


@pytest.mark.parametrize(
    ("told", "gone", "says"), [("InstanceNumber", 5, "and 1 is not there"), ("count", 0, "6 images")]
)
def test_an_end_slice_that_is_gone_is_told(
    told: str, gone: int, says: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No gap tells: the numbers of the others do, or how many there should be."""
    make_series(tmp_path / "s", **({"ImagesInAcquisition": 6} if told == "count" else {}))
    read(tmp_path / "s")
    assert not caplog.records
    file_at(tmp_path / "s", gone).unlink()
    assert len(read(tmp_path / "s").data) == 5
    assert says in caplog.text and "a slice may be missing at an end of the volume" in caplog.text


def test_every_second_slice_was_left_out_on_purpose(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_series(tmp_path / "s", count=8, ImagesInAcquisition=8)
    for path in [file_at(tmp_path / "s", i) for i in (1, 3, 5, 7)]:
        path.unlink()
    assert len(read(tmp_path / "s").data) == 4 and not caplog.records


def test_frames_before_the_cut_can_be_read(tmp_path: Path) -> None:
    """An enhanced file that ends in its second frame of four; that is the third slice, and the fourth is the first."""
    f = Freedoms("MR", True, count=4)
    path = next(grid.write(f, tmp_path / "s").iterdir())
    path.write_bytes(path.read_bytes()[: -2 * 32 * 36 * 2 - 100])
    with pytest.raises(ValueError, match=r"they end after frame 1.*leave slice 0 out with --slices") as error:
        read(path)
    assert str(path) in str(error.value)
    with pytest.raises(ValueError, match="leave slice 2 out"):
        read(path, slices=lambda count: (2, count))
    np.testing.assert_array_equal(read(path, slices=lambda count: (3, count)).data.numpy(), f.expected()[3:])


def test_a_frame_without_a_place_leaves_the_others(tmp_path: Path) -> None:
    f = Freedoms("MR", True, count=4)
    path = next(grid.write(f, tmp_path / "s").iterdir())
    dataset = pydicom.dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence  # the last slice
    dataset.save_as(path)
    with pytest.raises(ValueError, match=r"frame 1: no usable geometry.*choose one with series=LABEL") as error:
        read(path)
    label = str(error.value).splitlines()[1].split(":")[0].strip()
    np.testing.assert_array_equal(read(path, series=label).data.numpy(), f.expected()[:3])


def test_a_slice_off_the_line_leaves_the_others(tmp_path: Path) -> None:
    make_series(tmp_path / "s")
    dataset = pydicom.dcmread(path := file_at(tmp_path / "s", 3))
    place = np.array(dataset.ImagePositionPatient, float) + 3 * OBLIQUE[0]
    dataset.ImagePositionPatient = [f"{v:.6f}" for v in place]
    dataset.save_as(path)
    with pytest.raises(ValueError, match="not on a line") as error:
        read(tmp_path / "s")
    labels = [line.split(":")[0].strip() for line in str(error.value).splitlines()[1:]]
    assert [len(read(tmp_path / "s", series=label).data) for label in labels] == [3, 1, 2]


@pytest.mark.parametrize(("name", "says"), [("series", "below -1024 HU"), ("v.nii.gz", "sheared")])
def test_warnings_name_what_is_written_and_no_temporary_path(
    name: str, says: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As the demo does: an output inside a folder that appears whole."""
    affine = torch.eye(4, dtype=torch.float64)
    affine[1, 2] = 0.3
    volume = Volume(torch.full((2, 4, 4), -3000.0), affine, "HU", "CT")
    with atomic.outputs((tmp_path / "demo",), lambda: None) as (made,):
        made.mkdir()
        formats.write(volume, made / name)
    assert says in caplog.text and f"{tmp_path / 'demo' / name}: " in caplog.text and ".partial" not in caplog.text
