"""Whose every volume is: subject keys, splits by rule and by list, manifests for a user's folder."""

import tomllib
from pathlib import Path

import pytest
import torch
from data_folders import HEAD, manifest, nifti
from dicom_maker import make_series, values

from medrecon.data import expressions
from medrecon.data.cases import assign, inventory, pseudonym, subject_of
from medrecon.data.describe import describe, split_folder
from medrecon.data.manifest import Manifest, Rule, load_manifest
from medrecon.data.read import read_case
from medrecon.data.toml import manifest_text


@pytest.mark.parametrize(
    ("key", "subjects"),
    [
        ("folder", {"sub-1", "sub-2", "flat.nii.gz"}),
        ("file", {"sub-1/sub-1_T1.nii.gz", "sub-1/sub-1_T2.nii.gz", "sub-2/sub-2_T1.nii.gz", "flat.nii.gz"}),
        (r"(sub-\d+|flat)", {"sub-1", "sub-2", "flat"}),
        (r"T\d|flat", {"T1", "T2", "flat"}),
    ],
)
def test_subject_keys(tmp_path: Path, key: str, subjects: set[str]) -> None:
    for name in ("sub-1/sub-1_T1", "sub-1/sub-1_T2", "sub-2/sub-2_T1", "flat"):
        nifti(tmp_path / "d" / f"{name}.nii.gz")
    text = f"kind = 'nifti'\nroot = 'd'\nsubject = '{key}'\n[split]\n"
    assert {case.subject for case in inventory(manifest(tmp_path, text)).cases} == subjects


def test_a_path_without_its_subject_is_named(tmp_path: Path) -> None:
    nifti(tmp_path / "d" / "x.nii.gz")
    with pytest.raises(ValueError, match=r"x\.nii\.gz: subject = .* does not match"):
        inventory(manifest(tmp_path, "kind = 'nifti'\nroot = 'd'\nsubject = 'IXI\\d+'\n[split]\n"))
    with pytest.raises(ValueError, match="NIfTI has no PatientID"):
        inventory(manifest(tmp_path, "kind = 'nifti'\nroot = 'd'\nsubject = 'PatientID'\n[split]\n"))


def test_dicom_goes_by_patient_whatever_the_folders(tmp_path: Path) -> None:
    """Two patients in one flat folder, one of them again elsewhere; slices in order, values in HU, MR left aside."""
    make_series(tmp_path / "d" / "a", 6, PatientID="Anna")  # names shuffled, six being enough for that
    make_series(tmp_path / "d" / "a", 3, PatientID="Bert", prefix="b")
    make_series(tmp_path / "d" / "later", 2, PatientID="Anna")
    make_series(tmp_path / "d" / "mr", 2, modality="MR", PatientID="Carl")
    m = manifest(tmp_path, "kind = 'dicom'\nroot = 'd'\nsubject = 'PatientID'\n[split]\n")
    cases = inventory(m).cases
    assert sorted((c.subject, len(c.files)) for c in cases) == sorted(
        [(pseudonym("Anna"), 6), (pseudonym("Anna"), 2), (pseudonym("Bert"), 3)]
    )
    assert "Anna" not in str([(c.name, c.subject, c.patient) for c in cases])
    six = next(c for c in cases if len(c.files) == 6)
    assert torch.equal(read_case(six, m).data, torch.from_numpy(values(6, (12, 16))).to(torch.int16))


