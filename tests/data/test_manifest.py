"""Data manifests: every one in the repository is valid; mistakes name file and key; folders become slices."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medrecon import formats
from medrecon.core.volume import Volume
from medrecon.data.manifest import Manifest, load_manifest
from medrecon.training.images.sources import load_slices

FOLDER = Path(__file__).parents[2] / "data_manifests"
GOOD = """
name = "mine"
modality = "{modality}"
units = "{units}"
content = "two subjects"
licence = "own data"
licence_checked = "ethics vote"
kind = "{kind}"
train = "train"
val = "val"
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def mine(folder: Path, kind: str, modality: str = "MR", units: str = "a.u.", extra: str = "") -> Manifest:
    return load_manifest(write(folder / "mine.toml", GOOD.format(kind=kind, modality=modality, units=units) + extra))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda p: p.stem)
def test_every_manifest_says_what_licence_and_where(path: Path) -> None:
    manifest = load_manifest(path)
    assert manifest.path == path and manifest.licence and manifest.licence_checked
    assert manifest.doi or manifest.url or manifest.sources
    assert manifest.model_dump(mode="json")["name"] == manifest.name
    assert manifest.access or manifest.sources
    assert manifest.citation
    if manifest.kind not in (None, "sheets"):  # a public set that can be indexed says who is in which split
        assert manifest.split or (manifest.train and manifest.val)


