"""Outputs appear whole or not at all, and nothing of others is ever deleted."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medrecon.core import atomic, stage
from medrecon.core.lock import Busy

ROOT = Path(__file__).parents[2]


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_file_appears_with_its_content(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.nii.gz"
    with atomic.file(target) as temporary:
        assert temporary.is_relative_to(target.parent) and temporary.name == "a.nii.gz"
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole" and names(target.parent) == ["a.nii.gz"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_crash_leaves_the_old_file_and_no_rest(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a"
    target.write_text("old")

    def crash() -> None:
        with atomic.file(target, overwrite=True) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        crash()
    assert target.read_text() == "old" and names(tmp_path) == ["a"]


def test_existing_file_is_refused_unless_overwrite(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old")
    with pytest.raises(FileExistsError, match=r"a: exists already.*--overwrite"), atomic.file(target):
        pytest.fail("the block must not run")
    with atomic.file(target, overwrite=True) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
    with pytest.raises(FileExistsError, match="is a folder"), atomic.file(tmp_path, overwrite=True):
        pytest.fail("the block must not run")


def test_file_that_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "a"

    def race() -> None:
        with atomic.file(target) as temporary:
            temporary.write_text("mine")
            target.write_text("theirs")

    with pytest.raises(FileExistsError):
        race()
    assert target.read_text() == "theirs" and names(tmp_path) == ["a"]


def fill(path: Path, text: str, count: int = 2, overwrite: bool = False, crash: bool = False) -> None:
    with atomic.folder(path, "m_*.dcm", overwrite=overwrite) as temporary:
        for i in range(count):
            (temporary / f"m_{i}.dcm").write_text(text)
        if crash:
            raise RuntimeError("crash")


def test_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()  # an empty folder is free
    fill(target, "old", count=3)
    with pytest.raises(FileExistsError, match="--overwrite"):
        fill(target, "new")
    with pytest.raises(RuntimeError):
        fill(target, "half", overwrite=True, crash=True)
    assert names(target) == ["m_0.dcm", "m_1.dcm", "m_2.dcm"] and (target / "m_0.dcm").read_text() == "old"
    fill(target, "new", overwrite=True)
    assert names(target) == ["m_0.dcm", "m_1.dcm"] and (target / "m_0.dcm").read_text() == "new"
    assert names(tmp_path) == ["out"]


def test_crash_before_the_first_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fill(tmp_path / "out", "half", crash=True)
    assert names(tmp_path) == []


@pytest.mark.parametrize("other", ["notes.txt", "scan.dcm"])
def test_overwrite_never_deletes_what_is_not_ours(tmp_path: Path, other: str) -> None:
    target = tmp_path / "out"
    fill(target, "old")
    (target / other).write_text("precious")
    with pytest.raises(FileExistsError, match=f"holds '{other}', which medrecon did not write"):
        fill(target, "new", overwrite=True)
    assert (target / other).read_text() == "precious" and (target / "m_0.dcm").read_text() == "old"


def test_failed_rename_restores_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    fill(target, "old")
    real = atomic.os.replace

    def fails(source: Path, destination: Path) -> None:
        if destination == target and source.name == "out":
            raise OSError("disk")
        real(source, destination)

    monkeypatch.setattr(atomic.os, "replace", fails)
    with pytest.raises(OSError, match="disk"):
        fill(target, "new", overwrite=True)
    assert (target / "m_0.dcm").read_text() == "old" and names(tmp_path) == ["out"]


DIES = """
import os, sys
from pathlib import Path
from medrecon.core import atomic
real, left = os.replace, [int(sys.argv[2])]
def dying(source, destination):
    if not left[0]:
        os._exit(9)  # as SIGKILL would
    left[0] -= 1
    real(source, destination)
atomic.os.replace = dying
home = Path(sys.argv[1])
text = sys.argv[3]
with atomic.files(home / "image", home / "note", overwrite=True) as (image, note):
    image.write_text(text), note.write_text(text)
with atomic.folder(home / "series", "m_*", overwrite=True, beside={home / "report": text}) as made:
    (made / "m_0").write_text(text)
