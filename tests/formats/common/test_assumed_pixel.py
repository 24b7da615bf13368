"""A pixel or an element that the file does not tell counts as 1 mm: said, with the option that sets it."""

import logging
from pathlib import Path

import numpy as np
import pytest
from raw_maker import dxchange, lines, parallel
from scans import mri

from medrecon import formats
from medrecon.acquisition.options import RawOptions
from medrecon.cli import main


def npy(folder: Path) -> Path:
    np.save(folder / "k.npy", mri().data.numpy())
    return folder / "k.npy"


def bart(folder: Path) -> Path:
    return formats.export(mri(), folder / "k.cfl", "bart")


def beamline(folder: Path) -> Path:
    rays = parallel(60, 64, 2.5, 4.0)
    p = lines(rays).double().numpy()[:, None]
    return dxchange(folder / "raw.h5", p, np.rad2deg(rays.angles))


@pytest.mark.parametrize(
    ("make", "option", "value"), [(npy, "--pixel", "0.5"), (bart, "--pixel", "0.5"), (beamline, "--pixel-size", "0.5")]
)
def test_said_unless_set(make, option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = make(tmp_path)
    argv = ["import", str(file), "-o", str(tmp_path / "scan.h5"), "--dry-run"]
    assert main(argv) == 0
    assert f"counts as 1 mm; {option} sets it" in capsys.readouterr().err
    assert main([*argv, option, value]) == 0
    assert "1 mm" not in capsys.readouterr().err


@pytest.mark.parametrize(("make", "given"), [(npy, {"pixel": 0.5}), (bart, {"pixel": 0.5})])
def test_in_python(make, given: dict[str, float], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = make(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert formats.read_raw(file).affine[0, 0] == -1.0
    assert "a pixel counts as 1 mm; --pixel sets it" in caplog.text
    caplog.clear()
    assert formats.read_raw(file, RawOptions(**given)).affine[0, 0] == -0.5 and not caplog.text
