"""Laws that every file format keeps, whatever it can do. A law is a function of a format, a file of it and a folder."""

import contextlib
import importlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from unittest import mock

import pytest
import torch

from medrecon import formats
from medrecon.acquisition.options import RawOptions
from medrecon.cli import main
from medrecon.core import stage
from medrecon.core.scan import Scan
from medrecon.core.stack import Stack
from medrecon.core.volume import Volume
from medrecon.formats import find
from medrecon.formats.base import Format, ImageReader, ImageWriter, RawReader, ScanWriter

Law = Callable[[Format, Path, Path], None]
OBLIQUE = torch.tensor(
    [[-0.96, 0.21, 0.42, 30.0], [0.28, 0.72, 1.44, -20.0], [0.0, 0.75, -2.0, 12.5], [0, 0, 0, 1]], dtype=torch.float64
)
"""Columns and rows at right angles, all voxel sizes different, slices sheared."""
OBLIQUE[:3, 2] = torch.linalg.cross(OBLIQUE[:3, 0], OBLIQUE[:3, 1]) * 2.5


def volume(modality: str) -> Volume:
    """Whole numbers of odd sizes, other from voxel to voxel."""
    data = torch.arange(3 * 7 * 10, dtype=torch.float32).reshape(3, 7, 10) * 3
    return Volume(data - 500, OBLIQUE, "HU", "CT") if modality == "CT" else Volume(data, OBLIQUE, "a.u.", "MR")


