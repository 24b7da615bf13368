"""HDF5: nothing but the file itself is read, all of it was written, and a full disk is an error, not a crash."""

import errno
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from format_laws import example, scan
from scans import ct

from medrecon import formats
from medrecon.core import atomic
from medrecon.formats.common import hdf5
from medrecon.formats.find import found
from medrecon.formats.measurement_file import load_scan, save_scan


def external_link(h5: h5py.File, name: str, other: Path) -> None:
    del h5[name]
    h5[name] = h5py.ExternalLink(str(other), name)


def external_storage(h5: h5py.File, name: str, other: Path) -> None:
    shape, dtype = h5[name].shape, h5[name].dtype
    del h5[name]
    h5.create_dataset(name, shape, dtype, external=[(str(other), 0, h5py.h5f.UNLIMITED)])


def virtual(h5: h5py.File, name: str, other: Path) -> None:
    shape, dtype = h5[name].shape, h5[name].dtype
    layout = h5py.VirtualLayout(shape, dtype)
    layout[...] = h5py.VirtualSource(str(other), name, shape)
    del h5[name]
    h5.create_virtual_dataset(name, layout)


def dangling(h5: h5py.File, name: str, other: Path) -> None:
    del h5[name]
    h5[name] = h5py.SoftLink("/nothing")


def never_written(h5: h5py.File, name: str, other: Path) -> None:
    shape, dtype = h5[name].shape, h5[name].dtype
    del h5[name]
    h5.create_dataset(name, shape, dtype)


DATA = {
    "measurement": "data",
    "fastmri": "kspace",
    "ismrmrd": "dataset/data",
    "dxchange": "exchange/data",
    "lodopab": "data",
}


@pytest.mark.parametrize("format", [format for format in found() if format.name in DATA], ids=lambda f: f.name)
@pytest.mark.parametrize("change", [external_link, external_storage, virtual, never_written, dangling])
def test_no_reader_leaves_the_file_or_takes_zeros_for_data(
    format: formats.base.Format, change: Callable[[h5py.File, str, Path], None], tmp_path: Path
) -> None:
    """The bytes of another file, which may be a secret one, never become data; nor do zeros that nobody wrote."""
    if format.name == "ismrmrd":
        pytest.importorskip("ismrmrd")
        if change is external_storage:
            pytest.skip("readouts have no fixed length, which external storage needs")
    path = example(format, tmp_path)
    other = Path(shutil.copy(path, tmp_path / "other.h5"))
    with h5py.File(path, "r+") as h5:
        change(h5, DATA[format.name], other)
    with pytest.raises(ValueError, match=r"never written|links are not followed|is a link to '/nothing'") as error:
        load_scan(path) if format.name == "measurement" else formats.read_raw(path)
    assert path.name in str(error.value) and DATA[format.name] in str(error.value)
    if change is not never_written:
        with pytest.raises(ValueError, match=r"links are not followed|is a link to|nothing medrecon reads"):
            formats.info(path)


def test_some_chunks_that_were_never_written_are_counted(tmp_path: Path) -> None:
    path = save_scan(ct(), tmp_path / "m.h5")
    with h5py.File(path, "r+") as h5:
        values = h5["data"][()]
        del h5["data"], h5.attrs["sha256"]  # as another program writes it
        h5.create_dataset("data", values.shape, "f4", chunks=(1, 7, 9))[:3] = values[:3]
    with pytest.raises(ValueError, match="data: 1 of 4 chunks were never written"):
        load_scan(path)


def test_soft_links_and_rings_within_the_file_are_followed(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as h5:
        h5["group/data"] = [1.0, 2.0]
        h5["group/ring"] = h5["group"]
        h5["data"] = h5py.SoftLink("/group/data")
    with hdf5.opened(path) as h5:
        assert hdf5.dataset(h5, "data", (1,))[1] == 2.0


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_is_an_error_that_names_the_file(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At whichever write it fails; HDF5's own writing to a full disk ended the process with a segmentation fault."""
    path = save_scan(ct(), tmp_path / "m.h5")
    before, real, writes = path.read_bytes(), os.pwrite, [0]

    def write(descriptor: int, data: memoryview, start: int) -> int:
        writes[0] += 1
        if writes[0] >= first:
            raise error
        return real(descriptor, data, start)

    monkeypatch.setattr(os, "pwrite", write)
    first = 10**6
    save_scan(scan(), tmp_path / "other.h5")
    (tmp_path / "other.h5").unlink()
    total = writes[0]
    assert total > 10
    for number in range(1, total + 1):
        first, writes[0] = number, 0
        told = r"m\.h5: .*nothing was written" if isinstance(error, OSError) else None
        with pytest.raises(type(error), match=told) as raised:
            save_scan(scan(), path, overwrite=True)
        assert getattr(raised.value, "errno", errno.ENOSPC) == errno.ENOSPC
        assert path.read_bytes() == before and os.listdir(tmp_path) == ["m.h5"]


def test_a_file_is_not_made_in_memory(tmp_path: Path) -> None:
    data = np.ones((64, 256, 256), np.float32)
    tracemalloc.start()
    try:
        with hdf5.created(tmp_path / "x.h5") as h5:
            h5.create_dataset("data", data=data, chunks=(1, 256, 256))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < data.nbytes / 4


@pytest.mark.parametrize("target", ["/nowhere", "/kspace"])
@pytest.mark.parametrize("format", ["fastmri", None])
def test_a_link_to_nothing_is_named(target: str, format: str | None, tmp_path: Path) -> None:
    path = tmp_path / "k.h5"
    with h5py.File(path, "w") as h5:
        h5["kspace"] = h5py.SoftLink(target)
    with pytest.raises(ValueError, match=rf"{path.name}: /kspace: is a link to '{target}', which is not in the file"):
        formats.read_raw(path, formats.RawOptions(format=format))


def test_an_interrupted_block_writes_nothing(tmp_path: Path) -> None:
    def write() -> None:
        with atomic.file(tmp_path / "x.h5") as temporary, hdf5.created(temporary) as h5:
            h5["data"] = [1.0]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert not list(tmp_path.iterdir())
