"""Leaks and damage: duplicates across splits, subjects in two splits, wrong files, unreadable slices; the commands."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from data_folders import manifest, nifti
from dicom_maker import make_series

from medrecon.cli import main
from medrecon.data.cases import inventory
from medrecon.data.check import check_data
from medrecon.data.describe import describe
from medrecon.data.duplicates import NEAR, Duplicates, signatures
from medrecon.data.manifest import load_manifest
from medrecon.data.read import read_case

MANIFESTS = Path(__file__).parents[2] / "data_manifests"


def planes(count: int, seed: int, size: int = 64) -> torch.Tensor:
    """Independent smooth pictures, int16."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 16, 16, generator=g) * 2000 - 1000
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic")[:, 0].to(torch.int16)


def pairs(*groups: tuple[torch.Tensor, str, str]) -> dict:
    found = Duplicates()
    for i, (data, subject, split) in enumerate(groups):
        found.add(data, f"v{i}", subject, split)
    return found.find()


def test_exact_and_near_are_told_apart() -> None:
    x = planes(8, 0)
    noisy = (x[:3].float() + 10 * torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(1))).to(torch.int16)
    rows = [(x, "a", "train"), (planes(8, 1), "b", "train"), (torch.cat([x[5:6], noisy, planes(4, 2)]), "c", "val")]
    across = pairs(*rows)["across_splits"]
    assert (across["exact"], across["near"]) == (1, 3)
    first = {"a": "train: a, v0 slice 5", "b": "val: c, v2 slice 0", "likeness": 1.0, "exact": True}
    assert across["pairs"][0] == first
    assert pairs(*rows)["between_subjects"] == {"exact": 0, "near": 0, "pairs": []}
    # The same in one split is between subjects; of one subject in one split it is no finding, in two it is.
    assert pairs((x, "a", "train"), (x, "b", "train"))["between_subjects"]["exact"] == 8
    assert pairs((x, "a", "train"), (x, "a", "train"))["between_subjects"]["exact"] == 0
    assert pairs((x, "a", "train"), (x, "a", "val"))["across_splits"]["exact"] == 8


def test_blocks_find_what_one_comparison_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = planes(23, 0), planes(19, 3)
    y[4], y[17] = x[22], x[0]
    rows = [(x, "a", "train"), (y, "b", "val")]
    whole = pairs(*rows)
    monkeypatch.setattr("medrecon.data.duplicates.BLOCK", 7)
    assert pairs(*rows) == whole and whole["across_splits"]["exact"] == 2


def test_empty_slices_are_no_duplicates() -> None:
    air = torch.full((5, 32, 32), -1024, dtype=torch.int16)
    assert pairs((air, "a", "train"), (air, "b", "val"))["across_splits"]["exact"] == 0


def test_the_list_is_bounded_and_the_count_is_not() -> None:
    found = Duplicates()
    x = planes(1, 0).expand(40, -1, -1)
    found.add(x, "a", "a", "train")
    found.add(x, "b", "b", "val")
    report = found.find(keep=5)["across_splits"]
    assert report["exact"] == 1600 and len(report["pairs"]) == 5
    assert found.repeats() == 78


@pytest.mark.parametrize("name", ["ct", "mri"])
def test_corpus_threshold_and_splits(corpus: Path, name: str, one_thread: None) -> None:
    """Different patients stay below the threshold, altered copies above it, and no slice is in two splits."""
    m = load_manifest(MANIFESTS / f"corpus_{name}.toml")
    found = Duplicates()
    val = []
    for case in inventory(m, corpus).cases:
        data = read_case(case, m).data
        found.add(data, case.name, case.subject, case.split)
        val += [data] if case.split == "val" else []
    report = found.find()
    assert report["across_splits"] == {"exact": 0, "near": 0, "pairs": []}
    between = report["between_subjects"]
    # One slice of the collection came by two public repositories under two names: both are for training.
    assert (between["exact"], between["near"]) == ((1, 0) if name == "ct" else (0, 0))
    x = torch.cat(val)[::4].float()
    own = signatures(x)
    small = torch.nn.functional.interpolate(x[:, None], (181, 181), mode="bilinear", antialias=True)
    copies = {
        "noise": x + (20 if name == "ct" else 200) * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)),
        "shift": x.roll((1, 1), (1, 2)),
        "resampled": torch.nn.functional.interpolate(small, x.shape[1:], mode="bilinear")[:, 0],
    }
    for what, copy in copies.items():
        assert float((own * signatures(copy)).sum(1).min()) > NEAR, what
    assert float((own * signatures(x.flip(-1))).sum(1).median()) < NEAR  # flips are not found, as documented


