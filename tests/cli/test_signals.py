"""A signal ends a command as Ctrl-C does: the old output is whole, nothing is left over, the exit code tells."""

import os
import signal
from pathlib import Path

import pytest
from cyclopts import App

from medrecon.cli import main
from medrecon.cli.main import app
from medrecon.core import atomic


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_what_was_begun_is_taken_away(
    number: signal.Signals, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("this signal is ignored here, as in the background of a shell, and stays so")
    target = tmp_path / "out"
    target.write_text("old")
    command = App(name="slow")

    @command.default
    def slow() -> None:
        with atomic.claimed(target), atomic.file(target, overwrite=True) as made:
            made.write_text("half")
            os.kill(os.getpid(), number)
            pytest.fail("the signal did not end it")

    before = signal.getsignal(number)
    app.command(command)
    try:
        assert main(["slow"]) == code
    finally:
        del app["slow"]
    assert signal.getsignal(number) is before
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["out"]
    assert capsys.readouterr().err.startswith("medrecon: ")


def test_a_signal_that_a_library_swallows_still_ends_with_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    """Compiled code that calls back drops what is raised there."""
    command = App(name="deaf")

    @command.default
    def deaf() -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException:
            return 0
        return 1

    app.command(command)
    try:
        assert main(["deaf"]) == 143
    finally:
        del app["deaf"]
    assert "ended by SIGTERM" in capsys.readouterr().err
