"""No number that a user can type ends in a traceback, a run without end, or a plan that the run then refuses."""

import dataclasses
import os
import time
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

from medrecon import formats
from medrecon.cli import main
from medrecon.cli.main import app
from medrecon.core.volume import Volume
from medrecon.pipeline.choose import parse_settings, settable, solver_classes
from medrecon.pipeline.request import RequestError

INPUTS = {
    "correct": "x.h5 -o y.h5 --rings",
    "data check": "x.toml",
    "data index": "x.toml -o y",
    "data split": "x -o y.toml",
    "demo": "-o y",
    "diagnose": "ct --data x -o y",
    "import": "x.dat -o y.h5",
    "noise": "x.h5 -o y.nii --solver fbp",
    "recon": "x.h5 -o y.nii --solver fbp",
    "simulate": "x.nii -o y.h5 --modality ct",
    "undersample": "x.h5 -o y.h5",
}
"""Of the commands with numbers; none of the files is there."""
WHOLE, HUGE = str(2**70), "1e300"
MAY_BE_NEGATIVE = {"--snr", "--centre"}


def commands(of: App, name: str = "") -> Iterator[tuple[str, App]]:
    for part in (part for part in of if not part.startswith("-")):
        yield f"{name} {part}".strip(), of[part]
        yield from commands(of[part], f"{name} {part}".strip())


def kinds(hint: Any) -> set[type]:
    """The types that a value may have: those in a union, or in the values of a dict."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Annotated:
        return kinds(inner[0])
    if typing.get_origin(hint) is dict:
        return kinds(inner[1])
    return set().union(*map(kinds, inner)) if inner else {hint}


def model_of(command: App, argument: Any) -> str:
    """The group of options that is checked at once: a parameter of the command that is a model, and what is within."""
    inner = argument.keys[:-1]
    hints = typing.get_type_hints(command.default_command, include_extras=False)
    models = (name for name, hint in hints.items() if argument.keys[-1] in getattr(hint, "model_fields", {}))
    return ".".join(inner) if inner else next(models, "")


def numeric() -> dict[tuple[str, str], list[str]]:
    """Options that take a number by command and group of options, which are checked together."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, command in commands(app):
        if command.default_command is None:
            continue
        for argument in command.assemble_argument_collection():
            if argument.name.startswith("--") and kinds(argument.hint) & {int, float}:
                found.setdefault((name, model_of(command, argument)), []).append(argument.name)
    return found


NUMERIC = numeric()


def test_every_command_with_numbers_is_tried() -> None:
    assert {name for name, _ in NUMERIC} == set(INPUTS)
    assert sum(map(len, NUMERIC.values())) > 40


@pytest.mark.parametrize("value", [HUGE, "-" + HUGE, WHOLE, "nan", "inf", "-1", "many"])
@pytest.mark.parametrize(("command", "group"), NUMERIC)
def test_a_number_out_of_range_is_refused_at_once(
    command: str,
    group: str,
    value: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [option for option in NUMERIC[command, group] if value != "-1" or option not in MAY_BE_NEGATIVE]
    keys = [f"{option}.a" if option == "--where" else option for option in options]
    argv = [*command.split(), *INPUTS[command].split(), *(f"{key}={value}" for key in keys)]
    began = time.process_time()
    assert main(argv) == 2
    assert time.process_time() - began < 1
    said = capsys.readouterr().err.strip().removeprefix("medrecon: ")
    assert [part.partition(": ")[0] for part in said.split("; ")] == keys and "\n" not in said


def test_an_empty_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a path it would be the current folder."""
    for argv, name in (
        (["recon", "x.h5", "-o", "", "--solver", "fbp"], "-o"),
        (["recon", "x.h5", "-o", "x.nii", "--solver="], "--solver"),
        (["info", ""], "an argument"),
    ):
        assert main(argv) == 2
        assert capsys.readouterr().err.startswith(f"medrecon: {name}: is empty; is a variable")


@pytest.mark.parametrize("name", sorted(solver_classes()))
def test_a_setting_beyond_single_precision_or_patience_is_refused(name: str) -> None:
    cls = solver_classes()[name]
    hints = typing.get_type_hints(cls)
    for field in settable(cls):
        inner = hints[field.name]
        group = dataclasses.is_dataclass(inner)
        parts = typing.get_type_hints(inner) if group else {"": inner}
        for part, hint in parts.items():
            key = f"{field.name}.{part}" if group else field.name
            for value in (HUGE, WHOLE, "-inf") if kinds(hint) & {int, float} else ():
                with pytest.raises(RequestError, match=rf"setting {key}: .*, got '{value}'"):
                    parse_settings(cls, {key: value})


@pytest.mark.parametrize(
    ("modality", "options", "said"),
    [
        ("ct", "--size 65", "--size 65: size must be between 8 and the 64 rows"),
        ("ct", "--geometry helix --arc 180", "--arc 180.0: a helix makes as many turns"),
        ("mri", "--acs 100", "--acs 100: mask: acs must be between"),
        ("mri", "--accel 8 --acs 30", "--accel 8.0, --acs 30: "),
        ("mri", "--mask poisson --accel 900", "--accel 900.0, --mask poisson: "),
        ("mri", "--partial-fourier 0.5 --acs 30 --accel 1.5", "partial Fourier of 0.5 cuts into the ACS of 30"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_simulation_that_cannot_be_is_refused_before_it_begins(
    modality: str,
    options: str,
    said: str,
    dry: list[str],
    tmp_path: Path,
    disc_volume: Callable[..., Volume],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for function in ("simulate_ct", "simulate_mri"):
        monkeypatch.setattr(f"medrecon.simulate.{function}", lambda *_, **__: pytest.fail("computed before checking"))
    formats.write(disc_volume("CT" if modality == "ct" else "MR"), tmp_path / "x.nii")
    argv = ["simulate", str(tmp_path / "x.nii"), "-o", str(tmp_path / "y.h5"), "--modality", modality]
    assert main([*argv, *options.split(), *dry]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"medrecon: {tmp_path / 'x.nii'}, --") and said in error
    assert not (tmp_path / "y.h5").exists()


@pytest.mark.parametrize(
    ("modality", "options"),
    [
        ("ct", "--views 100000 --geometry cone"),
        ("ct", "--views 100000 --geometry helix"),
        ("ct", "--views 100000"),
        ("mri", "--coils 256 --acs 4"),
        ("mri", "--readouts 100000 --trajectory golden"),
        ("mri", "--readouts 100000 --trajectory spiral"),
    ],
)
def test_more_than_the_memory_there_is_refused_by_the_options_that_need_it(
    modality: str,
    options: str,
    tmp_path: Path,
    disc_volume: Callable[..., Volume],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    formats.write(disc_volume("CT" if modality == "ct" else "MR", 32), tmp_path / "x.nii")
    argv = ["simulate", str(tmp_path / "x.nii"), "-o", str(tmp_path / "y.h5"), "--modality", modality, "--dry-run"]
    assert main([*argv, *options.split()[2:]]) == 0
    capsys.readouterr()
    monkeypatch.setattr(os, "sysconf", lambda _: 4096)  # 16 MB
    assert main([*argv, *options.split()]) == 1
    error = capsys.readouterr().err
    assert f"{' '.join(options.split()[:2])}" in error and "GB of memory at least, and 0.0168 GB are here" in error