def test_a_leak_by_patient_is_found_behind_two_folders(tmp_path: Path) -> None:
    """Folders say two subjects, the headers say one; and one series was copied into the other split."""
    make_series(tmp_path / "train" / "p1", 3, PatientID="X")
    make_series(tmp_path / "train" / "p2", 3, PatientID="Y")
    make_series(tmp_path / "val" / "p3", 2, size=(10, 10), PatientID="X")
    shutil.copytree(tmp_path / "train" / "p2", tmp_path / "val" / "p2")
    report = check_data(describe(tmp_path, subject="folder"))
    assert [text.split()[0] for text in report["subjects_in_two_splits"]] == ["PatientID", "PatientID", "p2:"]
    assert report["splits"]["train"] == {"subjects": 2, "volumes": 2, "slices": 6}
    assert any("exact" in p for p in report["problems"]) and any("in two splits: p2" in p for p in report["problems"])


def test_files_are_verified(tmp_path: Path) -> None:
    for name, text in (("good", "abc"), ("bad", "abd"), ("short", "ab"), ("unknown", "x")):
        (tmp_path / name).write_text(text)
    digest = hashlib.sha256(b"abc").hexdigest()
    names = ("good", "bad", "short", "gone")
    files = "".join(f"[[files]]\npath = '{n}'\nsize = 3\nsha256 = '{digest}'\n" for n in names)
    report = check_data(manifest(tmp_path, files + "[[files]]\npath = 'unknown'\n"))
    assert report["files"]["verified"] == ["good"] and report["files"]["missing"] == ["gone"]
    assert report["files"]["no_sha256"] == ["unknown"]
    assert [text.split(":")[0] for text in report["problems"]] == ["file bad", "file short"]


def test_commands_from_a_folder_to_a_checked_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """split, check, index, check again; then a flipped bit, and a slice copied between splits."""
    for i in range(5):
        nifti(tmp_path / "d" / f"p{i}" / "x.nii.gz", seed=i)
    m, store = tmp_path / "m.toml", tmp_path / "store"
    split = ["data", "split", str(tmp_path / "d"), "-o", str(m), "--modality", "MR", "--val", "0.2", "--test", "0.2"]
    assert main([*split, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["subjects"] == {"train": 3, "val": 1, "test": 1}
    assert main(split) == 1 and "exists" in capsys.readouterr().err
    assert main([*split, "--overwrite"]) == 0
    assert main(["data", "check", str(m), "--quiet"]) == 0
    assert main(["data", "index", str(m), "-o", str(store), "--size", "16", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["data", "check", str(store), "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"]["train"] == {"subjects": 3, "volumes": 3, "slices": 6}
    path = store / "val-000.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    assert main(["data", "check", str(store), "--quiet"]) == 1
    assert "val-000.npy" in capsys.readouterr().err
    rule = load_manifest(m).split
    assert rule is not None and isinstance(rule.val, tuple)
    copied = tmp_path / "d" / rule.val[0] / "x.nii.gz"
    for name in ("x.nii.gz", "x.json"):
        copied.with_name(name).write_bytes((tmp_path / "d" / rule.train[0] / name).read_bytes())
    assert main(["data", "check", str(m), "--quiet"]) == 1
    assert "2 exact and 0 near-duplicate pairs of slices across splits" in capsys.readouterr().err
    (tmp_path / "d" / rule.train[1] / "x.nii.gz").write_bytes(b"broken")
    assert main(["data", "check", str(m), "--quiet"]) == 1
    assert f"unreadable {rule.train[1]}/x.nii.gz" in capsys.readouterr().err
    assert main(["data", "index", str(tmp_path / "d"), "-o", str(store)]) == 2
    assert main(["data", "check", str(tmp_path / "d"), "--quiet"]) == 1 and "--modality" in capsys.readouterr().err
