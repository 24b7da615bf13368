"""Solvers by name, and their settings by name, with errors that tell what there is."""

from __future__ import annotations

import dataclasses
import difflib
import math
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from medrecon.core.discover import named
from medrecon.core.scan import Scan
from medrecon.kspace.partial_fourier import coverage
from medrecon.models.prior import Prior
from medrecon.pipeline.request import RequestError
from medrecon.solvers.base import Solver


def solver_classes() -> dict[str, type[Solver]]:
    """Return all solvers by name, learned ones last."""
    found = named("medrecon.solvers", Solver, "modalities", "summary")  # type: ignore[type-abstract]  # a base
    return dict(sorted(found.items(), key=lambda item: (item[1].needs_prior, item[0])))


def describe_solvers() -> list[dict[str, Any]]:
    """Return name, modalities, needs_prior, summary, scans and settings of every solver."""
    return [
        {
            "name": name,
            "modalities": list(cls.modalities),
            "needs_prior": cls.needs_prior,
            "summary": cls.summary,
            "scans": cls.scans,
            "settings": {f.name: _default(f) for f in settable(cls)},
        }
        for name, cls in solver_classes().items()
    ]


def suitable(scan: Scan) -> list[str]:
    """Return the solvers worth running on a scan, learned ones last."""
    wanted = {"any"} if scan.noncartesian else {"any", "cartesian"}
    unlike = scan.volumetric or (scan.modality == "ct" and scan.units != "HU" and scan.mu_water is None)
    if is_partial(scan):
        wanted.add("partial fourier")
    if is_single(scan) and not scan.noncartesian:
        wanted.add("one coil")
    return [
        name
        for name, cls in solver_classes().items()
        if scan.modality in cls.modalities and cls.scans in wanted and not cls.slow and not (unlike and cls.needs_prior)
    ]


def is_partial(scan: Scan) -> bool:
    """Tell whether one end of Cartesian k-space was left out."""
    if scan.modality != "mri" or scan.noncartesian:
        return False
    acquired = scan.sampled if scan.sampled.ndim == 2 else scan.sampled.any(0)
    try:
        return any(coverage(acquired, axis).partial for axis in (-2, -1))
    except ValueError:  # zero frequency is missing
        return False


def is_single(scan: Scan) -> bool:
    """Tell whether one coil alone measured anything."""
    return scan.modality == "mri" and int(scan.live_coils.sum()) == 1


def _default(field: dataclasses.Field[Any]) -> Any:
    return None if field.default is dataclasses.MISSING else as_values(field.default)


def as_values(setting: Any) -> Any:
    """Return a setting as JSON values: a group of settings becomes a dict."""
    group = dataclasses.is_dataclass(setting) and not isinstance(setting, type)
    return dataclasses.asdict(setting) if group else setting


def settable(cls: type[Any]) -> list[dataclasses.Field[Any]]:
    """Return the hyper-parameters of a solver: its fields without the prior."""
    return [f for f in dataclasses.fields(cls) if f.name != "prior"] if dataclasses.is_dataclass(cls) else []


def nearest(name: str, known: Iterable[str]) -> str:
    """Return '; did you mean X?' or the whole list."""
    names = list(known)
    near = difflib.get_close_matches(name, names, 1, 0.5)
    return f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(names) or 'none'}"


def solver_class(
    name: str,
    modality: str,
    settings: Mapping[str, Any] | None = None,
    *,
    volumetric: bool = False,
    noncartesian: bool = False,
    partial: bool = True,
    single: bool = True,
) -> type[Solver]:
    """Return the solver of that name, checked against the modality ("ct" or "mri") and the names and types of settings.

    Args:
        volumetric: the scan is of a volume as a whole, for which there are no priors.
        noncartesian: its samples lie along a trajectory.
        partial: one end of its k-space was left out, as `is_partial` tells.
        single: one coil measured it, as `is_single` tells.

    Raises:
        RequestError: names the nearest solver, the solvers that fit the scan, or the nearest setting.
    """
    known, (name, settings) = solver_classes(), respelled(name, settings or {})
    if name not in known:
        raise RequestError(f"unknown solver {name!r}{nearest(name, known)}")
    check_scan(known[name], modality, volumetric=volumetric, noncartesian=noncartesian, partial=partial, single=single)
    parse_settings(known[name], settings)
    return known[name]


