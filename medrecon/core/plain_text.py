"""Text files that people write or send: TOML, JSON, tables. What is no such file, or would never end, is refused."""

from __future__ import annotations

import csv
import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

MOST_BYTES = 1 << 26
"""Of a text file; the longest real ones are indices of data sets, with some hundred bytes a slice."""
MOST_YAML = 1 << 16
"""Characters of a configuration."""
MOST_PARTS = 64
"""Of a dotted TOML key: the time that the standard library takes grows with their square."""
MOST_NODES = 100_000
"""Of a configuration; aliases of YAML multiply."""
DEPTH = 50
STRINGS = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'")


def read_text(path: Path, kind: str = "text") -> str:
    """Read a file of UTF-8; `kind` is what errors say is due.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no regular file, too long for text, or not UTF-8.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise ValueError(f"{path}: is no file, but a folder, a pipe or a device")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"{path}: {size} bytes; a file of text has at most {MOST_BYTES}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is a binary file, and {kind} is due") from error
    if "\0" in text:
        raise ValueError(f"{path}: is a binary file, and {kind} is due")
    return text


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        FileNotFoundError, ValueError: as `read_text`, or not TOML.
    """
    text = read_text(path, "TOML")
    bare = re.sub(r"#[^\n]*", "", STRINGS.sub("s", text))
    if any(part.count(".") > MOST_PARTS for part in re.split(r"[=\n,{]", bare)):
        raise ValueError(f"{path}: not a TOML file of medrecon's: a key of more than {MOST_PARTS} parts")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a TOML file: {error}") from error


def read_yaml(path: Path) -> Any:
    """Read a YAML file of a configuration; None where it is empty.

    Raises:
        FileNotFoundError, ValueError: as `read_text`, not YAML, or as `check_tree`.
    """
    import yaml

    text = read_text(path, "YAML")
    if len(text) > MOST_YAML:
        raise ValueError(f"{path}: {len(text)} characters; a configuration has at most {MOST_YAML}")
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    check_tree(content, str(path))
    return content


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; NaN and infinity are no JSON.

    Raises:
        FileNotFoundError, ValueError: as `read_text`, not JSON, or no object.
    """
    try:
        content = json.loads(read_text(path, "JSON"), parse_constant=_no_number)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error})") from error
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def read_table(path: Path, columns: Sequence[str], numbers: Sequence[str] = ()) -> list[dict[str, str]]:
    """Read a table of tab-separated columns with a head line; more columns than these may be there.

    Args:
        numbers: of the columns, those with numbers from 0 on.

    Raises:
        FileNotFoundError, ValueError: as `read_text`, a column missing, a short row, or no number where one is due.
    """
    try:
        rows = list(csv.DictReader(read_text(path).splitlines(), delimiter="\t"))
    except csv.Error as error:
        raise ValueError(f"{path}: not a table of tab-separated columns ({error})") from error
    for number, row in enumerate(rows, 2):
        for column in columns:
            if row.get(column) is None:
                known = ", ".join(map(str, row))
                raise ValueError(f"{path}: line {number}: no {column!r}; a line has {', '.join(columns)}, got {known}")
            if column in numbers and not (row[column].isdecimal() and len(row[column]) < 10):
                raise ValueError(f"{path}: line {number}: {column} is {row[column]!r}, not a number from 0 on")
    return rows


def check_tree(content: Any, where: str) -> None:
    """Check that what a YAML file holds has text as keys, and is no larger than a configuration.

    Raises:
        ValueError: another key, such as a number or an unquoted on or off; too deep, or too much of it.
    """
    sizes: dict[int, int] = {}

    def size(node: Any, depth: int) -> int:
        if depth > DEPTH:
            raise ValueError(f"{where}: more than {DEPTH} levels; is it a configuration?")
        if not isinstance(node, dict | list):
            return 1
        if id(node) not in sizes:
            for key in node if isinstance(node, dict) else ():
                if not isinstance(key, str):
                    raise ValueError(f"{where}: the key {key!r} is not text; put it in quotes if it should be")
            members = node.values() if isinstance(node, dict) else node
            sizes[id(node)] = 1 + sum(size(member, depth + 1) for member in members)
        return sizes[id(node)]

    if size(content, 0) > MOST_NODES:
        raise ValueError(f"{where}: more than {MOST_NODES} values; do its aliases repeat each other?")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"holds {name}, which is no JSON and no number")