@pytest.mark.parametrize("name", ["corpus_ct", "corpus_mri"])
def test_corpus_sources_and_subjects(corpus: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every source has its licence in the manifest, and no subject is in both splits."""
    monkeypatch.setenv("MEDRECON_CORPUS", str(corpus))
    manifest = load_manifest(FOLDER / f"{name}.toml")
    subjects = {}
    for split in ("train", "val"):
        with (manifest.folder(split) / "index.tsv").open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        known = {s.name for s in manifest.sources if split in s.used_for}
        assert {r["source"] for r in rows} <= known
        subjects[split] = {(r["source"], r["subject"]) for r in rows}
    assert not subjects["train"] & subjects["val"]


def test_corpus_values_are_physical(corpus: Path) -> None:
    ct = load_slices(load_manifest(FOLDER / "corpus_ct.toml"), "val", 256, corpus)
    assert ct.data.shape == (111, 256, 256) and len(set(ct.subjects)) == 9
    low, high = ct.values(slice(None)).aminmax()
    assert (float(low), float(high) > 1000) == (-1024.0, True)
    mri = load_slices(load_manifest(FOLDER / "corpus_mri.toml"), "val", 256, corpus)
    assert float(mri.values(slice(None)).max()) == pytest.approx(255 / 230)


def test_mistakes_name_file_and_key(tmp_path: Path) -> None:
    text = GOOD.format(kind="dicom", modality="CT", units="HU")
    path = write(tmp_path / "m.toml", text + "tran = 'x'\n[[sources]]\nname = 'a'\nlicense = 'CC0'\n")
    with pytest.raises(ValueError, match=r"m\.toml") as error:
        load_manifest(path)
    for part in (
        f"{path}: unknown key 'tran'; did you mean 'train'?",
        "unknown key 'sources.0.license'; did you mean 'licence'?",
        "key 'sources.0.origin': Field required",
    ):
        assert part in str(error.value)
    with pytest.raises(ValueError, match=r"m\.toml: key 'kind': .*'sheets', 'dicom', 'nifti', 'fastmri' or 'store'"):
        load_manifest(write(path, text.replace('"dicom"', '"tiff"')))
    with pytest.raises(ValueError, match=r"m\.toml: not a TOML file"):
        load_manifest(write(path, "name = "))
    with pytest.raises(FileNotFoundError):
        load_manifest(tmp_path / "absent.toml")


def test_root_goes_argument_then_variable_then_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("argument", "variable", "manifest"):
        (tmp_path / name / "train").mkdir(parents=True)
    manifest = mine(tmp_path, "dicom", extra='root = "manifest"\nroot_variable = "MY_DATA"\n')
    assert manifest.folder("train") == tmp_path / "manifest" / "train"
    monkeypatch.setenv("MY_DATA", str(tmp_path / "variable"))
    assert manifest.folder("train") == tmp_path / "variable" / "train"
    assert manifest.folder("train", tmp_path / "argument") == tmp_path / "argument" / "train"
    with pytest.raises(FileNotFoundError, match=r"val.*not found.*set MY_DATA"):
        manifest.folder("val")
    with pytest.raises(ValueError, match=r"lodopab\.toml: no 'train' folder to read; get the data"):
        load_manifest(FOLDER / "lodopab.toml").folder("train")


def test_sheets_become_slices(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    stack = (np.arange(3 * 16 * 16, dtype=np.uint16) + 1000).reshape(48, 16)
    Image.fromarray(stack).save(tmp_path / "train" / "a.png")
    rows = "".join(f"a.png\t{i}\tscanner\tpatient{i // 2}\n" for i in range(3))
    (tmp_path / "train" / "index.tsv").write_text("sheet\tframe\tsource\tsubject\n" + rows)
    manifest = mine(tmp_path, "sheets", "CT", "HU", "intercept = -1024.0\n")
    slices = load_slices(manifest, "train", 16)
    assert slices.subjects == ("scanner/patient0", "scanner/patient0", "scanner/patient1")
    assert torch.equal(slices.values(slice(None)), torch.from_numpy(stack.reshape(3, 16, 16).astype(np.float32)) - 1024)
    small = load_slices(manifest, "train", 8).values(slice(None))
    assert small.shape == (3, 8, 8)
    assert torch.allclose(small.mean((1, 2)), slices.values(slice(None)).mean((1, 2)), atol=1.0)


def nifti(path: Path, data: torch.Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    formats.write(Volume(data, torch.eye(4, dtype=torch.float64), "a.u.", "MR"), path)


def test_nifti_files_and_folders_become_subjects(tmp_path: Path) -> None:
    """One file or one folder is a subject; magnitudes are scaled to about 1, whatever the scanner's units."""
    ramp = torch.linspace(0, 1, 40 * 24).reshape(1, 40, 24).expand(4, -1, -1)
    nifti(tmp_path / "train" / "one.nii.gz", ramp * 1000)
    nifti(tmp_path / "train" / "two" / "t1.nii.gz", ramp[:2] * 3)
    nifti(tmp_path / "train" / "two" / "t2.nii.gz", ramp[:1] * 70)
    manifest = mine(tmp_path, "nifti")
    slices = load_slices(manifest, "train", 40)
    assert slices.subjects == ("one.nii.gz",) * 4 + ("two",) * 3
    assert slices.data.dtype == torch.int16
    x = slices.values(slice(None))
    assert x.amax((1, 2)).tolist() == pytest.approx([1.0] * 7, abs=0.01)
    # 40 x 24 is padded to 40 x 40 and not stretched.
    assert float((x[0, :, 8:32] - ramp[0]).abs().max()) < 0.002
    assert float(x[0, :, :8].abs().max()) == 0.0


def test_dicom_series_become_subjects(tmp_path: Path) -> None:
    """pydicom's own small CT, in HU; a folder of another modality is refused."""
    from pydicom.data import get_testdata_file

    (tmp_path / "train" / "patient").mkdir(parents=True)
    (tmp_path / "val" / "patient").mkdir(parents=True)
    source = Path(str(get_testdata_file("CT_small.dcm", download=False)))
    (tmp_path / "train" / "patient" / "1.dcm").write_bytes(source.read_bytes())
    slices = load_slices(mine(tmp_path, "dicom", "CT", "HU"), "train", 128)
    assert slices.subjects == ("patient",)
    assert torch.equal(slices.values(slice(None)), formats.read(source).data.float())
    with pytest.raises(ValueError, match="patient: holds CT images, and MR was asked for"):
        load_slices(mine(tmp_path, "dicom"), "train", 128)
    with pytest.raises(ValueError, match=r"patient: CT in HU, but .*mine\.toml says CT in 1/mm"):
        load_slices(mine(tmp_path, "dicom", "CT", "1/mm"), "train", 128)
    (tmp_path / "val" / "patient").rmdir()
    with pytest.raises(FileNotFoundError, match="no sub-folders"):
        load_slices(mine(tmp_path, "dicom", "CT", "HU"), "val", 128)
