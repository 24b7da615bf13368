"""The command line: contracts others script against, exit codes, pure JSON, errors that name the way out."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from medrecon import formats
from medrecon.cli import main
from medrecon.cli.options import UsageError, parse_slices
from medrecon.cli.progress import Lines
from medrecon.core.volume import Volume


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, disc_volume: Callable[..., Volume]) -> Path:
    """A CT and an MR phantom as NIfTI and a measurement of each."""
    path = tmp_path_factory.mktemp("cli")
    formats.write(disc_volume("CT"), path / "ct.nii.gz")
    formats.write(disc_volume("MR"), path / "mr.nii.gz")
    assert (
        main(
            [
                "simulate",
                str(path / "ct.nii.gz"),
                "-o",
                str(path / "ct.h5"),
                "--modality",
                "ct",
                "--views",
                "24",
                "--size",
                "32",
                "--quiet",
            ]
        )
        == 0
    )
    assert (
        main(
            [
                "simulate",
                str(path / "mr.nii.gz"),
                "-o",
                str(path / "mr.h5"),
                "--modality",
                "mri",
                "--accel",
                "2",
                "--mask",
                "equispaced",
                "--acs",
                "12",
                "--coils",
                "4",
                "--quiet",
            ]
        )
        == 0
    )
    return path


def test_measurement_to_nifti_to_figures_as_pure_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(folder / "fbp.nii.gz")
    assert main(["recon", str(folder / "ct.h5"), "-o", out, "--solver", "fbp", "--json"]) == 0
    text = capsys.readouterr()
    report = json.loads(text.out)
    assert report["solver"] == "fbp"
    assert report["slices"] == [0, 3]
    assert "recon fbp: 3/3" in text.err
    assert ("does not fit the data" if report["chi2"] > 3 else "near 1 is no proof") in text.err
    saved = json.loads((folder / "fbp.report.json").read_text())
    assert saved["chi2"] == pytest.approx(report["chi2"]) and "no proof" in saved["chi2_meaning"]
    assert main(["evaluate", out, str(folder / "ct.nii.gz"), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["psnr_db"] > 25
    assert {"full", "soft"} <= set(scores["windows"])


def test_mri_patterns_from_the_command_line_to_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for pattern, fraction in (("golden-angle", "1"), ("gaussian", "0.75")):
        scan = str(folder / f"{pattern}.h5")
        argv = ["simulate", str(folder / "mr.nii.gz"), "-o", scan, "--modality", "mri", "--accel", "2", "--quiet"]
        options = ["--mask", pattern, "--acs", "12", "--coils", "3", "--partial-fourier", fraction]
        assert main([*argv, *options]) == 0
        assert main(["info", scan, "--json"]) == 0
        info = json.loads(capsys.readouterr().out)
        told = info["provenance"]
        assert (told["mask"], told["acceleration_nominal"], told["partial_fourier"]) == (pattern, 2, float(fraction))
        assert info["acceleration"] == pytest.approx(told["acceleration"], abs=1e-3)


def test_tube_current_from_simulation_to_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Photons of each slice and view reach the solver whatever the batch, and reports stay short and JSON."""
    scan, reports = str(folder / "mA.h5"), []
    argv = ["simulate", str(folder / "ct.nii.gz"), "-o", scan, "--modality", "ct", "--views", "24", "--size", "32"]
    assert main([*argv, "--tube-current", "attenuation", "--no-couch", "--quiet"]) == 0
    assert main(["info", scan, "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert [len(row) for row in info["noise"]["i0"]] == [24, 24, 24]
    assert info["provenance"]["tube_current"] == "attenuation" and info["provenance"]["couch"] is False
    for batch in ("1", "3"):
        out = str(folder / f"mA{batch}.nii.gz")
        assert main(["recon", scan, "-o", out, "--solver", "cgls", "--batch", batch, "--json", "--quiet"]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    assert reports[0]["chi2"] == pytest.approx(reports[1]["chi2"], rel=1e-4)
    i0 = reports[0]["noise_model"]["i0"]
    assert i0["mean"] == pytest.approx(5e4) and i0["min"] < i0["max"]
    assert main(["info", scan]) == 0
    assert "24 in all" in capsys.readouterr().out


def test_slices_and_dicom_out(
    folder: Path, capsys: pytest.CaptureFixture[str], disc_volume: Callable[..., Volume]
) -> None:
    out = folder / "series"
    assert main(["recon", str(folder / "mr.h5"), "-o", f"{out}/", "--solver", "zero-filled", "--slices", "1:3"]) == 0
    volume = formats.read(out)
    truth = disc_volume("MR").slices(1, 3)
    assert volume.data.shape == truth.data.shape
    torch.testing.assert_close(volume.affine, truth.affine, atol=1e-3, rtol=0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["recon", "none.h5", "-o", "x.nii.gz", "--solver", "tv"], "none.h5"),
        (["recon", "ct.h5", "-o", "ct.nii.gz", "--solver", "fbp"], "--overwrite"),
        (["evaluate", "ct.nii.gz", "mr.nii.gz"], "modality"),
        (["simulate", "mr.nii.gz", "-o", "new.h5", "--modality", "mri", "--acs", "60", "--accel", "8"], "acs"),
        (["info", "none"], "none: no such file"),
    ],
)
def test_failures_exit_1_and_say_what_to_do(
    folder: Path, argv: list[str], expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    assert main(argv) == 1
    text = capsys.readouterr()
    assert expected in text.err
    assert text.out == ""
    assert "Traceback" not in text.err
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["recno"], 'Did you mean "recon"?'),
        (["recon", "ct.h5", "-o", "x.nii.gz"], "--solver"),
        (["recon", "ct.h5", "-o", "x.nii.gz", "--solver", "fpb"], "did you mean fbp?"),
        (["recon", "ct.h5", "-o", "x.nii.gz", "--solver", "cg-sense"], "these do: "),
        (["recon", "ct.h5", "-o", "x.nii.gz", "--solver", "tv", "--mode", "fast"], "no setting 'mode'"),
        (["recon", "ct.h5", "-o", "x.nii.gz", "--solver", "tv", "--settings.iteratons=5"], "did you mean iterations?"),
        (["recon", "ct.h5", "-o", "x.nii.gz", "--solver", "tv", "--settings.iterations=many"], "setting iterations: "),
        (["simulate", "ct.nii.gz", "-o", "x.h5", "--modality", "ct", "--vews", "3"], "Did you mean --views?"),
        (["simulate", "ct.nii.gz", "-o", "x.h5", "--modality", "ct", "--views", "0"], "--views: "),
        (["simulate", "ct.nii.gz", "-o", "x.h5", "--modality", "ct", "--accel", "4"], "only for --modality mri"),
        (["simulate", "ct.nii.gz", "-o", "x.h5", "--modality", "pet"], '"ct", "mri"'),
        (["simulate", "ct.nii.gz", "-o", "x.nii", "--modality", "ct"], "ends in .h5"),
        (["recon", "ct.h5", "-o", "x.nii.gz", "--solver", "fbp", "--slices", "2:9"], "the scan has slices 0:3"),
        (["recon", "ct.h5", "-o", "x.nii.gz", "--solver", "fbp", "--config", "none.yaml"], "none.yaml: no such file"),
        (["train", "autoencoder", "none.yaml", "-o", "x"], "none.yaml: no such"),
    ],
)
def test_wrong_usage_exits_2(
    folder: Path, argv: list[str], expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert main(argv) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("viewz: 3\n", ("--config", "Did you mean --views?")),
        ("views: many\n", ("--views", "valid integer")),
        ("views: [1\n", ("not valid YAML",)),
        ("3\n", ("expected lines such as",)),
    ],
)
def test_errors_in_a_configuration_name_file_and_key(
    folder: Path, content: str, expected: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    config = folder / "bad.yaml"
    config.write_text(content)
    argv = ["simulate", str(folder / "ct.nii.gz"), "-o", str(folder / "x.h5"), "--modality", "ct"]
    code = main([*argv, "--config", str(config)])
    error = capsys.readouterr().err
    assert code == 2
    assert "bad.yaml" in error
    assert all(part in error for part in expected if part != "--config")


def test_settings_of_a_group_reach_the_solver(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["recon", str(folder / "ct.h5"), "-o", str(folder / "y.nii.gz"), "--solver", "resample", "--mode", "paper"]
    argv += ["--settings.original.steps", "40", "--settings.original.pixel-lr=0.5", "--settings.start", "0.3"]
    assert main([*argv, "--dry-run", "--json"]) == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert settings == {"original.steps": "40", "original.pixel_lr": "0.5", "start": "0.3", "mode": "paper"}
    for text in ("original: {steps: 30}", "original.steps: 30"):
        (folder / "settings.yaml").write_text(f"settings:\n  start: 0.3\n  {text}\n")
        assert main([*argv[:6], "--dry-run", "--json", "--config", str(folder / "settings.yaml")]) == 0
        assert json.loads(capsys.readouterr().out)["settings"] == {"start": "0.3", "original.steps": "30"}
    (folder / "settings.yaml").unlink()
    assert main([*argv, "--settings.original.step", "3"]) == 2
    assert "did you mean steps?" in capsys.readouterr().err


def test_flags_win_over_the_configuration(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = folder / "good.yaml"
    config.write_text("modality: ct\nviews: 30\ni0: 1000\nseed: 5\n")
    argv = ["simulate", str(folder / "ct.nii.gz"), "-o", str(folder / "x.h5"), "--views", "31", "--dry-run", "--json"]
    assert main([*argv, "--config", str(config)]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["views"], plan["i0"], plan["seed"]) == (31, 1000, 5)


def test_a_typo_in_a_training_configuration_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = folder / "train.yaml"
    values = "manifest: m.toml\nmodality: CT\nvalues: {type: asinh}\nwindows: {}\n"
    config.write_text(values + "autoencoder: {chanels: [32]}\n")
    assert main(["train", "autoencoder", str(config), "-o", str(folder / "run")]) == 2
    error = capsys.readouterr().err
    assert "train.yaml: autoencoder.chanels" in error
    assert "did you mean channels?" in error


def test_a_dry_run_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.iterdir())
    argv = ["recon", str(folder / "ct.h5"), "-o", str(folder / "dry.nii.gz"), "--solver", "tv"]
    assert main([*argv, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dry_run"] is True
    assert sorted(folder.iterdir()) == before


def test_solvers_and_info_speak_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solvers", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert "ct" in rows["fbp"]["modalities"]
    assert "mri" in rows["zero-filled"]["modalities"]
    assert all(row["summary"] for row in rows.values())
    assert main(["info", str(folder / "mr.h5"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["coils"] == 4
    assert found["acceleration"] == pytest.approx(2, rel=0.1)


def test_help_is_immediate_and_version_names_the_stack() -> None:
    code = "import sys; from medrecon.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, stdout=subprocess.DEVNULL, check=False)
    assert done.returncode == 0


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("medrecon", "torch", "cuda", "astra"))


@pytest.mark.parametrize(
    ("text", "expected"), [(None, (0, 9)), ("2:5", (2, 5)), (":4", (0, 4)), ("7:", (7, 9)), ("3", (3, 4))]
)
def test_slices(text: str | None, expected: tuple[int, int]) -> None:
    assert parse_slices(text, 9) == expected


@pytest.mark.parametrize("text", ["5:5", "6:2", "0:10", "9", "a:b", "-1:3", "1:2:3", ""])
def test_wrong_slices(text: str) -> None:
    with pytest.raises(UsageError, match="--slices"):
        parse_slices(text, 9)


def test_plain_progress_is_sparse_and_ends_complete(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines("work", every=1e9)
    for i in range(1, 6):
        lines(i, 5)
    assert capsys.readouterr().err.splitlines() == ["work: 5/5, 0:00 spent"]


def test_python_dash_m_runs_the_command_line() -> None:
    done = subprocess.run([sys.executable, "-m", "medrecon", "solvers", "--json"], capture_output=True, text=True)
    assert done.returncode == 0 and "grappa" in done.stdout


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("output", "left", "expected"),
    [
        ("x.png", None, "x.png: unknown output type"),
        ("x.nii.gz", ("x.json", '{"EchoTime": 1}'), "x.json: medrecon did not write it"),
        ("x.nii.gz", ("x.report.json", "{}"), "x.report.json: medrecon did not write it"),
        ("series/", ("series/notes.txt", "precious"), "holds 'notes.txt', which medrecon did not write"),
        ("file/x.nii.gz", ("file", "text"), "a folder is needed there"),
        (f"{'n' * 250}.nii.gz", None, "is longer than the 255 bytes"),
        (f"{'n' * 245}.nii.gz", None, "is longer than the 255 bytes"),  # with its report
    ],
)
def test_outputs_are_checked_before_computing_and_by_a_dry_run(
    folder: Path,
    output: str,
    left: tuple[str, str] | None,
    expected: str,
    dry: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if left:
        (tmp_path / left[0]).parent.mkdir(exist_ok=True)
        (tmp_path / left[0]).write_text(left[1])
    monkeypatch.setattr("medrecon.pipeline.reconstruct", lambda *_, **__: pytest.fail("computed before checking"))
    argv = ["recon", str(folder / "ct.h5"), "-o", f"{tmp_path}/{output}", "--solver", "fbp", "--overwrite", *dry]
    assert main(argv) == 1
    assert expected in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ([left[0].split("/")[0]] if left else [])


def test_a_report_is_not_replaced_unless_asked_to(folder: Path, tmp_path: Path) -> None:
    argv = ["recon", str(folder / "ct.h5"), "-o", str(tmp_path / "x.nii.gz"), "--solver", "fbp", "--quiet"]
    assert main(argv) == 0
    (tmp_path / "x.nii.gz").unlink()
    (tmp_path / "x.json").unlink()
    assert main(argv) == 1 and not (tmp_path / "x.nii.gz").exists()
    assert main([*argv, "--overwrite"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.json", "x.nii.gz", "x.report.json"]
