"""The demo at reduced cost: what it writes, and that it never deletes what is not its own."""

import json
from pathlib import Path

import pytest
from pydicom import dcmread

from medrecon import formats
from medrecon.demo import CASES, applicable, refuse_foreign, run_demo


def test_the_demo_writes_figures_pictures_and_volumes(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    done: list[tuple[float, int]] = []
    options = {"cases": ["ct_small"], "solvers": ["fbp", "tv"], "settings": {"tv": {"iterations": 20}}}
    rows = run_demo(folder, **options, on_progress=lambda d, t: done.append((d, t)))
    assert json.loads((folder / "results.json").read_text()) == rows
    assert [(r["case"], r["solver"]) for r in rows] == [("ct_small", "fbp"), ("ct_small", "tv")]
    assert all({"psnr_db", "ssim", "rmse", "chi2", "seconds"} <= set(r) for r in rows)
    assert all(r["psnr_db"] > 25 for r in rows)
    assert done[-1] == (2, 2)
    assert (folder / "ct_small.png").stat().st_size > 10_000
    nifti = formats.read(folder / "ct_small" / "tv.nii.gz")
    dicom = formats.read(folder / "ct_small" / "tv_dicom")
    assert nifti.units == dicom.units == "HU"
    derived, source = dcmread(folder / "ct_small" / "tv_dicom" / "medrecon_0001.dcm"), dcmread(CASES[1].path())
    assert derived.PatientID == source.PatientID and derived.StudyInstanceUID == source.StudyInstanceUID
    assert float((nifti.data.flatten() - dicom.data.flatten()).abs().mean()) < 2
    run_demo(folder, **{**options, "solvers": ["fbp"]})  # an earlier demo is replaced, whole
    assert len(json.loads((folder / "results.json").read_text())) == 1
    assert not (folder / "ct_small" / "tv.nii.gz").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]


def test_it_refuses_what_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"thesis\.tex"):
        run_demo(tmp_path, cases=["ct_small"], solvers=["fbp"])
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(FileExistsError, match=r"thesis\.tex"):
        refuse_foreign(tmp_path)
    with pytest.raises(FileExistsError, match="is a file"):
        refuse_foreign(tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_the_scans_are_in_pydicoms_wheel(case) -> None:  # type: ignore[no-untyped-def]
    volume = case.load()
    assert volume.modality == ("CT" if case.modality == "ct" else "MR")
    assert case.reference(volume).data.isfinite().all()


def test_what_takes_many_minutes_runs_only_where_it_is_named() -> None:
    everything = applicable("ct", None)
    assert {"resample", "dds", "daps", "tv"} <= set(everything)
    assert not {"resample-paper", "resample-reference", "dps", "latino"} & set(everything)
    assert applicable("ct", ["resample-paper"]) == ["resample-paper"]
