"""Plug-ins are modules in a package: a new operator, solver or sampler is found by itself."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


def modules(package: str) -> list[ModuleType]:
    """All modules of a package and of its sub-packages, sorted by name."""
    root = importlib.import_module(package)
    names = sorted(found.name for found in pkgutil.walk_packages(root.__path__, package + "."))
    return [importlib.import_module(name) for name in names]


def classes(package: str, base: type[T]) -> list[type[T]]:
    """Concrete subclasses of `base` defined in the modules of a package, sorted by name."""
    found = [
        c for module in modules(package) for c in vars(module).values()
        if inspect.isclass(c) and c.__module__ == module.__name__ and issubclass(c, base) and not inspect.isabstract(c)
    ]  # fmt: skip
    return sorted(set(found), key=lambda c: c.__name__)
