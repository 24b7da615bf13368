"""Entry point: version, configuration file, errors and exit codes."""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import App, Parameter
from pydantic import ValidationError

from medrecon.cli.options import UsageError
from medrecon.cli.signals import Ended, ended_by_signals
from medrecon.core import plain_text
from medrecon.core.discover import left_out, modules

EXPECTED = (ValueError, OSError, LookupError, ImportError, RuntimeError, FloatingPointError)
"""Errors whose message tells the user what to do; others are ours and show a traceback."""


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
        YAML file with options of the command; flags win over it
    debug
        show tracebacks
    """
    del debug  # main() looks for it before anything can fail
    app.config = ()
    if config is not None:
        source = str(config.absolute())
        app.config = (cyclopts.config.Dict(read_yaml(config), use_commands_as_keys=False, source=source),)
    try:
        return _call(app, tokens)
    except cyclopts.CycloptsError as error:
        raise UsageError(explain(error, config)) from error
    finally:
        app.config = ()


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the options in a YAML file; settings of a group (original: {steps: 12}) as one level of keys, see `flat`.

    Raises:
        UsageError: not a YAML file with options.
    """
    if not path.is_file():
        raise UsageError(f"--config {path}: no such file")
    try:
        content = plain_text.read_yaml(path)
    except ValueError as error:
        raise UsageError(f"--config {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"--config {path}: expected lines such as `views: 60`")
    if isinstance(content.get("settings"), dict):
        content["settings"] = one_level(content["settings"])
    return content


def one_level(settings: dict[str, Any]) -> dict[str, Any]:
    """Write {group: {name: value}} and {group.name: value} as {group/name: value}."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= {f"{key}/{name}": v for name, v in value.items()} if isinstance(value, dict) else {key: value}
    return {key.replace(".", "/"): value for key, value in found.items()}


def explain(error: cyclopts.CycloptsError, config: Path | None) -> str:
    """Say in one line: file, key, what is wrong, nearest valid name."""
    cause = error.__cause__
    if isinstance(cause, ValidationError):  # one entry a key
        return "; ".join(_bad_value(dict(entry), config) for entry in cause.errors())
    text = " ".join(str(error).split())
    if isinstance(error, cyclopts.UnknownOptionError) and "Did you mean" not in text:
        names = [n for a in error.argument_collection for n in a.names if n.startswith("--")]
        wanted = "--" + (error.token.keyword or error.token.value).strip("-[]").replace("][", ".")
        near = difflib.get_close_matches(wanted, names, 1, 0.5)
        text += f" Did you mean {near[0]}?" if near else f" Known: {', '.join(sorted(set(names)))}."
    return text


def _bad_value(entry: dict[str, Any], config: Path | None) -> str:
    key = ".".join(str(part) for part in entry["loc"])
    where = ""
    if config is not None and f"--{key.replace('_', '-')}" not in sys.argv:
        where = f"{config}: "
    return f"{where}--{key.replace('_', '-')}: {entry['msg']}, got {entry['input']!r}"


def flat(token: str) -> str:
    """Write --settings.group.name as --settings.group/name: cyclopts takes one level of keys."""
    head, dot, rest = token.partition(".")
    name, equals, value = rest.partition("=")
    return head + dot + name.replace(".", "/") + equals + value if head == "--settings" else token


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 done, 1 failed, 2 wrong usage, 130 interrupted, 128 + the number of a signal that ended it."""
    tokens = [flat(token) for token in (sys.argv[1:] if argv is None else argv)]
    try:
        with ended_by_signals():
            result = _call(app.meta, tokens)
        return result if isinstance(result, int) else 0
    except (UsageError, cyclopts.CycloptsError) as error:
        text, code = str(error), 2
    except KeyboardInterrupt as error:
        text, code = str(error) or "interrupted", 130
    except Ended as error:
        text, code = str(error), 128 + error.number
    except EXPECTED as error:
        if "--debug" in tokens:
            raise
        text, code = f"{error}" or type(error).__name__, 1
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(f"medrecon: {text}", file=sys.stderr)
    return code