def check_scan(
    cls: type[Solver], modality: str, *, volumetric: bool, noncartesian: bool, partial: bool = True, single: bool = True
) -> None:
    """Complain of a solver that does not do a scan; parameters as of `solver_class`.

    Raises:
        RequestError: why, and the solvers that do.
    """

    def obstacle(cls: type[Solver]) -> str | None:
        if cls.scans == "series":
            return "needs a dynamic series, and a scan has no time axis: call it in Python with operators.series.Series"
        if cls.scans == "one coil" and (modality == "ct" or noncartesian or not single):
            return "needs a known singular value decomposition, which of all scans only Cartesian MRI of one coil has"
        if modality not in cls.modalities:
            return f"does not do {modality}"
        if volumetric and cls.needs_prior:
            return "has a prior of slices and does not do a cone-beam scan, which measures a volume as a whole"
        if noncartesian and cls.scans != "any":
            return "does not do samples along a trajectory, it fills in k-space on a grid"
        if cls.scans == "partial fourier" and not partial:
            return "is for partial Fourier, and both ends of this scan's k-space were measured alike"
        return None

    if reason := obstacle(cls):
        fitting = ", ".join(name for name, other in solver_classes().items() if obstacle(other) is None)
        raise RequestError(f"solver {cls.name!r} {reason}; these do: {fitting}")


MODES = {"fast": "resample", "paper": "resample-paper", "reference": "resample-reference"}
"""ReSample's solvers by what used to be its modes."""


def respelled(name: str, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the solver and the settings meant by the old spelling of ReSample's: `mode`, and `original.x` for the
    settings x of the published forms, which did nothing in the fast one, as its own did nothing in them.

    Raises:
        RequestError: no such mode.
    """
    if name not in MODES.values():
        return name, dict(settings)
    known = solver_classes()
    mode = settings.get("mode")
    if mode is not None and mode not in MODES:
        raise RequestError(f"solver 'resample': unknown mode {mode!r}{nearest(mode, MODES)}")
    name = MODES[mode] if mode else name
    original = {k.removeprefix("original."): v for k, v in settings.items() if k.startswith("original.")}
    for key in original:
        names = {f.name for form in ("paper", "reference") for f in settable(known[MODES[form]])}
        if key not in names:
            raise RequestError(f"solver 'resample' has no setting original.{key}{nearest(key, names)}")
    own = {k: v for k, v in settings.items() if k != "mode" and not k.startswith("original.")}
    if name == MODES["fast"]:
        return name, own
    fast = {f.name for f in settable(known[MODES["fast"]])}
    return name, ({k: v for k, v in own.items() if k not in fast} if mode else own) | original


MOST = {bool: 1, int: 1_000_000, float: 1e15}
"""Of settings: steps that anybody waits for, and numbers whose squares single precision holds."""


def parse_settings(cls: type[Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return values of the declared types; text from the command line is converted.

    A setting of a nested group is written group.name.
    """
    settings = respelled(cls.name, settings)[1]
    hints = typing.get_type_hints(cls)
    groups: dict[str, dict[str, Any]] = {}
    fields = {f.name: f for f in settable(cls)}
    parsed: dict[str, Any] = {}
    for key, value in settings.items():
        head, _, rest = key.partition(".")
        if head not in fields:
            raise RequestError(f"solver {cls.name!r} has no setting {key!r}{nearest(head, fields)}")
        if rest:
            groups.setdefault(head, {})[rest] = value
            continue
        parsed[key] = _value(cls, key, hints[head], value)
    for head, inner in groups.items():
        group = hints[head]
        if not dataclasses.is_dataclass(group):
            raise RequestError(f"solver {cls.name!r}: setting {head} has no parts; give {head} itself")
        default: Any = fields[head].default
        parsed[head] = dataclasses.replace(default, **_group(cls, head, group, inner))
    return parsed


def _group(cls: type[Any], head: str, group: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(group)
    for key in values:
        if key not in hints:
            raise RequestError(f"solver {cls.name!r} has no setting {head}.{key}{nearest(key, hints)}")
    return {k: _value(cls, f"{head}.{k}", hints[k], v) for k, v in values.items()}


def _value(cls: type[Any], key: str, hint: Any, value: Any) -> Any:
    """A setting of its declared type; numbers are finite, and neither beyond single precision nor beyond patience."""
    try:
        parsed = TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"].replace("Input should be", "should be")
        raise RequestError(f"solver {cls.name!r}: setting {key}: {message}, got {value!r}") from error
    for number in parsed if isinstance(parsed, tuple) else (parsed,):
        if isinstance(number, float) and not math.isfinite(number):
            raise RequestError(f"solver {cls.name!r}: setting {key}: should be a finite number, got {value!r}")
        if isinstance(number, int | float) and abs(number) > (most := MOST[type(number)]):
            raise RequestError(f"solver {cls.name!r}: setting {key}: should be at most {most:g}, got {value!r}")
    return parsed


def make_solver(cls: type[Any], prior: Prior | None, settings: Mapping[str, Any]) -> Solver:
    """Make the solver with its settings; learned ones get the prior.

    Raises:
        RequestError: an unknown setting, or a value that it cannot have.
    """
    parsed = parse_settings(cls, settings)
    try:
        solver: Solver = cls(prior=prior, **parsed) if cls.needs_prior else cls(**parsed)
    except ValueError as error:
        raise RequestError(f"solver {cls.name!r}: {error}") from error
    return solver