def test_damaged_files_are_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    make_series(tmp_path / "d" / "a", 3)
    (tmp_path / "d" / "a" / "bad").write_bytes(b"\0" * 128 + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00\x01")
    (tmp_path / "d" / "a" / "notes.txt").write_text("no image")
    found = inventory(manifest(tmp_path, "kind = 'dicom'\nroot = 'd'\n[split]\n"))
    assert len(found.cases) == 1 and len(found.cases[0].files) == 3
    assert [Path(name).name for name in found.unreadable] == ["bad"]


def test_the_rule_is_exact_seeded_and_by_subject() -> None:
    names = {f"s{i}" for i in range(40)}
    whose = assign(Rule(val=0.1, test=0.2, seed=1), names)
    count = {s: sum(at == s for at in whose.values()) for s in ("train", "val", "test")}
    assert count == {"train": 28, "val": 4, "test": 8}
    assert whose == assign(Rule(val=0.1, test=0.2, seed=1), {f"s{i}" for i in reversed(range(40))})
    assert whose != assign(Rule(val=0.1, test=0.2, seed=2), names)
    assert set(assign(Rule(val=0.01, test=0.01), {"a", "b", "c"}).values()) == {"train", "val", "test"}
    with pytest.raises(ValueError, match="too few"):
        assign(Rule(val=0.1, test=0.1), {"a", "b"})
    assert assign(Rule(train=("a",), val=("b",)), {"a", "b", "c"}) == {"a": "train", "b": "val"}
    assert assign(Rule(val=("b",)), {"a", "b", "c"}) == {"a": "train", "b": "val", "c": "train"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[split]\nval = 0.6\ntest = 0.5\n", "together below 1"),
        ("[split]\ntrain = ['a']\nval = ['a']\n", "subjects in two splits"),
        ("[split]\ntrain = ['a']\nval = 0.1\n", "not both"),
        ("train = 't'\n[split]\nval = 0.1\n", "not both"),
        ("subject = '('\n", "not a regular expression"),
        ("[[files]]\npath = '../x'\n", "not a plain path"),
        ("[[files]]\npath = '/x'\n", "not a plain path"),
        ("[[files]]\npath = 'a/../../x'\n", "not a plain path"),
        ("[[files]]\npath = 'C:x'\n", "not a plain path"),
        ("[[files]]\npath = 'x'\nurl = 'http://a.org/x'\n", "does not start with https"),
        ("[[files]]\npath = 'x'\nsha256 = 'abc'\n", "files.0.sha256"),
        ("[[files]]\npath = 'x'\nsha265 = 'abc'\n", "did you mean 'sha256'"),
        ("[split]\nvalidation = 0.1\n", "unknown key 'split.validation'"),
    ],
)
def test_mistakes_in_a_manifest(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=r"m\.toml") as error:
        manifest(tmp_path, text)
    assert complaint in str(error.value)


def test_a_folder_gets_a_manifest_that_reads_back(tmp_path: Path) -> None:
    for i in range(6):
        make_series(tmp_path / "scans" / f"visit{i}", 2, PatientID=f"P{i // 2}")
    made, whose, warnings = split_folder(tmp_path / "scans", tmp_path / "sub" / "m.toml", 0.3, 0.3, 0)
    assert sorted(whose) == sorted(pseudonym(f"P{i}") for i in range(3)) and warnings == []
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "m.toml"
    path.write_text(manifest_text(made, "made"))
    again = load_manifest(path)
    assert again.split == made.split and again.modality == "CT" and again.subject == "PatientID"
    by_subject = {case.subject: case.split for case in inventory(again).cases}
    assert by_subject == whose and set(whose.values()) == {"train", "val", "test"}


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    """Localizers, the other modality, colour captures and other files are no training images, and that is said."""
    for i in range(3):
        make_series(tmp_path / "d" / f"p{i}", 2, PatientID=f"P{i}")
    make_series(tmp_path / "d" / "scout", 1, PatientID="P0", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    make_series(tmp_path / "d" / "mr", 2, modality="MR", PatientID="P1")
    make_series(tmp_path / "d" / "shot", 1, PatientID="P1", SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    (tmp_path / "d" / "README.txt").write_text("x")
    made, whose, warnings = split_folder(tmp_path / "d", tmp_path / "m.toml", 0.3, 0.3, 0, "CT")
    assert warnings == ["passed over: 2 MR images, 1 localizers, 1 neither CT nor MR images, 1 not DICOM"]
    assert len(whose) == 3 and "3 volumes of 3 subjects" in made.content


def test_a_patient_added_later_is_in_no_split(tmp_path: Path) -> None:
    """The lists are explicit: new data never move an old subject."""
    for name in "abc":
        nifti(tmp_path / "d" / name / "x.nii.gz")
    made, whose, _ = split_folder(tmp_path / "d", tmp_path / "m.toml", 0.3, 0.3, 0, "MR")
    (tmp_path / "m.toml").write_text(manifest_text(made, "made"))
    nifti(tmp_path / "d" / "new" / "x.nii.gz")
    splits = {case.subject: case.split for case in inventory(load_manifest(tmp_path / "m.toml")).cases}
    assert splits == {**whose, "new": None}


def test_names_that_begin_alike_are_warned_about(tmp_path: Path) -> None:
    for name in ("IXI1-T1", "IXI1-T2", "IXI2-T1", "IXI2-T2"):
        nifti(tmp_path / "d" / f"{name}.nii.gz")
    _, _, warnings = split_folder(tmp_path / "d", tmp_path / "m.toml", 0.3, 0, 0, "MR")
    assert len(warnings) == 1 and "--subject" in warnings[0]
    _, whose, warnings = split_folder(tmp_path / "d", tmp_path / "m.toml", 0.3, 0, 0, "MR", r"IXI\d")
    assert set(whose) == {"IXI1", "IXI2"} and warnings == []


def test_what_a_folder_does_not_tell_is_asked_for(tmp_path: Path) -> None:
    nifti(tmp_path / "d" / "x.nii.gz")
    with pytest.raises(ValueError, match="give --modality"):
        describe(tmp_path / "d")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no DICOM, NIfTI"):
        describe(tmp_path / "empty")
    with pytest.raises(FileNotFoundError):
        describe(tmp_path / "absent")


def test_text_survives_toml() -> None:
    odd = 'quote " backslash \\ newline \n tab \t umlaut ü del \x7f'
    m = Manifest(name=odd, modality="CT", units="HU", content=odd, licence="x", licence_checked="x")
    table = tomllib.loads(manifest_text(m, "c"))
    assert table["name"] == odd and table["content"] == odd


def test_fastmri_volumes_of_one_patient_stay_together(tmp_path: Path) -> None:
    """Three files of two patients, told by the attribute patient_id, which is not passed on as it is."""
    import h5py

    (tmp_path / "d").mkdir()
    for name, patient in (("a", "hash1"), ("b", "hash2"), ("c", "hash1")):
        with h5py.File(tmp_path / "d" / f"{name}.h5", "w") as h5:
            h5["reconstruction_rss"] = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1)).numpy() * 1e-5
            h5.attrs["patient_id"] = patient
    text = "kind = 'fastmri'\nroot = 'd'\nsubject = 'PatientID'\n[split]\n"
    (tmp_path / "m.toml").write_text(HEAD.replace("CT", "MR").replace("HU", "a.u.") + text)
    m = load_manifest(tmp_path / "m.toml")
    cases = inventory(m).cases
    one, two = pseudonym("hash1"), pseudonym("hash2")
    assert [(c.name, c.subject) for c in cases] == [("a.h5", one), ("b.h5", two), ("c.h5", one)]
    stored = read_case(cases[0], m)
    assert stored.data.shape == (3, 8, 8) and 0.5e-5 < stored.scale < 1e-5  # the 99.9th percentile


