"""fastMRI files: grid, padding, mask, crop and target against the public definition; bad files."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fastmri_maker as maker
import h5py
import numpy as np
import pytest
import torch

from medrecon import formats
from medrecon.acquisition.options import OptionError, RawOptions
from medrecon.cli import main
from medrecon.formats.fastmri import header as fastmri_header
from medrecon.formats.measurement_file import load_scan, save_scan
from medrecon.formats.raw_data import read_raw, recognise
from medrecon.geometry import Cartesian
from medrecon.pipeline import reconstruct
from medrecon.quality.evaluate import evaluate, same_grid

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE, KEPT, PADDING = (64, 46), (32, 32), 4


@pytest.fixture(scope="module")
def stack() -> maker.Complex:
    return maker.kspace(3, 4, SHAPE, PADDING)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, stack: maker.Complex) -> Path:
    return maker.write(tmp_path_factory.mktemp("fastmri") / "brain.h5", stack, KEPT, padding=PADDING)


def test_scan_has_the_samples_the_grid_and_the_padding(file: Path, stack: maker.Complex, tmp_path: Path) -> None:
    assert recognise(file).name == "fastmri"
    scan = read_raw(file)
    assert np.array_equal(scan.data.numpy(), stack) and scan.image_shape == SHAPE
    assert scan.geometry == Cartesian((32, 32)) and scan.maps is None
    expected = np.zeros(SHAPE, bool)
    expected[:, PADDING:-PADDING] = True
    assert scan.mask is not None and np.array_equal(scan.mask.numpy(), expected)
    column, row, pitch = torch.linalg.vector_norm(scan.affine[:3, :3], dim=0).tolist()
    assert (row, column) == pytest.approx(maker.PIXEL) and pitch == 4.5
    centre = scan.affine @ torch.tensor([SHAPE[1] // 2, SHAPE[0] // 2, 1.0, 1.0], dtype=torch.float64)
    assert torch.allclose(centre[:3], torch.zeros(3, dtype=torch.float64), atol=1e-9)
    assert scan.provenance["acquisition"] == "AXT2" and scan.provenance["max"] == 1.25
    assert scan.provenance["acceleration"] == pytest.approx(46 / 38)
    text = json.dumps(scan.provenance)
    assert "SECRET" not in text and "0123456789abcdef" not in text
    save_scan(scan, tmp_path / "scan.h5")
    assert torch.equal(load_scan(tmp_path / "scan.h5").data, scan.data)


def test_only_the_slices_asked_for_are_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    original = h5py.Dataset.__getitem__

    def spy(self: h5py.Dataset, index: object, **other: object) -> object:
        seen.append(index) if self.name == "/kspace" else None
        return original(self, index, **other)

    whole = read_raw(file)
    monkeypatch.setattr(h5py.Dataset, "__getitem__", spy)
    part = read_raw(file, RawOptions(slices=(1, 3)))
    assert seen == [slice(1, 3)]
    assert torch.equal(part.data, whole.data[1:])
    torch.testing.assert_close(part.affine, whole.slices(1, 3).affine)


@pytest.mark.parametrize("kept", [(32, 32), (31, 33), (64, 46), (80, 60)])
def test_reconstruction_lies_on_the_target(kept: tuple[int, int], tmp_path: Path, stack: maker.Complex) -> None:
    """Zero-filled of one coil's data is the public definition itself; on the target's grid, in its units."""
    size = (min(kept[0], 64), min(kept[1], 46))
    image = maker.ifft(stack[:, :1])
    file = maker.write(
        tmp_path / "x.h5",
        stack[:, 0],
        size,
        padding=PADDING,
        targets=("reconstruction_esc",),
        kept_rows=kept[0],
        kept_columns=kept[1],
    )
    scan = read_raw(file)
    ones = torch.ones(3, 1, *SHAPE, dtype=torch.complex64)
    volume, _ = reconstruct(replace(scan, maps=ones), "zero-filled")
    target = formats.read(file)
    assert target.units == "a.u." and target.modality == "MR" and target.data.shape[1:] == size
    np.testing.assert_allclose(target.data.numpy(), maker.rss(stack[:, :1], size), rtol=1e-6)
    assert np.abs(image).max() == pytest.approx(float(target.data.max()), rel=1e-5)
    scores = evaluate(volume, target)
    even = size != (31, 33)
    assert same_grid(volume, target) is even  # fastMRI crops an even matrix to an odd one a pixel beside ours
    assert scores["rmse"] < 1e-4 * float(target.data.max())


def test_a_cropped_k_space_is_not_the_target(file: Path, stack: maker.Complex) -> None:
    """Negative control: cropping k-space instead of the image, a usual mistake, is far off."""
    wrong = np.sqrt((np.abs(maker.ifft(stack[..., 16:48, 7:39])) ** 2).sum(1))
    right = formats.read(file).data.numpy()
    assert np.linalg.norm(wrong - right) > 0.3 * np.linalg.norm(right)


def test_command_line_from_file_to_figures(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan, out = str(tmp_path / "scan.h5"), str(tmp_path / "x.nii.gz")
    assert main(["import", str(file), "-o", scan, "--slices", "1:3"]) == 0
    assert (
        main(
            ["undersample", scan, "-o", str(tmp_path / "r2.h5"), "--accel", "2", "--acs", "12", "--mask", "equispaced"]
        )
        == 0
    )
    capsys.readouterr()
    for source, worst in ((scan, 0.01), (str(tmp_path / "r2.h5"), 0.1)):
        assert main(["recon", source, "-o", out, "--solver", "cg-sense", "--overwrite", "--quiet"]) == 0
        assert formats.read(out).data.shape == (2, *KEPT)
        assert main(["evaluate", out, str(file), "--json"]) == 0
        scores = json.loads(capsys.readouterr().out)
        assert scores["grid"]["slices_left_out"] == [0] and scores["grid"]["covered"] == pytest.approx(1.0)
        assert scores["nmse"] < worst
    assert main(["evaluate", out, str(file), "--series", "esc"]) == 1
    listed = "reconstruction_esc missing; the file has ismrmrd_header, kspace, reconstruction_rss"
    assert listed in capsys.readouterr().err


def test_mask_of_a_test_file(tmp_path: Path, stack: maker.Complex) -> None:
    """Columns of the mask, without those of the padding, which the mask counts as sampled."""
    mask = np.zeros(SHAPE[1], np.float32)
    mask[::3] = mask[18:28] = mask[:PADDING] = 1
    file = maker.write(tmp_path / "t.h5", stack * (mask > 0), KEPT, padding=PADDING, mask=mask, targets=())
    scan = read_raw(file)
    expected = (mask > 0) & (np.arange(SHAPE[1]) >= PADDING) & (np.arange(SHAPE[1]) < SHAPE[1] - PADDING)
    assert scan.mask is not None and np.array_equal(scan.mask.numpy(), np.broadcast_to(expected, SHAPE))
    with pytest.raises(ValueError, match=r"no reference image, only ismrmrd_header, kspace, mask; medrecon import"):
        formats.read(file)


def test_partial_fourier_and_limits_that_contradict_the_data(tmp_path: Path, stack: maker.Complex) -> None:
    """Limits that are not symmetric; samples beyond them do not count, and the provenance says how many."""
    scan = read_raw(maker.write(tmp_path / "pf.h5", stack, KEPT, last=27, centre=8))
    assert scan.provenance["columns"] == [15, 43] and scan.mask is not None
    assert scan.mask.any(0).nonzero().flatten().tolist() == list(range(15, 42))  # zeros from 42 on
    assert scan.provenance["samples_outside_the_limits"] == 64 * (15 - PADDING)
    assert not bool(scan.data[..., :15].any())


def test_single_coil_takes_its_own_target(tmp_path: Path, stack: maker.Complex) -> None:
    both = ("reconstruction_esc", "reconstruction_rss")
    single = maker.write(tmp_path / "s.h5", stack[:, 0], KEPT, targets=both)
    multi = maker.write(tmp_path / "m.h5", stack, KEPT, targets=both)
    assert read_raw(single).data.shape == (3, 1, *SHAPE)
    assert formats.read(single).source["target"] == "reconstruction_esc"
    assert formats.read(multi).source["target"] == "reconstruction_rss"
    assert formats.read(single, series="rss").source["target"] == "reconstruction_rss"
    with h5py.File(single, "a") as h5:
        del h5["kspace"]
    with pytest.raises(ValueError, match=r"s.h5: holds reconstruction_esc and reconstruction_rss; choose one"):
        formats.read(single)


def test_without_a_header_the_pixel_is_asked_for(tmp_path: Path, stack: maker.Complex, file: Path) -> None:
    with h5py.File(tmp_path / "bare.h5", "w") as h5:
        h5["kspace"] = stack
    scan = read_raw(tmp_path / "bare.h5")
    assert scan.provenance["pixel_from"] == "not in the file: taken as 1 mm" and scan.crop is None
    assert read_raw(tmp_path / "bare.h5", RawOptions(pixel=0.5)).affine[0, 0] == -0.5
    with pytest.raises(OptionError, match="pixel: the header of this file tells the field of view"):
        read_raw(file, RawOptions(pixel=0.5))


def test_a_target_without_a_header_says_what_to_do(
    tmp_path: Path, stack: maker.Complex, caplog: pytest.LogCaptureFixture
) -> None:
    with h5py.File(tmp_path / "bare.h5", "w") as h5:
        h5["reconstruction_rss"] = np.abs(stack[:, 0])
    assert formats.read(tmp_path / "bare.h5").spacing[0] == 1
    assert "bare.h5: no header that tells the pixel size: a pixel counts as 1 mm" in caplog.text
    assert "--pixel of medrecon import sets it for the k-space" in caplog.text


def spoil(change: Callable[[h5py.File], None], source: Path, path: Path) -> Path:
    path.write_bytes(source.read_bytes())
    with h5py.File(path, "a") as h5:
        change(h5)
    return path


def replaced(key: str, value: object) -> Callable[[h5py.File], None]:
    def change(h5: h5py.File) -> None:
        if key in h5:
            del h5[key]
        if value is not None:
            h5[key] = value

    return change


def poisoned(h5: h5py.File) -> None:
    h5["kspace"][1, 2, 3, 4] = np.nan
    h5["reconstruction_rss"][2, 0, 0] = np.inf


def emptied(h5: h5py.File) -> None:
    h5["kspace"][2] = 0


BOMB = b'<?xml version="1.0"?><!DOCTYPE b [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;">]><b>&b;</b>'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replaced("kspace", None), r"bad.h5: kspace: missing; the file has ismrmrd_header, reconstruction_rss"),
        (
            replaced("kspace", np.zeros((3, 64, 46, 4, 2), np.complex64)),
            r"kspace: expected rank 3 or 4, got shape \(3, 64",
        ),
        (replaced("kspace", np.zeros((3, 4, 64, 46))), r"kspace: expected a dataset of complex numbers, got float64"),
        (
            replaced("kspace", np.ones((3, 320, 160, 8), np.complex64)),
            r"kspace: 320 coils of 160 x 8 samples; the coils",
        ),
        (replaced("kspace", np.zeros((0, 4, 64, 46), np.complex64)), r"kspace: empty"),
        (poisoned, r"kspace: 1 NaN or infinite samples in slice 1; leave it out with slices"),
        (emptied, r"kspace: slice 2 is 0 everywhere"),
        (replaced("mask", np.ones(40)), r"mask: expected \(46,\), one value a column of kspace, .* got \(40,\)"),
        (replaced("mask", np.zeros(46)), r"mask: leaves no sample of k-space"),
        (replaced("ismrmrd_header", b"<ismrmrdHeader"), r"ismrmrd_header: not XML"),
        (replaced("ismrmrd_header", BOMB), r"ismrmrd_header: has a document type"),
        (replaced("ismrmrd_header", b"<a/>"), r"ismrmrd_header: encoding missing"),
        (replaced("ismrmrd_header", 3.0), r"ismrmrd_header: expected one text"),
        (
            replaced("ismrmrd_header", maker.header(SHAPE, KEPT, 4, fov_x=0).encode()),
            r"encoding/encodedSpace/fieldOfView_mm/x is '0', expected 1 .. 5000",
        ),
        (
            replaced("ismrmrd_header", maker.header(SHAPE, KEPT, 4).replace("reconSpace", "other").encode()),
            r"encoding/reconSpace/matrixSize/x missing",
        ),
    ],
)
def test_bad_files(change: Callable[[h5py.File], None], message: str, file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_raw(spoil(change, file, tmp_path / "bad.h5"), RawOptions(format="fastmri"))


@pytest.mark.parametrize("how", ["broken", "never written"])
def test_a_damaged_slice_costs_no_other(how: str, stack: maker.Complex, tmp_path: Path) -> None:
    path = tmp_path / "k.h5"
    with h5py.File(path, "w") as h5:
        kspace = h5.create_dataset("kspace", stack.shape, "c8", chunks=(1, *stack.shape[1:]), fletcher32=True)
        for z in (0, 1, 2) if how == "broken" else (0, 2):
            kspace[z] = stack[z]
        offset = kspace.id.get_chunk_info(1).byte_offset
    if how == "broken":
        raw = bytearray(path.read_bytes())
        raw[offset + 999] ^= 64
        path.write_bytes(raw)
    told = "slice 1 is damaged .*; leave it out" if how == "broken" else "slice 1 was never written.*: leave it out"
    with pytest.raises(ValueError, match=f"k.h5: kspace: {told} with slices"):
        read_raw(path)
    for z in (0, 2):
        assert np.array_equal(read_raw(path, RawOptions(slices=(z, z + 1))).data.numpy(), stack[z : z + 1])


def test_bad_targets(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"bad.h5: reconstruction_rss: NaN or infinite values, first in slice 2"):
        formats.read(spoil(poisoned, file, tmp_path / "bad.h5"))
    with pytest.raises(ValueError, match=r"expected images \(slices, rows, columns\), got shape \(46,\)"):
        formats.read(spoil(replaced("reconstruction_rss", np.ones(46)), file, tmp_path / "bad.h5"))
    with pytest.raises(ValueError, match="holds MR images, and CT was asked for"):
        formats.read(file, modality="CT")


def test_truncated_file(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    for read in (lambda p: read_raw(p, RawOptions(format="fastmri")), formats.read):
        with pytest.raises(ValueError, match=r"half.h5: not HDF5, truncated or damaged"):
            read(tmp_path / "half.h5")


def test_header_is_written_as_it_is_read() -> None:
    header = fastmri_header.parse(maker.header(SHAPE, KEPT, PADDING))
    assert fastmri_header.parse(fastmri_header.build(header, 4)) == header
    assert header.padding(46) == (4, 42) and header.padding(40) == (0, 40)
