"""What all raw formats share: the plug-in interface, options, and `medrecon import`."""

import json
from pathlib import Path

import numpy as np
import pytest
from raw_maker import dxchange, lines, parallel

from medrecon.acquisition.options import OptionError, RawOptions
from medrecon.cli import main
from medrecon.formats.measurement_file import load_scan
from medrecon.formats.raw_data import read_raw, recognise

pytestmark = pytest.mark.usefixtures("one_thread")

RAYS = parallel(60, 64, 2.5, 4.0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    p = lines(RAYS).double().numpy()[:, None].repeat(3, axis=1)
    return dxchange(tmp_path / "raw.h5", p, np.rad2deg(RAYS.angles), pixel=(4.0, "mm"), i0=1e4)


def test_unknown_things_list_what_there_is(file: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"notes.txt: not raw data medrecon reads \(.*dxchange: .*two_detect: "):
        read_raw(tmp_path / "notes.txt")
    with pytest.raises(FileNotFoundError, match=r"absent: no such file or folder"):
        read_raw(tmp_path / "absent")
    with pytest.raises(OptionError, match=r"unknown raw format 'dxchang'; did you mean 'dxchange'\?"):
        read_raw(file, RawOptions(format="dxchang"))
    with pytest.raises(OptionError, match="slice_spacing: not for dxchange, which uses slices, size"):
        recognise(file, RawOptions(slice_spacing=2.0))


@pytest.mark.parametrize(
    "options",
    [
        {"slices": (3, 3)},
        {"slices": (-1, 2)},
        {"size": 0},
        {"pixel": -1.0},
        {"pixel_size": float("nan")},
        {"slice_spacing": float("inf")},
        {"centre": float("nan")},
    ],
)
def test_impossible_options(options: dict[str, object]) -> None:
    with pytest.raises(OptionError, match=f"{next(iter(options))}: expected"):
        RawOptions(**options)  # type: ignore[arg-type]


def test_import_command(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scan.h5"
    command = ["import", str(file), "-o", str(out), "--slices", "1:3", "--size", "32", "--json"]
    assert main([*command, "--dry-run"]) == 0 and not out.exists()
    planned = json.loads(capsys.readouterr().out)
    assert planned.pop("dry_run") is True and planned["data"] == [2, 60, 64]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == planned
    scan = load_scan(out)
    assert scan.image_shape == (32, 32) and scan.units == "1/mm" and scan.noise.i0 == pytest.approx(1e4, rel=0.2)
    assert abs(planned["provenance"]["rotation_centre_elements"] - (63 / 2 + 2.5)) < 0.1
    assert main(command) == 1 and "--overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    capsys.readouterr()
    assert main(["recon", str(out), "-o", str(tmp_path / "x.nii.gz"), "--solver", "fbp", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["units"] == "1/mm"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--slices", "2:"], 2, "expected A:B"),
        (["--slices", "0:9"], 2, "slices 0:9 are not within 0:3"),
        (["--slice-spacing", "2"], 2, "--slice-spacing: not for dxchange"),
        (["--size", "-3"], 2, "--size: should be greater than or equal to 1"),
        (["--format", "nonsense"], 2, "unknown raw format"),
        (["--format", "htc2022"], 1, "raw.h5"),
        (["--centre", "100"], 1, "rotation centre 100.0 is not on the detector of 64 elements"),
    ],
)
def test_import_errors(
    arguments: list[str], code: int, message: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(file), "-o", str(tmp_path / "scan.h5"), *arguments]) == code
    assert message in capsys.readouterr().err and not (tmp_path / "scan.h5").exists()


def test_import_wants_h5(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(file), "-o", "scan.nii"]) == 2
    assert "ends in .h5" in capsys.readouterr().err
