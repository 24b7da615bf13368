"""An output never replaces what it is made of, nor what is no file."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from medrecon import formats
from medrecon.cli import main
from medrecon.core import atomic
from medrecon.core.place import check_place, refuse, refuse_folder
from medrecon.core.volume import Volume


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """in/ with a.dcm and old.h5; links to them and to what is no file."""
    (tmp_path / "in").mkdir()
    for name in ("in/a.dcm", "in/old.h5", "x.h5"):
        (tmp_path / name).write_text(name)
    os.mkfifo(tmp_path / "pipe")
    links = {"input.h5": "x.h5", "slice.h5": "in/a.dcm", "old.h5": "in/old.h5", "inside": "in", "pipe.h5": "pipe"}
    for name, target in {**links, "loop.h5": "loop.h5", "far.h5": "gone/far.h5", "null.h5": "/dev/null"}.items():
        (tmp_path / name).symlink_to(target)
    os.link(tmp_path / "x.h5", tmp_path / "hard.h5")
    return tmp_path


@pytest.mark.parametrize(
    ("output", "source", "said"),
    [
        ("x.h5", "x.h5", "is the input itself"),
        ("input.h5", "x.h5", "is the input itself"),
        ("x.h5", "input.h5", "is the input itself"),
        ("hard.h5", "x.h5", "is the input itself"),
        ("in", "in", "is the input itself"),
        ("inside", "in", "is the input itself"),
        ("in", "in/a.dcm", "holds the input"),
        ("inside", "slice.h5", "holds the input"),
        (".", "in/a.dcm", "holds the input"),
        ("slice.h5", "in", "a file in the input"),
        ("slice.h5", "inside", "a file in the input"),
    ],
)
def test_an_output_that_is_an_input_is_refused(folder: Path, output: str, source: str, said: str) -> None:
    with pytest.raises(FileExistsError, match=rf"{folder / output}: .*{said}.*; choose another"):
        check_place(folder / output, 0, [folder / "gone.h5", folder / source])


@pytest.mark.parametrize("output", ["in/old.h5", "in/new.h5", "old.h5", "far.h5", "new"])
def test_an_output_beside_its_input_or_in_its_folder_is_not(folder: Path, output: str) -> None:
    check_place(folder / output, 0, [folder / "in", folder / "x.h5"])


@pytest.mark.parametrize("name", ["pipe", "pipe.h5", "null.h5", "loop.h5", "in", "inside"])
def test_what_is_no_file_is_never_replaced(folder: Path, name: str) -> None:
    before = os.lstat(folder / name)
    with pytest.raises(FileExistsError, match=f"{name}: is a "):
        refuse([folder / name], overwrite=True)
    with pytest.raises(FileExistsError), atomic.file(folder / name, overwrite=True):
        pytest.fail("the block must not run")
    assert os.path.samestat(os.lstat(folder / name), before)


def test_a_folder_with_links_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "m_1.dcm").symlink_to(tmp_path / "precious.dcm")
    with pytest.raises(FileExistsError, match=r"holds 'm_1\.dcm'"):
        refuse_folder(tmp_path / "out", "m_*.dcm", overwrite=True)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory, disc_volume: Callable[..., Volume]) -> Path:
    """mr.h5, chest/ and links to them, under the names that outputs have."""
    path = tmp_path_factory.mktemp("scans")
    formats.write(disc_volume("MR", 32, 1), path / "mr.nii")
    formats.write(disc_volume("CT", 16, 1), path / "chest")
    options = "--modality mri --acs 8 --accel 2 --coils 2 --matched --quiet"
    assert main(["simulate", str(path / "mr.nii"), "-o", str(path / "mr.h5"), *options.split()]) == 0
    (slice_,) = os.listdir(path / "chest")
    for name, target in {"l.h5": "mr.h5", "l.nii": "mr.h5", "slice.h5": f"chest/{slice_}", "mr.cfl": "mr.h5"}.items():
        (path / name).symlink_to(target)
    os.mkfifo(path / "pipe.h5")
    os.mkfifo(path / "pipe.nii")
    return path


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    "line",
    [
        "export mr.h5 -o mr.h5 --format ismrmrd",
        "export mr.h5 -o l.h5 --format fastmri",
        "export l.h5 -o mr.h5 --format ismrmrd",
        "export mr.h5 -o mr.cfl --format bart",
        "export mr.h5 -o pipe.h5 --format ismrmrd",
        "undersample mr.h5 -o mr.h5 --acs 8 --accel 3",
        "undersample mr.h5 -o l.h5 --acs 8 --accel 3",
        "undersample mr.h5 -o pipe.h5 --acs 8 --accel 3",
        "recon mr.h5 -o l.nii --solver zero-filled",
        "recon mr.h5 -o pipe.nii --solver zero-filled",
        "recon mr.h5 -o . --solver zero-filled",
        "recon mr.h5 -o chest/ --template chest --solver zero-filled",
        "recon mr.h5 -o mr2.nii --template chest --solver zero-filled",
        "noise mr.h5 -o l.nii --solver zero-filled --replicas 2",
        "noise mr.h5 -o pipe.nii --solver zero-filled --replicas 2",
        "simulate chest -o slice.h5 --modality ct --views 8",
        "simulate chest -o pipe.h5 --modality ct --views 8",
        "import mr.h5 -o mr.h5",
        "import mr.h5 -o pipe.h5",
    ],
)
def test_no_command_overwrites_its_input(
    scans: Path, line: str, dry: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(scans)

    def everything() -> dict[Path, tuple[int, int]]:
        return {p: (os.lstat(p).st_ino, os.lstat(p).st_mtime_ns) for p in scans.rglob("*")}

    before = everything()
    assert main([*line.split(), "--overwrite", *dry]) == 1
    output = Path(line.split()[3])
    said = capsys.readouterr().err
    assert said.startswith(f"medrecon: {output}: ") and said.count("\n") == 1
    assert everything() == before


ROOMY = [
    "recon mr.h5 -o new.nii --solver zero-filled",
    "recon mr.h5 -o new/ --solver zero-filled",
    "noise mr.h5 -o new.nii --solver zero-filled --replicas 2",
    "simulate chest -o new.h5 --modality ct --views 8",
    "undersample mr.h5 -o new.h5 --acs 8 --accel 3",
    "export mr.h5 -o new.h5 --format ismrmrd",
    "import mr_kspace.npy -o new.h5 --pixel 2",
]


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize("lack", ["room", "permission"])
@pytest.mark.parametrize("line", ROOMY)
def test_a_disk_without_room_or_permission_is_found_out_first(
    scans: Path,
    line: str,
    lack: str,
    dry: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(scans)
    np.save(scans / "mr_kspace.npy", np.ones((2, 32, 32), np.complex64))
    there = sorted(scans.rglob("*"))
    if lack == "room":
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
        said = f"{Path(line.split()[3])}: needs at least 0.0 MB, and 0.0 MB are free; make space first"
    else:  # root may write anywhere
        monkeypatch.setattr("os.access", lambda *_: False)
        said = f"{Path(line.split()[3])}: no permission to write in {scans}"
    assert main([*line.split(), *dry]) == 1
    assert said in capsys.readouterr().err and sorted(scans.rglob("*")) == there
