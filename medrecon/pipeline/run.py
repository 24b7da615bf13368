"""reconstruct: a scan, a solver by name, a volume and a report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medrecon import __version__
from medrecon.core.scan import Scan
from medrecon.core.volume import Volume
from medrecon.models.prior import Prior
from medrecon.operators.base import LinearOperator
from medrecon.pipeline.choose import as_values, make_solver, settable, solver_class
from medrecon.pipeline.coil_maps import MapMethod
from medrecon.pipeline.problem import Problem, build_problem
from medrecon.solvers.base import Progress, Solution

OnProgress = Callable[[float, int], None]
"""Slices done (fractional: steps within a batch, or a volume, count), slices in all."""


def _silent(done: float, total: int) -> None:
    """Report nothing."""


def reconstruct(
    scan: Scan,
    solver: str,
    *,
    mode: str | None = None,
    slices: tuple[int, int] | None = None,
    device: str = "cpu",
    seed: int = 0,
    batch: int | None = None,
    settings: Mapping[str, Any] | None = None,
    prior: str | None = None,
    label: str | None = None,
    maps: MapMethod = "auto",
    on_progress: OnProgress = _silent,
) -> tuple[Volume, dict[str, Any]]:
    """Reconstruct slices of a scan: HU for CT, magnitude in the scan's own units for MRI.

    Every batch gets a generator with the same seed, and solvers share their draws over a batch, so the result
    does not depend on `batch` or `slices`.

    Args:
        solver: a name from `describe_solvers()`. mode: of solvers that have modes.
        slices: (start, stop), not of a cone beam.
        batch: slices solved at once; 8, and 1 for learned solvers on a CPU, by default.
        settings: hyper-parameters by name; text is converted.
        prior: a shipped prior or a .safetensors file; the modality's own by default.
        label: a class that the prior was trained with, such as "chest"; all of them by default.
        maps: coil sensitivities of MRI: "auto" takes the scan's own, or else ESPIRiT's; the others find them anew.

    Returns:
        The volume at the scan's affine, and a report ready for JSON.

    Raises:
        ValueError: unknown solver or setting (names the nearest), one that does not do this scan, slices outside the
            scan, or of a cone beam; a class that the prior does not know, or one for a solver without a prior.
        FileNotFoundError: a learned solver without weights.
    """
    options = {**(settings or {}), **({"mode": mode} if mode else {})}
    cls = solver_class(solver, scan.modality, options, volumetric=scan.volumetric, noncartesian=scan.noncartesian)
    start, stop = scan.within(slices)
    each = scan.slice_count // len(scan.data)
    if label is not None and not cls.needs_prior:
        raise ValueError(f"label {label!r}: {solver} uses no prior")
    weights = load_weights(prior or scan.modality, device) if cls.needs_prior else None
    weights = weights.conditioned(label) if weights is not None and label is not None else weights
    size = batch or (1 if weights is not None and device == "cpu" else 8)
    problem, began, log = build_problem(scan, device, maps), time.perf_counter(), Log()
    parts = []
    for first in range(start, stop, size):
        index = slice(first, min(first + size, stop))

        def step(p: Progress, first: int = first, index: slice = index) -> None:
            done = first - start + (index.stop - first) * min(1.0, p.step / max(1, p.steps))
            on_progress(done * each, (stop - start) * each)

        parts.append(_solve(problem, cls, weights, options, index, seed, step, log))
        on_progress((index.stop - start) * each, (stop - start) * each)
    image, affine = cropped(scan, torch.cat(parts).flatten(0, -3))
    affine[:3, 3] += start * affine[:3, 2]
    volume = Volume(image, affine, problem.units, problem.modality, sources(scan))
    report = {
        "solver": solver,
        "settings": settings_of(make_solver(cls, weights, options)),
        "slices": [start * each, stop * each],
        "seed": seed,
        "batch": size,
        "device": device,
        "units": problem.units,
        **problem.facts,
        **log.report(stop - start),
        "seconds": time.perf_counter() - began,
        "versions": {"medrecon": __version__, "torch": str(torch.__version__)},
        "inverse_crime": scan.provenance.get("inverse_crime"),
    }
    if weights is not None:
        report["prior"] = {"name": weights.name, "sha256": weights.card.get("sha256"), "label": weights.label}
    return volume, report


def cropped(scan: Scan, image: Tensor) -> tuple[Tensor, Tensor]:
    """The reconstruction (Z, H, W) without its oversampled margins, and the affine of what is left."""
    affine = scan.affine.clone()
    if scan.crop is None:
        return image, affine
    rows, columns = scan.crop
    affine[:3, 3] += columns.start * affine[:3, 0] + rows.start * affine[:3, 1]
    return image[:, rows, columns], affine


def sources(scan: Scan) -> dict[str, Any]:
    """The DICOM files the scan was simulated from, as far as they are still there: what a DICOM writer refers to."""
    origin = scan.provenance.get("source")
    files = origin.get("dicom", []) if isinstance(origin, dict) else []
    present = [name for name in files if Path(name).is_file()]
    return {"dicom": present} if present else {}


def _solve(
    problem: Problem,
    cls: type[Any],
    weights: Prior | None,
    options: Mapping[str, Any],
    index: slice,
    seed: int,
    on_step: Callable[[Progress], None],
    log: Log,
) -> Tensor:
    """One batch: values (B, *image_shape) on the CPU."""
    A, y = problem.operator(index), problem.measurement(index)
    calls = count_calls(A)
    adapted = None if weights is None else problem.prior(weights, index)
    solution = make_solver(cls, adapted, options)(A, y, generator=torch.Generator().manual_seed(seed), on_step=on_step)
    log.add(solution, calls)
    return problem.values(solution.image).cpu()


class Log:
    """What the batches report, gathered per slice."""

    def __init__(self) -> None:
        self.chi2: list[float] = []
        self.histories: list[tuple[int, list[float]]] = []
        self.converged = True
        self.calls: Counter[str] = Counter()
        self.network: Counter[str] = Counter()

    def add(self, solution: Solution, calls: Counter[str]) -> None:
        items = len(solution.image)
        self.chi2 += solution.chi2.tolist()
        self.histories.append((items, solution.residuals))
        self.converged &= solution.converged
        self.calls += calls
        for name, number in solution.diagnostics.get("network_calls", {}).items():
            self.network[name] += number * items

    def report(self, count: int) -> dict[str, Any]:
        """Means over slices; `residuals` is the mean chi^2/m after every step, a finished slice keeping its last."""
        longest = max(len(h) for _, h in self.histories)
        padded = [(n, h + h[-1:] * (longest - len(h))) for n, h in self.histories if h]
        mean = [sum(n * h[i] for n, h in padded) / sum(n for n, _ in padded) for i in range(longest)]
        result: dict[str, Any] = {
            "chi2": sum(self.chi2) / len(self.chi2),
            "chi2_slices": self.chi2,
            "residuals": mean,
            "converged": self.converged,
            "operator_calls_per_slice": {name: number / count for name, number in sorted(self.calls.items())},
        }
        if self.network:
            result["network_calls_per_slice"] = {name: number / count for name, number in sorted(self.network.items())}
        return result


def count_calls(A: LinearOperator, counts: Counter[str] | None = None, share: float = 1) -> Counter[str]:
    """Count, from now on, the images A projects and back-projects; a Gram product counts as both, a subset of the
    views as its share of them."""
    counts = Counter() if counts is None else counts

    def counted(apply: Callable[[Tensor], Tensor], names: tuple[str, ...]) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            for name in names:
                counts[name] += len(x) * share  # type: ignore[assignment]
            return apply(x)

        return run

    def subset(views: Sequence[int]) -> LinearOperator:
        part: LinearOperator = type(A).subset(A, views)  # type: ignore[attr-defined]
        count_calls(part, counts, share * len(views) / A.out_shape[0])
        return part

    if hasattr(A, "subset"):
        A.subset = subset

    ways: dict[str, tuple[str, ...]] = {"_forward": ("forward",), "_adjoint": ("adjoint",)}
    if type(A)._gram is not LinearOperator._gram:  # the default one goes through both, which count already
        ways["_gram"] = ("forward", "adjoint")
    for method, names in ways.items():
        setattr(A, method, counted(getattr(type(A), method).__get__(A), names))
    return counts


def load_weights(name: str, device: str) -> Prior:
    """The prior of a modality, or one by path."""
    from medrecon.models.store import load_prior

    return load_prior(name, device)


def settings_of(solver: Any) -> dict[str, Any]:
    """The hyper-parameters a solver ran with."""
    return {f.name: as_values(getattr(solver, f.name)) for f in settable(type(solver))}