def test_every_public_manifest_reads_a_folder_like_its_own(tmp_path: Path) -> None:
    """The subject keys of IXI, OASIS-1, M4Raw on names as those sets have them."""
    folder = Path(__file__).parents[2] / "data_manifests"
    keys = {name: load_manifest(folder / f"{name}.toml").subject for name in ("ixi", "oasis1", "m4raw", "skm_tea")}
    for name, path, subject in (
        ("ixi", "IXI-T1/IXI002-Guys-0828-T1.nii.gz", "IXI002"),
        ("ixi", "IXI-PD/IXI002-Guys-0828-PD.nii.gz", "IXI002"),
        ("oasis1", "disc1/OAS1_0061_MR2/x.nii.gz", "OAS1_0061"),
        ("m4raw", "2022061003_T101.h5", "2022061003"),
        ("m4raw", "2022061003_FLAIR02.h5", "2022061003"),
        ("skm_tea", "MTR_030/I001.dcm", "MTR_030"),
    ):
        assert subject_of(tmp_path / path, tmp_path, keys[name]) == subject


def test_an_expression_that_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expressions, "SECONDS", 0.5)
    nifti(tmp_path / "train" / ("a" * 40 + "!.nii"))
    m = manifest(tmp_path, "kind = 'nifti'\ntrain = 'train'\nsubject = '^(a+)+$'\n")
    with pytest.raises(ValueError, match=r"takes more than 0\.5 s for 2 names"):
        inventory(m)
    good = manifest(tmp_path, "kind = 'nifti'\ntrain = 'train'\nsubject = '^(a+)'\n")
    assert [case.subject for case in inventory(good).cases] == ["a" * 40]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-nan"])
def test_fractions_are_numbers(value: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"m\.toml: key 'split"):
        manifest(tmp_path, f"kind = 'nifti'\n[split]\nval = {value}\n")
    with pytest.raises(ValueError, match=r"m\.toml: key 'slope'"):
        manifest(tmp_path, f"kind = 'nifti'\ntrain = 'a'\nslope = {value}\n")
