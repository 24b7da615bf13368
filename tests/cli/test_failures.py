"""Whatever a command raises ends in one line that can be printed safely, never in a traceback."""

import zlib
from pathlib import Path

import pytest
import torch

from medrecon.cli import main
from medrecon.cli.show import clean


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("scan.h5: damaged"), "scan.h5: damaged"),
        (TypeError("a float is required"), "a fault of medrecon: TypeError: a float is required (test_failures.py, "),
        (KeyError("sha256"), "a fault of medrecon: KeyError: 'sha256'"),
        (AttributeError("no read"), "a fault of medrecon: AttributeError"),
        (zlib.error("invalid block"), "a fault of medrecon: error: invalid block"),
        (ValueError(), "a fault of medrecon: ValueError"),
        (MemoryError(), "not enough memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried\nto allocate"), "the GPU is out of memory; give a smaller"),
        (RecursionError("maximum depth"), "maximum depth"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_exception_is_one_line(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("medrecon.formats.info", fail)
    assert main(["info", str(tmp_path)]) == 1
    text = capsys.readouterr()
    assert text.err.startswith(f"medrecon: {said}") and text.err.count("\n") == 1
    assert text.out == "" and "Traceback" not in text.err


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("medrecon.formats.info", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["info", str(tmp_path), "--debug"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:pass@host/a?b=1: 404", "https://host/a?b=1: 404"),
        ("https://host/a?X-Amz-Signature=abc&part=2", "https://host/a?X-Amz-Signature=...&part=2"),
        ("a\x1b[2Jb\x07", "a\\x1b[2Jb\\x07"),
        ("pic\u202egpj.exe", "pic\\u202egpj.exe"),
        ("Grüße, χ²/m 1.0\n\tσ", "Grüße, χ²/m 1.0\n\tσ"),
    ],
)
def test_what_is_printed_is_safe(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_a_path_with_control_characters_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "scan\x1b[2J.h5"]) == 1
    assert "\x1b" not in (shown := capsys.readouterr().err) and "\\x1b[2J" in shown


def test_an_address_with_a_password_is_not_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "set.toml").write_text(
        'name = "x"\nmodality = "CT"\nunits = "HU"\ncontent = "1"\nlicence = "-"\nlicence_checked = "-"\n'
        '[[files]]\npath = "a.zip"\nurl = "http://me:secret@host/a.zip"\n'
    )
    assert main(["data", "fetch", str(tmp_path / "set.toml"), "-o", str(tmp_path / "out"), "--quiet"]) == 1
    assert "host/a.zip" in (shown := capsys.readouterr().err) and "secret" not in shown


@pytest.mark.parametrize("key", ["slope", "intercept"])
def test_an_infinite_slope_is_refused(key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "set.toml").write_text(
        f'name = "x"\nmodality = "CT"\nunits = "HU"\ncontent = "1"\nlicence = "-"\nlicence_checked = "-"\n{key} = inf\n'
    )
    assert main(["data", "check", str(tmp_path / "set.toml")]) == 1
    assert f"set.toml: key '{key}': Input should be a finite number" in capsys.readouterr().err


def test_what_pydantic_says_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.nii").write_bytes(b"")
    split = ["data", "split", str(tmp_path / "d"), "-o", str(tmp_path / "m.toml"), "--modality", "MR"]
    assert main([*split, "--val", "nan"]) != 0
    err = capsys.readouterr().err
    assert len(err.strip().splitlines()) == 1 and "http" not in err and "val" in err
