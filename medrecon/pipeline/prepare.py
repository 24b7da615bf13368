"""All that is asked for, checked before anything is computed."""

from __future__ import annotations

import logging
from typing import Any, TypedDict

from medrecon.core.device import check_device
from medrecon.core.scan import Scan
from medrecon.models.prior import Prior
from medrecon.pipeline.choose import check_scan, is_partial, is_single, make_solver, solver_class
from medrecon.pipeline.request import Request, RequestError
from medrecon.solvers.base import Solver

log = logging.getLogger(__name__)


class Kind(TypedDict):
    """What of a scan decides which solvers do it; see `solver_class`."""

    volumetric: bool
    noncartesian: bool
    partial: bool
    single: bool


def prepare(scan: Scan, solver: str | Solver, request: Request) -> tuple[Solver, tuple[int, int]]:
    """Check all that is asked for, and load the prior; compute nothing.

    Returns:
        The solver, and the items (start, stop) of the scan it is for.

    Raises:
        RequestError: what does not go together, or a device that is not there.
        FileNotFoundError: a learned solver without weights.
    """
    if not isinstance(scan, Scan):
        raise TypeError(f"expected a Scan, got {type(scan).__name__}")
    if not isinstance(solver, str | Solver):
        raise TypeError(f"solver: expected a name such as 'tv' or an object such as TV(), got {solver!r}")
    if not len(scan.data):
        raise RequestError("data: the scan has no slices")
    try:
        check_device(request.device)
        items = scan.within(request.slices)
    except ValueError as error:
        raise RequestError(str(error)) from error
    if scan.modality == "ct" and request.maps != "auto":
        raise RequestError(f"maps {request.maps!r}: CT has no coils")
    if isinstance(solver, str):
        chosen = _named(scan, solver, request)
    else:
        request.refuse(
            ("mode", "settings", "prior", "label"), "for a solver by name; a solver object has its own, as fields"
        )
        check_scan(type(solver), scan.modality, **_kind(scan))
        chosen = solver
    if chosen.couples and request.batch is not None:
        raise RequestError(
            f"batch: {chosen.name} couples neighbouring slices and solves all those asked for at once; leave it out, "
            "and where memory is short take fewer slices"
        )
    if chosen.needs_prior:
        learned: Any = chosen  # only learned ones have this field
        check_prior(learned.prior, scan)
    return chosen, items


def _kind(scan: Scan) -> Kind:
    return {
        "volumetric": scan.volumetric,
        "noncartesian": scan.noncartesian,
        "partial": is_partial(scan),
        "single": is_single(scan),
    }


def _named(scan: Scan, name: str, request: Request) -> Solver:
    """The solver of that name with its settings and its prior."""
    cls = solver_class(name, scan.modality, request.options, **_kind(scan))
    if not cls.needs_prior:
        request.refuse(("prior", "label"), f"{name} uses no prior; leave it out, or take a learned solver")
        return make_solver(cls, None, request.options)
    from medrecon.models.store import load_prior

    prior = load_prior(request.prior or scan.modality, request.device)
    if request.label is not None:
        try:
            prior = prior.conditioned(request.label)
        except ValueError as error:
            raise RequestError(f"label {request.label!r}: {error}") from error
    return make_solver(cls, prior, request.options)


def check_prior(prior: Prior, scan: Scan) -> None:
    """Complain of a prior of other images than the scan's; say so where they are of a very different size.

    Raises:
        RequestError: of the other modality, in other units, or of complex images where they are real.
    """
    ours = {"ct": "CT", "mri": "MR"}[scan.modality]
    if prior.modality != ours:
        raise RequestError(
            f"prior {prior.name!r} knows {prior.modality} images in {prior.units}, and the scan is {ours}; give one of "
            f"{ours}, such as {scan.modality!r}"
        )
    if ours == "CT" and (prior.complex or prior.units != "HU"):
        kind = "complex images" if prior.complex else f"images in {prior.units}"
        raise RequestError(f"prior {prior.name!r} knows {kind}, and those of CT are real and in HU")
    if ours == "CT" and scan.units != "HU" and scan.mu_water is None:
        raise RequestError(
            f"prior {prior.name!r} knows HU, and the scan is in {scan.units} without the attenuation of water "
            "(noise/mu_water) that would make HU of it; take a solver without a prior, such as tv"
        )
    side, trained = max(scan.image_shape), trained_side(prior)
    if trained and not trained / 2 <= side <= 2 * trained:
        log.warning(
            "prior %r was trained on images of about %d pixels a side, and these have %d: expect less of it",
            prior.name,
            trained,
            side,
        )


def trained_side(prior: Prior) -> int | None:
    """Return how many pixels a side the images had that a prior was trained on, as far as its card says."""
    experts = prior.card.get("diffusion", {}).get("experts", {})
    crops = [expert["crop"] for expert in experts.values() if "crop" in expert]
    return max(crops) * prior.autoencoder.factor if crops else None
