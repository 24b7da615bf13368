"""Entry point: version, configuration file, errors and exit codes."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import App, Parameter

from medrecon.cli.explain import explain, refuse_empty, refuse_unknown
from medrecon.cli.options import UsageError
from medrecon.cli.run_file import read_run
from medrecon.cli.show import note
from medrecon.cli.signals import Ended, ended_by_signals
from medrecon.core.discover import left_out, modules
from medrecon.numerics.threads import wait_asleep

EXPECTED = (ValueError, OSError, ImportError, RuntimeError, FloatingPointError)
"""Errors whose message tells the user what to do; others are faults of medrecon."""


def version() -> str:
    """Name medrecon and what it stands on, with versions."""
    from medrecon.cli.commands.doctor import stack

    return ", ".join(f"{name} {value}" for name, value in stack().items())


app = App(
    name="medrecon",
    version=version,
    version_flags=["--version"],
    help_flags=["--help", "-h"],
    help="Reconstruct CT and MRI from undersampled measurements. RESEARCH USE ONLY - NOT FOR CLINICAL USE.",
    suppress_keyboard_interrupt=False,  # main() says what was interrupted, and what of it is saved
)
app.meta.suppress_keyboard_interrupt = False
for module in modules("medrecon.cli.commands"):
    command = vars(module).get("app")
    if not isinstance(command, App):
        left_out(module.__name__, "a command is a cyclopts App named `app`")
    elif taken := {*command.name} & {*app}:
        left_out(module.__name__, f"there is a command {', '.join(taken)} already")
    else:
        app.command(command)


def _call(target: App, tokens: Sequence[str]) -> Any:
    return target(tokens, exit_on_error=False, print_error=False, result_action="return_value")


@app.meta.default
def _with_config(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Path | None = None,
    debug: Annotated[bool, Parameter(negative="")] = False,
) -> Any:
    """Options of every command.

    Parameters
    ----------
    config
        YAML or TOML file with options of the command, over which flags win; or a whole run, with `command` and
        `arguments` too
    debug
        show tracebacks
    """
    del debug  # main() looks for it before anything can fail
    app.config = ()
    if config is not None:
        run = read_run(config)
        tokens = run.tokens(tokens)
        refuse_unknown(app, tokens)
        app.config = (cyclopts.config.Dict(run.options, use_commands_as_keys=False, source=str(config)),)
    try:
        return _call(app, tokens)
    except cyclopts.CycloptsError as error:
        raise UsageError(explain(error, tokens, config)) from error
    finally:
        app.config = ()


def flat(token: str) -> str:
    """Write --settings.group.name as --settings.group/name: cyclopts takes one level of keys."""
    head, dot, rest = token.partition(".")
    name, equals, value = rest.partition("=")
    return head + dot + name.replace(".", "/") + equals + value if head == "--settings" else token


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 done, 1 failed, 2 wrong usage, 130 interrupted, 128 + the number of a signal that ended it."""
    wait_asleep(os.environ)
    given = sys.argv[1:] if argv is None else argv
    tokens = [flat(token) for token in given]
    logger, warnings = logging.getLogger("medrecon"), Warnings(logging.WARNING)
    logger.addHandler(warnings)
    try:
        refuse_empty(given)
        refuse_unknown(app, tokens)
        with ended_by_signals():
            result = _call(app.meta, tokens)
        return result if isinstance(result, int) else 0
    except (UsageError, cyclopts.CycloptsError) as error:
        text, code = str(error), 2
    except KeyboardInterrupt as error:
        text, code = str(error) or "interrupted", 130
    except Ended as error:
        text, code = str(error), 128 + error.number
    except Exception as error:
        if "--debug" in tokens:
            raise
        text, code = failure(error), 1
    finally:
        logger.removeHandler(warnings)
    with contextlib.suppress(OSError):  # the terminal may be gone
        note(f"medrecon: {text}")
    return code


class Warnings(logging.Handler):
    """What the library warns of, as lines for people."""

    def emit(self, record: logging.LogRecord) -> None:
        note(f"warning: {record.getMessage()}")


def failure(error: Exception) -> str:
    """Say what went wrong: what the error says, or, of a fault of ours, where it is."""
    if isinstance(error, MemoryError):
        return "not enough memory; take fewer slices (--slices), a smaller --batch or --size, or check the file's sizes"
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
        return "the GPU is out of memory; give a smaller --batch, or --device cpu"
    if type(error).__name__ == "ValidationError":  # pydantic's, over several lines, with an address
        entries: Any = error
        parts = [(".".join(map(str, e["loc"])) or "value", e["msg"]) for e in entries.errors()]
        return "; ".join(f"{key}: {text.removeprefix('Value error, ')}" for key, text in parts)
    if isinstance(error, EXPECTED) and str(error):
        return str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    said = " ".join(str(error).split())
    return (
        f"a fault of medrecon: {type(error).__name__}: {said} ({Path(frame.filename).name}, line {frame.lineno}); "
        "please report it with the traceback that --debug shows"
    )
