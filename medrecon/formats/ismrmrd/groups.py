"""Several measurements in one ISMRMRD file: the group that holds the image, and what is in the others."""

from __future__ import annotations

from typing import Any

from medrecon.acquisition.kspace.choice import contents
from medrecon.acquisition.options import OptionError
from medrecon.formats.ismrmrd.raw import measurement


def groups(h5: Any) -> list[str]:
    """List the groups of an open file that hold a measurement."""
    import h5py

    return [
        str(key) for key in h5 if isinstance(group := h5.get(key), h5py.Group) and "xml" in group and "data" in group
    ]


def choose(h5: Any, wanted: str | None) -> tuple[str, dict[str, str]]:
    """Return the group to read, the only one with an image unless another is `wanted`, and what is in the others.

    Raises:
        OptionError: no such group.
        ValueError: no measurement, or several groups hold an image and none is wanted.
    """
    names = groups(h5)
    if not names:
        raise ValueError(f"no group with xml and data; the file has {', '.join(map(str, h5)) or 'nothing'}")
    if wanted is not None and wanted not in names:
        raise OptionError(f"group {wanted!r}: the file has {', '.join(names)}")
    if len(names) == 1:
        return names[0], {}
    found = {name: describe(h5, name) for name in names}
    images = [name for name, what in found.items() if what.get("image_readouts")]
    listed = "; ".join(f"{name}: {_brief(what)}" for name, what in found.items())
    if wanted is None and len(images) > 1:
        raise ValueError(f"{len(images)} groups hold an image ({listed}); choose one with --group NAME")
    chosen = wanted if wanted is not None else images[0] if images else names[0]
    return chosen, {name: _brief(what) for name, what in found.items() if name != chosen}


def describe(h5: Any, name: str) -> dict[str, Any]:
    """Return what is in a group, for `info`; of a damaged one what is wrong with it."""
    try:
        lines, encoding = measurement(h5, name)
    except ValueError as error:
        return {"error": str(error)}
    return {**contents(lines), **encoding.facts}


def _brief(what: dict[str, Any]) -> str:
    if "error" in what:
        return str(what["error"])
    return f"{what['image_readouts']} readouts of an image, {what['readouts'] - what['image_readouts']} others"
