"""medrecon solvers NAME: every setting of every solver has a type, its default and a meaning; published values are the
paper's."""

import json

import pytest

from medrecon.cli import main
from medrecon.pipeline.choose import as_values, parse_settings, settable, solver_classes
from medrecon.pipeline.settings_help import describe_solver, in_args, meanings
from medrecon.solvers.diffusion.gradient.dps import DPS

SOLVERS = solver_classes()


@pytest.mark.parametrize("name", SOLVERS)
def test_every_setting_is_told(name: str) -> None:
    told = describe_solver(SOLVERS[name])
    assert told["source"].endswith(".") and json.dumps(told)
    fields = settable(SOLVERS[name])
    assert [row["name"] for row in told["settings"]] == [f.name.replace("_", "-") for f in fields]
    for row, field in zip(told["settings"], fields, strict=True):
        assert len(row["meaning"]) > 5 and row["default"] == as_values(field.default)
        assert "[" not in row["type"] and "typing" not in row["type"]
        for choice in row["type"].split(" or ") if row["type"].startswith(("ramp", "rings", "ve ")) else []:
            parse_settings(SOLVERS[name], {field.name: choice})


def test_published_values_are_those_of_the_paper(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["name"]: row for row in describe_solver(DPS)["settings"]}
    assert (rows["steps"]["default"], rows["steps"]["published"]) == (12, 1000)
    assert rows["start"]["published"] is None
    assert (rows["step"]["default"], rows["step"]["published"]) == (1.9, 1.0)
    assert all("published" not in row for row in describe_solver(SOLVERS["tv"])["settings"])
    assert main(["solvers", "dps"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("--settings.steps"))
    assert line.split()[:5] == ["--settings.steps", "whole", "number", "12", "1000"]


class Mother:
    """Has two.

    Args:
        first, second: numbers,
            both.

    Raises:
        ValueError: never.
    """

    first: int = 1
    """hers"""
    second: int = 2


class Daughter(Mother):
    first: int = 3
    """of her own"""


def test_meanings_are_those_of_the_nearest_class() -> None:
    assert meanings(Mother)["first"] == "hers"
    assert meanings(Daughter) == {"first": "of her own", "second": "numbers, both."}
    assert in_args("No section.\n\nRaises:\n    ValueError: x.") == {}


def test_an_unknown_solver_is_told_its_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solvers", "resampel"]) == 2
    assert "unknown solver 'resampel'; did you mean resample?" in capsys.readouterr().err
    assert main(["solvers", "zero-filled"]) == 0
    assert "settings: none" in capsys.readouterr().out
    assert main(["recon", "--help"]) == 0
    assert "medrecon solvers NAME" in " ".join(capsys.readouterr().out.replace("│", " ").split())
