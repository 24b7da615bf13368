"""What cyclopts and pydantic say of a command line, in one line: what is wrong, and the nearest name that is right."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cyclopts
from cyclopts import App
from pydantic import ValidationError

from medrecon.cli.options import UsageError


def explain(error: cyclopts.CycloptsError, tokens: Sequence[str], config: Path | None) -> str:
    """Say in one line: file, key, what is wrong, nearest valid name."""
    cause = error.__cause__
    if isinstance(cause, ValidationError):  # one entry a key
        return "; ".join(_bad_value(dict(entry), config) for entry in cause.errors())
    if isinstance(error, cyclopts.MissingArgumentError) and error.argument is not None:
        return _missing(error, error.argument)
    if isinstance(error, cyclopts.UnusedCliTokensError):
        one, *_ = error.unused_tokens or [""]
        return f"{one!r} is one argument too many; see medrecon {' '.join(error.command_chain or ())} --help"
    text = " ".join(str(error).split())
    if isinstance(error, cyclopts.UnknownOptionError):
        return _unknown(error, text, tokens)
    return text


def refuse_empty(tokens: Sequence[str]) -> None:
    """Complain of an empty argument, of which a path would become the current folder.

    Raises:
        UsageError: names the option.
    """
    for before, token in zip(["", *tokens], tokens, strict=False):
        option, equals, value = token.partition("=")
        if not token or (equals and not value and option.startswith("--")):
            name = option or (before if before.startswith("-") else "an argument")
            raise UsageError(f"{name}: is empty; is a variable of the shell not set?")


def refuse_unknown(app: App, tokens: Sequence[str]) -> None:
    """Complain of a command that there is not even where help is asked for, which cyclopts would give of all.

    Raises:
        UsageError: names the nearest command.
    """
    words = [token for token in tokens[:1] if not token.startswith("-")]
    commands = [name for name in app if not name.startswith("-")]
    if words and words[0] not in commands:
        near = difflib.get_close_matches(words[0], commands, 1, 0.5)
        hint = f'Did you mean "{near[0]}"?' if near else f"There are: {', '.join(sorted(commands))}."
        raise UsageError(f'Unknown command "{words[0]}". {hint}')


def _missing(error: cyclopts.MissingArgumentError, argument: cyclopts.Argument) -> str:
    choices = [str(value) for value in getattr(argument.hint, "__args__", ()) if isinstance(value, str)]
    said = f": {' or '.join(choices)}" if choices else ""
    if error.keyword is not None:
        return f"{error.keyword} needs a value{said}"
    return f"{argument.name} is missing{said}; see medrecon {' '.join(error.command_chain or ())} --help"


def _unknown(error: cyclopts.UnknownOptionError, text: str, tokens: Sequence[str]) -> str:
    """An option that there is not; it may be a setting of the solver that was asked for."""
    wanted = "--" + (error.token.keyword or error.token.value).strip("-[]").replace("][", ".")
    names = sorted({n for a in error.argument_collection or () for n in a.names if n.startswith("--")})
    names += ["--config", "--debug", "--help"]
    text = re.sub(r"\s*Did you mean.*$", "", text)
    if "--settings" in names and (setting := _setting(wanted.removeprefix("--"), tokens)):
        return f"{text} Did you mean --settings.{setting}?"
    near = difflib.get_close_matches(wanted, names, 1, 0.5)
    return text + (f" Did you mean {near[0]}?" if near else f" Known: {', '.join(names)}.")


def _setting(name: str, tokens: Sequence[str]) -> str | None:
    """The nearest setting of the solver on the command line, or of any if it is none."""
    from medrecon.pipeline.choose import settable, solver_classes

    known = solver_classes()
    chosen = [cls for solver, cls in known.items() if solver in tokens] or list(known.values())
    settings = sorted({f.name.replace("_", "-") for cls in chosen for f in settable(cls)})
    near = difflib.get_close_matches(name, settings, 1, 0.8)
    return near[0] if near else None


def _bad_value(entry: dict[str, Any], config: Path | None) -> str:
    key = ".".join(str(part) for part in entry["loc"])
    where = ""
    if config is not None and f"--{key.replace('_', '-')}" not in sys.argv:
        where = f"{config}: "
    said = entry["msg"].replace("Input should be", "should be")
    return f"{where}--{key.replace('_', '-')}: {said}, got {entry['input']!r}"