"""


def dies(home: Path, renames: int, text: str) -> int:
    """A run that ends without any clean-up before its rename of that number."""
    return subprocess.run([sys.executable, "-c", DIES, str(home), str(renames), text], cwd=ROOT).returncode


@pytest.mark.parametrize("renames", range(7))
def test_a_run_that_dies_leaves_the_old_or_the_new_and_the_next_clears(tmp_path: Path, renames: int) -> None:
    """Images and what belongs to them are of one run once another run has written beside them."""
    home = tmp_path / "home"
    home.mkdir()
    assert dies(home, 99, "old") == 0 and dies(home, renames, "new") == 9
    assert len(names(home)) > 3 and any(name.startswith(".partial-") for name in names(home))
    with atomic.file(home / "other") as other:
        other.write_text("x")
    assert names(home) == ["image", "note", "other", "report", "series"]
    for one, belongs, committed in (("image", "note", 1), ("series/m_0", "report", 4)):
        assert (home / one).read_text() == (home / belongs).read_text() == ("new" if renames >= committed else "old")


def test_what_came_after_a_dead_run_is_kept(tmp_path: Path) -> None:
    assert dies(tmp_path, 99, "old") == 0 and dies(tmp_path, 1, "new") == 9  # committed, nothing moved
    time.sleep(0.02)
    (tmp_path / "image").write_text("by hand")
    stage.clear(tmp_path)
    assert (tmp_path / "image").read_text() == "by hand" and (tmp_path / "note").read_text() == "new"
    assert not any(name.startswith(".partial-") for name in names(tmp_path))


def test_the_second_of_two_runs_learns_at_once(tmp_path: Path) -> None:
    with atomic.file(tmp_path / "a") as temporary:
        temporary.write_text("first")
        with pytest.raises(Busy, match="a: another run of medrecon is writing it"), atomic.file(tmp_path / "a"):
            pytest.fail("the block must not run")
        with atomic.file(tmp_path / "b") as other:  # which does not take the first for dead
            other.write_text("b")
    assert (tmp_path / "a").read_text() == "first" and names(tmp_path) == ["a", "b"]
    with atomic.claimed(tmp_path / "c"):
        with pytest.raises(Busy, match="c: another run"), atomic.claimed(tmp_path / "c"):
            pytest.fail("the block must not run")
        with atomic.file(tmp_path / "c") as temporary:
            temporary.write_text("c")
    assert names(tmp_path) == ["a", "b", "c"]


def test_links_stay_links_and_long_names_are_written(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    for link, leads_to in (("out", "scratch"), ("file", "scratch/m_9.dcm"), ("note", "real")):
        (tmp_path / link).symlink_to(leads_to)
    fill(tmp_path / "out", "new", overwrite=True)
    assert (tmp_path / "out").is_symlink() and names(tmp_path / "scratch") == ["m_0.dcm", "m_1.dcm"]
    with atomic.files(tmp_path / "file", tmp_path / "note") as made:  # in two folders
        for item in made:
            item.write_text("x")
    assert (tmp_path / "file").is_symlink() and (tmp_path / "scratch" / "m_9.dcm").read_text() == "x"
    assert names(tmp_path) == ["file", "note", "out", "real", "scratch"] and (tmp_path / "real").read_text() == "x"
    with atomic.file(tmp_path / ("n" * 255)) as made_one:
        made_one.write_text("x")
    assert (tmp_path / ("n" * 255)).is_file()


def test_a_full_disk_is_told_with_the_name_of_the_output(tmp_path: Path) -> None:
    def write() -> None:
        with atomic.file(tmp_path / "a", overwrite=True):
            raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a").write_text("old")
    with pytest.raises(OSError, match="a: No space left on device; nothing was written") as error:
        write()
    assert error.value.errno == errno.ENOSPC and (tmp_path / "a").read_text() == "old" and names(tmp_path) == ["a"]


def test_what_becomes_of_a_temporary_path(tmp_path: Path) -> None:
    """Also where one output is written inside another."""
    target = tmp_path / "out"
    with atomic.outputs((target,), lambda: None) as (made,):
        assert stage.final(made) == target and stage.final(made / "a" / "b") == target / "a" / "b"
        made.mkdir()
        with atomic.file(made / "a") as inner:
            inner.write_text("x")
            assert stage.final(stage.final(inner)) == target / "a"
    assert stage.final(target) == target and stage.final(Path("a/.partial-1/lock")) == Path("a/.partial-1/lock")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENOSPC, errno.ENAMETOOLONG])
def test_no_error_names_a_temporary_path(number: int, tmp_path: Path) -> None:
    """Also where the name of the output is a part of it."""
    target = tmp_path / "out"

    def fail() -> None:
        with atomic.file(target) as made:
            raise OSError(number, os.strerror(number), str(made))

    with pytest.raises(OSError, match="out") as error:
        fail()
    assert str(target) in str(error.value) and ".partial" not in str(error.value) and error.value.errno == number
