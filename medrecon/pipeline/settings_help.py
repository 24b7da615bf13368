"""What the settings of a solver are: type, default, published value and meaning, read off its own source."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
import typing
from typing import Any, Literal

from medrecon.pipeline.choose import as_values, settable
from medrecon.solvers.base import Solver


def describe_solver(cls: type[Solver]) -> dict[str, Any]:
    """Return name, summary, source and settings of a solver, each setting with what is known of it; JSON values.

    A published value is that of the solver's `paper`, where it has one: the method as its paper runs it.
    """
    paper, hints = published(cls), typing.get_type_hints(cls)
    documented = meanings(cls)
    return {
        "name": cls.name,
        "modalities": list(cls.modalities),
        "needs_prior": cls.needs_prior,
        "summary": cls.summary,
        "scans": cls.scans,
        "source": next(iter((inspect.getdoc(inspect.getmodule(cls)) or "").splitlines()), ""),
        "settings": [
            {
                "name": f.name.replace("_", "-"),
                "type": type_text(hints[f.name]),
                "default": as_values(f.default),
                **({"published": as_values(paper[f.name])} if paper else {}),
                "meaning": documented.get(f.name, ""),
            }
            for f in settable(cls)
        ],
    }


def published(cls: type[Solver]) -> dict[str, Any]:
    """Return the settings as the paper has them, by name; empty where the solver does not tell."""
    if "paper" not in vars(cls):  # one that is inherited is that of another method
        return {}
    from medrecon.solvers.diffusion.base import example_prior

    make: Any = cls
    solver = make.paper(example_prior())
    return {f.name: getattr(solver, f.name) for f in settable(cls)}


def meanings(cls: type[Any]) -> dict[str, str]:
    """Return what settings mean, by name: the text below a field, or its line in a docstring's Args; a class before
    those that it inherits from."""
    found: dict[str, str] = {}
    for base in cls.__mro__:
        if base.__module__ == "builtins" or base is Solver:
            continue
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except (OSError, TypeError):  # typed in at a prompt
            continue
        if isinstance(tree, ast.ClassDef):
            found = in_args(ast.get_docstring(tree)) | below_fields(tree) | found
    return found


def below_fields(tree: ast.ClassDef) -> dict[str, str]:
    """Return the texts that stand below the fields of a class."""
    found = {}
    for field, after in zip(tree.body, tree.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            found[field.target.id] = " ".join(after.value.value.split())
    return found


def in_args(docstring: str | None) -> dict[str, str]:
    """Return the entries of the section Args or Attributes of a docstring; `a, b: text` is both."""
    found: dict[str, str] = {}
    section = re.search(r"^(?:Args|Attributes):\n((?:[ ].*\n?|\n(?=[ ]))*)", docstring or "", re.MULTILINE)
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(section[1])) if section else ():
        names, colon, text = entry.partition(":")
        if colon:
            found |= {name.strip(): " ".join(text.split()) for name in names.split(",")}
    return found


def type_text(hint: Any) -> str:
    """Write a type for people: choices one after the other, and none where a setting may be left open."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " or ".join(map(str, parts))
    if origin in (typing.Union, types.UnionType):
        return " or ".join("none" if part is type(None) else type_text(part) for part in parts)
    words = {int: "whole number", float: "number", bool: "true or false", str: "name"}
    return words.get(hint, getattr(hint, "__name__", str(hint)))
