"""Plug-ins are modules: files in a package of medrecon, or anywhere else if an installed distribution names them.

A distribution names a module by an entry point. Its group is "medrecon." and the last part of the package that the
module belongs to, such as medrecon.solvers, or medrecon.samplers for medrecon.diffusion.samplers.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import warnings
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")


class PluginWarning(UserWarning):
    """Something installed beside medrecon is left out, and why."""


def modules(package: str) -> list[ModuleType]:
    """Import all modules of a package and of the packages in it, sorted by name, and then those from outside."""
    root = importlib.import_module(package)
    found = (m for m in pkgutil.walk_packages(root.__path__, package + ".") if not m.ispkg)
    own = [importlib.import_module(name) for name in sorted(m.name for m in found)]
    return [*own, *outside(package)]


def outside(package: str) -> list[ModuleType]:
    """Import the modules that installed distributions add to a package, sorted by name; warn of the broken ones."""
    found: dict[str, ModuleType] = {}
    for entry in sorted(entry_points(group=f"medrecon.{package.rpartition('.')[2]}")):
        try:
            found[entry.module] = importlib.import_module(entry.module)
        except Exception as error:  # whatever somebody else's module does when it is imported
            source = entry.dist.name if entry.dist is not None else "?"
            left_out(f"{entry.group}: {entry.name} of {source}", f"{type(error).__name__}: {error}")
    return list(found.values())


def left_out(plugin: str, why: str) -> None:
    """Warn that a plug-in is not used."""
    warnings.warn(f"plug-in {plugin} is left out: {why}", PluginWarning, stacklevel=3)


def classes(package: str, base: type[T]) -> list[type[T]]:
    """Find the concrete subclasses of `base` defined in the modules of a package, sorted by name, outside ones last."""
    found = [
        c
        for module in modules(package)
        for c in vars(module).values()
        if inspect.isclass(c) and c.__module__ == module.__name__ and issubclass(c, base) and not inspect.isabstract(c)
    ]
    return sorted(set(found), key=lambda c: (not c.__module__.startswith(package + "."), c.__name__))


def named(package: str, base: type[T], *attributes: str) -> dict[str, type[T]]:
    """Find the classes by their `name`; one without it or the other attributes, or with a taken name, is left out."""
    found: dict[str, type[T]] = {}
    for cls in classes(package, base):
        described: Any = cls
        if missing := [name for name in ("name", *attributes) if name not in dir(cls)]:
            left_out(f"{cls.__module__}.{cls.__qualname__}", f"it has no {', '.join(missing)}")
        elif described.name in found:
            left_out(f"{cls.__module__}.{cls.__qualname__}", f"there is a {base.__name__} {described.name!r} already")
        else:
            found[described.name] = cls
    return found