def scan() -> Scan:
    """Two slices of three coils, every second column and the middle ones."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(20, 15, dtype=torch.bool)
    mask[:, ::2] = mask[:, 5:10] = True
    data = torch.randn(2, 3, 20, 15, generator=generator, dtype=torch.complex64) * mask
    return Scan("mri", data, (20, 15), OBLIQUE, "a.u.", mask=mask)


def output(format: ImageWriter | ScanWriter, folder: Path) -> Path:
    """A name that the format writes."""
    if isinstance(format, ScanWriter):
        return folder / f"out{format.suffix}"
    return folder / f"out{format.suffixes[0] if format.suffixes else ''}"


def write(format: Format, folder: Path, *, overwrite: bool = False, other: bool = False) -> Path:
    """A file of our own, of k-space or an image; a format that is not told to overwrite must not."""
    told = {"overwrite": True} if overwrite else {}
    if isinstance(format, ScanWriter):
        made = replace(scan(), data=2 * scan().data) if other else scan()
        return format.write_scan(made, output(format, folder), **told)
    assert isinstance(format, ImageWriter)
    made_image = volume("MR") if other else volume("CT")
    return format.write_image(Stack.of(made_image), output(format, folder), **told)


def example(format: Format, folder: Path) -> Path:
    """A file as its makers write it, see `format_examples`, or else our own."""
    try:
        maker = importlib.import_module(f"format_examples.{format.name}")
    except ModuleNotFoundError:
        assert isinstance(format, ImageWriter | ScanWriter), (
            f"{format.name} writes nothing: give it tests/support/format_examples/{format.name}.py"
        )
        return write(format, folder)
    made: Path = maker.make(folder)
    return made


def readings(format: Format) -> Iterator[Callable[[Path], object]]:
    """All ways to read a file of the format, recognised or not."""
    if isinstance(format, ImageReader):
        yield lambda path: format.read_image(path)
        yield formats.read
    if isinstance(format, RawReader):
        yield lambda path: format.read_scan(path, RawOptions())
        yield formats.read_raw


def is_described(format: Format, file: Path, folder: Path) -> None:
    assert format.name.isidentifier() and [f.name for f in find.found()].count(format.name) == 1
    assert format.summary and "\n" not in format.summary and len(format.summary) < 120
    assert not isinstance(format, ImageReader) or format.images
    if isinstance(format, RawReader):
        assert set(format.uses) <= {f.name for f in fields(RawOptions)} - {"format"}
    if isinstance(format, ImageWriter):
        others = {s for f in find.image_writers() if f.name != format.name for s in f.suffixes or ("",)}
        assert not others & set(format.suffixes or ("",))
        assert all(s.startswith(".") and s == s.lower() for s in format.suffixes)
        assert list(format.suffixes) == sorted(format.suffixes, key=len, reverse=True)
        assert formats.stem(output(format, folder)) == "out"


def is_recognised_by_it_alone(format: Format, file: Path, folder: Path) -> None:
    assert [f.name for f in find.found() if f.recognises(file)] == [format.name]


def leaves_other_things_alone(format: Format, file: Path, folder: Path) -> None:
    (folder / "text.h5").write_text("no raw data at all")
    (folder / "empty").touch()
    (folder / "folder").mkdir()
    assert [format.recognises(folder / name) for name in ("text.h5", "empty", "folder")] == [False] * 3


def is_read(format: Format, file: Path, folder: Path) -> None:
    """An image is finite; a scan says what it is from. What the file is not is said, with its name."""
    for read, kind, known in ((formats.read, ImageReader, "image"), (formats.read_raw, RawReader, "raw data")):
        if not isinstance(format, kind):
            with pytest.raises(ValueError, match=f"not .*{known} medrecon reads, but") as error:
                read(file)
            assert str(file) in str(error.value) and format.summary in str(error.value)
    if isinstance(format, ImageReader) and (not isinstance(format, RawReader) or formats.info(file).get("targets")):
        assert bool(formats.read(file).data.isfinite().all())
    if isinstance(format, RawReader):
        got = formats.read_raw(file)
        assert formats.recognise(file).name == got.provenance["format"] == format.name
        assert file.name in got.provenance["source"] and str(folder) not in json.dumps(got.provenance)


def is_told_by_info(format: Format, file: Path, folder: Path) -> None:
    """`info` gives JSON, the same each time, with the shape of what is in the file, and no patient."""
    found = formats.info(file)
    text = json.dumps(found, allow_nan=False)
    assert found["path"] == str(file) and found["kind"] and text == json.dumps(formats.info(file))
    assert "SECRET" not in text.replace(str(file), "")
    assert len(found) > 3 or "series" in found
    if isinstance(format, RawReader):
        assert found["format"] == format.name and found["modality"] == formats.read_raw(file).modality


def raw_data_lead_to_import(format: Format, file: Path, folder: Path) -> None:
    """`info` names the format and the command that checks the data; `simulate` and `recon` name it too."""
    if not isinstance(format, RawReader) or not formats.recognise(file):
        return
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
        assert main(["info", str(file)]) == 0
    assert f"raw data of the format {format.name}: medrecon import {file} -o scan.h5 --dry-run" in told.getvalue()
    recon = ["recon", str(file), "-o", str(folder / "x.nii"), "--solver", "tv", "--dry-run"]
    with contextlib.redirect_stderr(told := io.StringIO()):
        assert main(recon) != 0
    assert f"medrecon import {file}" in told.getvalue() and "Traceback" not in told.getvalue()


def damage_is_named(format: Format, file: Path, folder: Path) -> None:
    """A file cut short, anywhere, is refused with its name: it never becomes a shorter or an emptier image."""
    part = max((p for p in file.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size) if file.is_dir() else file
    whole = part.read_bytes()
    for share in (0.3, 0.6, 0.95):
        part.write_bytes(whole[: int(share * len(whole))])
        for read in readings(format):
            with pytest.raises((ValueError, FileNotFoundError)) as error:
                read(file)
            assert str(file) in str(error.value), str(error.value)
        for tell in (format.info, formats.info):
            told = ""
            try:
                tell(file)  # it need not look that far
            except ValueError as error:
                told = str(error)
            assert not told or str(file) in told, told
    part.write_bytes(whole)


def what_it_is_not_is_named(format: Format, file: Path, folder: Path) -> None:
    """An empty file, another file, an empty folder, read as this format by name, and a name that means nothing."""
    (folder / "empty").touch()
    (folder / "text").write_text("no raw data at all, but long enough for any signature")
    (folder / "folder").mkdir()
    for name in ("empty", "text", "folder"):
        for read in (*readings(format), format.info, formats.info):
            with pytest.raises((ValueError, FileNotFoundError)) as error:
                read(folder / name)
            assert str(folder / name) in str(error.value), str(error.value)


def another_name_does_no_harm(format: Format, file: Path, folder: Path) -> None:
    """Recognised by content, or refused: never taken for something else."""
    other = folder / "renamed.xyz"
    shutil.copytree(file, other) if file.is_dir() else shutil.copy(file, other)
    if format.recognises(other):
        is_recognised_by_it_alone(format, other, folder)
        assert {**formats.info(other), "path": 0}.keys() == {**formats.info(file), "path": 0}.keys()
    else:
        with pytest.raises(ValueError, match=r"renamed\.xyz: nothing medrecon reads"):
            formats.info(other)


def error_texts_list_it(format: Format, file: Path, folder: Path) -> None:
    (folder / "notes.txt").write_text("hello")
    for read, kind, listed in (
        (formats.info, Format, f"{format.name}: {format.summary}"),
        (formats.read_raw, RawReader, f"{format.name}: {format.summary}"),
        (formats.read, ImageReader, format.images if isinstance(format, ImageReader) else ""),
    ):
        with pytest.raises(ValueError, match=r"notes\.txt: no") as error:
            read(folder / "notes.txt")
        assert (listed in str(error.value)) or not isinstance(format, kind)
    if isinstance(format, ImageWriter):
        with pytest.raises(ValueError, match="unknown output type") as error:
            formats.write(volume("CT"), folder / "x.xyz")
        assert all(s in str(error.value) for s in format.suffixes or (format.name,))
    if isinstance(format, ScanWriter):
        with pytest.raises(ValueError, match=f"unknown export format 'xyz'; known: .*{format.name}"):
            formats.export(scan(), folder / "x.xyz", "xyz")


def images_come_back(format: Format, file: Path, folder: Path) -> None:
    """Values to the 16 bits of a DICOM file, the affine to the digits of its decimals; units and modality."""
    for modality in ("CT", "MR") if isinstance(format, ImageReader) and isinstance(format, ImageWriter) else ():
        path = output(format, folder / modality)
        given = volume(modality)
        assert formats.write(given, path) == path
        again = formats.read(path)
        assert (again.units, again.modality) == (given.units, given.modality)
        torch.testing.assert_close(again.data, given.data, rtol=0, atol=1e-4 * float(given.data.abs().max()) / 65)
        torch.testing.assert_close(again.affine, given.affine, rtol=0, atol=1e-4)


def scans_come_back(format: Format, file: Path, folder: Path) -> None:
    """Samples and mask to the bit; the affine, unless the scan says that the file has no place for it."""
    if not (isinstance(format, RawReader) and isinstance(format, ScanWriter)):
        return
    path, given = output(format, folder), scan()
    assert formats.export(given, path, format.name) == path
    again = formats.read_raw(path)
    assert again.mask is not None and given.mask is not None
    assert torch.equal(again.data, given.data) and torch.equal(again.mask, given.mask)
    if "not in the file" not in str(again.provenance.get("place", "")):
        torch.testing.assert_close(again.affine, given.affine, rtol=0, atol=1e-4)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def writing_is_whole_or_not_at_all(format: Format, file: Path, folder: Path) -> None:
    """A full disk leaves nothing, an existing output is refused untouched, and replaced when asked to."""
    if not isinstance(format, ImageWriter | ScanWriter):
        return
    with mock.patch.object(stage, "sync", side_effect=OSError("disk full")), pytest.raises(OSError, match="disk full"):
        write(format, folder)
    assert not contents(folder)
    write(format, folder)
    before = contents(folder)
    with pytest.raises(FileExistsError, match="overwrite"):
        write(format, folder, other=True)
    assert contents(folder) == before
    write(format, folder, other=True, overwrite=True)
    assert contents(folder) != before
    if isinstance(format, ScanWriter) and isinstance(format, ImageWriter):
        format.write_image(Stack.of(volume("MR")), folder / "image")
        with pytest.raises(FileExistsError, match="overwrite"):
            format.write_image(Stack.of(volume("MR")), folder / "image")


LAWS: tuple[Law, ...] = (
    is_described,
    is_recognised_by_it_alone,
    leaves_other_things_alone,
    is_read,
    is_told_by_info,
    raw_data_lead_to_import,
    damage_is_named,
    what_it_is_not_is_named,
    another_name_does_no_harm,
    error_texts_list_it,
    images_come_back,
    scans_come_back,
    writing_is_whole_or_not_at_all,
)
