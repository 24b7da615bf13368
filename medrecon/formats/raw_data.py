"""Read what scanners and public data sets deliver before reconstruction: raw data into a `Scan`.

A format is one module in this package: SUMMARY, one line; USES, the fields of `RawOptions` it has a use for;
`reads(path) -> bool`, by content and cheap; `read(path, options) -> Scan`, with errors that name the file and the key.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from types import ModuleType

from medrecon.acquisition.options import OptionError, RawOptions
from medrecon.core.discover import modules
from medrecon.core.scan import Scan

__all__ = ["OptionError", "RawOptions", "formats", "read_raw", "recognise"]

DEFAULT = RawOptions()


def read_raw(path: str | Path, options: RawOptions = DEFAULT) -> Scan:
    """Read a raw data file or folder; the format is recognised by its content unless `options` names it.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: an unknown format (lists the known ones), an option the format does not use, or what is wrong
            with which file and key.
    """
    _, module = recognise(path, options)
    scan: Scan = module.read(Path(path), options)
    return scan


def recognise(path: str | Path, options: RawOptions = DEFAULT) -> tuple[str, ModuleType]:
    """The name and the module of a file's format, which has a use for all the options given.

    Raises:
        FileNotFoundError, ValueError: as `read_raw`, but for errors within the file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    name, module = _format(path, options.format)
    if unused := sorted(set(options.given()) - set(module.USES)):
        raise OptionError(f"{', '.join(unused)}: not for {name}, which uses {', '.join(module.USES)}")
    return name, module


def formats() -> dict[str, ModuleType]:
    """The formats by name."""
    found = [m for m in modules("medrecon.formats") if hasattr(m, "USES") and hasattr(m, "reads")]
    return {m.__name__.removesuffix(".raw").rpartition(".")[2]: m for m in found}


def _format(path: Path, wanted: str | None) -> tuple[str, ModuleType]:
    known = formats()
    if wanted is not None:
        if wanted not in known:
            near = difflib.get_close_matches(wanted, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise OptionError(f"unknown raw format {wanted!r}; {hint}")
        return wanted, known[wanted]
    for name, module in known.items():
        if module.reads(path):
            return name, module
    listed = "; ".join(f"{name}: {module.SUMMARY}" for name, module in known.items())
    raise ValueError(f"{path}: not raw data medrecon reads ({listed})")
