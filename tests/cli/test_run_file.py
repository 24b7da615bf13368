"""--config with a whole run: it does what the same words on the command line do, and says what it cannot be."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from medrecon import formats
from medrecon.cli import main
from medrecon.core.volume import Volume

TOML = """
command = "evaluate"
arguments = ["b.nii", "a.nii"]
modality = "ct"
json = true
"""
YAML = "command: data split\narguments: scans\noutput: m.toml\nval: 0.5\ntest: 0.25\njson: true\n"


@pytest.fixture(autouse=True)
def images(tmp_path: Path, disc_volume: Callable[..., Volume], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    volume = disc_volume("CT", 16)
    formats.write(volume, "a.nii")
    formats.write(volume.map(lambda d: d + 5), "b.nii")
    Path("run.toml").write_text(TOML)


def said(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(argv) == 0
    return capsys.readouterr().out


def test_a_run_in_a_file_is_the_run_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    typed = said(["evaluate", "b.nii", "a.nii", "--modality", "ct", "--json"], capsys)
    assert json.loads(typed)["bias"] == pytest.approx(5)
    assert said(["--config", "run.toml"], capsys) == typed
    assert said(["evaluate", "--config", "run.toml"], capsys) == typed
    Path("run.yaml").write_text("command: evaluate\narguments: [b.nii, a.nii]\nmodality: ct\njson: true\n")
    assert said(["--config", "run.yaml"], capsys) == typed


def test_flags_win_and_help_stays_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(said(["--config", "run.toml", "--grid", "recon"], capsys))["grid"]["of"] == "recon"
    Path("options.yaml").write_text("grid: recon\n")
    assert "Usage: medrecon COMMAND" in said(["--config", "options.yaml", "--help"], capsys)


@pytest.mark.parametrize(
    ("name", "content", "argv", "expected"),
    [
        ("x.toml", TOML, ["simulate"], "x.toml: is a run of evaluate, not of simulate"),
        ("x.toml", TOML.replace("evaluate", "evaluat"), [], 'Unknown command "evaluat". Did you mean "evaluate"?'),
        ("x.toml", TOML + "grit = 1", [], "--grid"),
        ("x.toml", TOML.replace('"evaluate"', "3"), [], "command: expected a name such as recon, got 3"),
        ("x.toml", TOML.replace('"b.nii"', '"--json"'), [], "arguments: expected names of files, got '--json'"),
        ("x.toml", TOML.replace('"b.nii"', '""'), [], "arguments: expected names of files, got ''"),
        ("x.toml", "arguments = 'a.nii'", ["evaluate"], "arguments without a command"),
        ("x.toml", "command = ", [], "x.toml: not a TOML file"),
        ("none.toml", None, [], "none.toml: no such file"),
        ("x.yaml", "grid: recon\n", [], "x.yaml: no command, neither in the file (`command: recon`) nor before"),
        ("x.yaml", YAML, ["data", "check"], "is a run of data split, not of data check"),
    ],
)
def test_what_is_no_run_is_named_in_a_line(
    name: str, content: str | None, argv: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        Path(name).write_text(content)
    assert main([*argv, "--config", name]) == 2
    text = capsys.readouterr()
    assert expected in text.err and text.err.count("\n") == 1 and text.out == ""


def test_commands_of_two_words_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.yaml").write_text(YAML)
    assert main(["--config", "run.yaml"]) == 1
    assert capsys.readouterr().err.startswith("medrecon: scans: ")
