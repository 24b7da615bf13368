"""--config: a file with options of a command, or with a whole run: the command and what it is run on as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medrecon.cli.options import UsageError, yaml_content

COMMAND, ARGUMENTS = "command", "arguments"


@dataclass(frozen=True)
class Run:
    """What a file says: the words of the command and its arguments, which may be missing, and options by name."""

    path: Path
    command: tuple[str, ...]
    arguments: tuple[str, ...]
    options: dict[str, Any]

    def tokens(self, given: Sequence[str]) -> tuple[str, ...]:
        """Return the command line: what was given on it, and of the file what was not.

        Raises:
            UsageError: another command was given, or none anywhere.
        """
        asked = tuple(given[: len(self.command)])
        if not given or given[0].startswith("-"):
            if not self.command:
                raise UsageError(
                    f"--config {self.path}: no command, neither in the file (`command: recon`) nor before --config"
                )
            asked, given = (), (*self.command, *given)
        elif self.command and asked != self.command:
            raise UsageError(f"--config {self.path}: is a run of {' '.join(self.command)}, not of {' '.join(asked)}")
        words = len(self.command) or 1
        return (*given[:words], *self.arguments, *given[words:])


def read_run(path: Path) -> Run:
    """Read a YAML or, by its name, TOML file; settings of a group (original: {steps: 12}) as one level of keys.

    Raises:
        UsageError: not such a file, or names the entry that is not as it should be.
    """
    where = f"--config {path}"
    content = _toml(path, where) if path.suffix.lower() == ".toml" else yaml_content(path, where)
    if not isinstance(content, dict):
        raise UsageError(f"{where}: expected lines such as `views: 60`")
    if isinstance(content.get("settings"), dict):
        content["settings"] = one_level(content["settings"])
    command = content.pop(COMMAND, "")
    if not isinstance(command, str):
        raise UsageError(f"{where}: command: expected a name such as recon, got {command!r}")
    arguments = content.pop(ARGUMENTS, [])
    arguments = arguments if isinstance(arguments, list) else [arguments]
    for argument in arguments:
        if not isinstance(argument, str) or not argument or argument.startswith("-"):
            raise UsageError(
                f"{where}: arguments: expected names of files, got {argument!r}; options are keys of their own"
            )
    if arguments and not command:
        raise UsageError(f"{where}: arguments without a command; add a line such as `command: recon`")
    return Run(path, tuple(command.split()), tuple(arguments), content)


def _toml(path: Path, where: str) -> dict[str, Any]:
    from medrecon.core import plain_text

    try:
        content = plain_text.read_toml(path)
        plain_text.check_tree(content, str(path))
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(f"{where}{str(error).removeprefix(str(path))}") from error
    return content


def one_level(settings: dict[Any, Any]) -> dict[str, Any]:
    """Write {group: {name: value}} and {group.name: value} as {group/name: value}."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= {f"{key}/{name}": v for name, v in value.items()} if isinstance(value, dict) else {str(key): value}
    return {key.replace(".", "/"): value for key, value in found.items()}
