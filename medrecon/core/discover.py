"""Plug-ins are modules in a package: a new operator, solver or sampler is found by itself."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


def modules(package: str) -> list[ModuleType]:
    """Import all modules of a package and of the packages in it, sorted by name."""
    root = importlib.import_module(package)
    found = (m for m in pkgutil.walk_packages(root.__path__, package + ".") if not m.ispkg)
    return [importlib.import_module(name) for name in sorted(m.name for m in found)]


def classes(package: str, base: type[T]) -> list[type[T]]:
    """Find the concrete subclasses of `base` defined in the modules of a package, sorted by name."""
    found = [
        c
        for module in modules(package)
        for c in vars(module).values()
        if inspect.isclass(c) and c.__module__ == module.__name__ and issubclass(c, base) and not inspect.isabstract(c)
    ]
    return sorted(set(found), key=lambda c: c.__name__)
