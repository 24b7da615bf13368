"""Outputs appear whole or not at all, and nothing of others is ever deleted."""

from pathlib import Path

import pytest

from medrecon.core import atomic


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_file_appears_with_its_content(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.nii.gz"
    with atomic.file(target) as temporary:
        assert temporary.parent == target.parent and temporary.name.endswith("a.nii.gz")
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
    calls: list[object] = []

    def second_fails(source: Path, destination: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise OSError("disk")
        real(source, destination)

    monkeypatch.setattr(atomic.os, "replace", second_fails)
    with pytest.raises(OSError, match="disk"):
        fill(target, "new", overwrite=True)
    assert (target / "m_0.dcm").read_text() == "old" and names(tmp_path) == ["out"]
