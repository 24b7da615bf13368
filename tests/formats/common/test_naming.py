"""Errors of readers name the file, whatever goes wrong in them; pipes and devices are not waited for."""

import os
from pathlib import Path

import pytest

from medrecon import formats
from medrecon.acquisition.options import OptionError, RawOptions
from medrecon.formats import find
from medrecon.formats.common.naming import naming


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 7 TiB"),
        OverflowError("too large"),
        TypeError("'int' object is not iterable"),
        AttributeError("no attribute"),
        KeyError("sha256"),
        RecursionError("maximum depth"),
        ZeroDivisionError("division by zero"),
        AssertionError(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        ValueError("no name in it"),
        RuntimeError("from a C library"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_one_line_that_names_the_file(error: Exception, tmp_path: Path) -> None:
    path = tmp_path / "scan.xyz"
    with pytest.raises(ValueError, match=r"scan\.xyz: ") as caught, naming(path):
        raise error
    assert caught.value.__cause__ is error and "\n" not in str(caught.value)


def test_what_says_all_comes_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "scan.xyz"
    for error in (
        ValueError(f"{path}/a.dcm: bad"),
        OptionError("pixel: bad"),
        OSError(5, "bad", str(path)),
        ImportError("x"),
    ):
        with pytest.raises(type(error)) as caught, naming(path):
            raise error
        assert caught.value is error


def test_pipes_and_devices(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii")
    for path in (tmp_path / "pipe.nii", Path("/dev/zero"), Path("/dev/stdin")):
        for read in (
            formats.read,
            formats.info,
            formats.read_raw,
            *(lambda path, f=f: formats.read_raw(path, RawOptions(format=f.name)) for f in find.raw_readers()),
        ):
            if path.exists() and not path.is_file():
                with pytest.raises(ValueError, match="is a pipe, a socket or a device"):
                    read(path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder" / "slice.dcm")
    with pytest.raises(ValueError, match="folder"):
        formats.read(tmp_path / "folder")
