"""The demonstration: three real scans from pydicom's wheel, every solver, no network."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from medrecon import formats
from medrecon.core import atomic
from medrecon.core.progress import OnProgress, silent
from medrecon.core.scan import Scan
from medrecon.core.units import hu_to_mu, mu_to_hu
from medrecon.core.volume import Volume
from medrecon.pipeline import reconstruct, solver_classes
from medrecon.quality.evaluate import evaluate
from medrecon.quality.picture import comparison, display_window
from medrecon.simulate import simulate_ct, simulate_mri
from medrecon.simulate.ct import reconstruction_grid, resize

SUFFIXES = (".json", ".png", ".gz", ".dcm")


@dataclass(frozen=True)
class Case:
    """A real scan and how it is undersampled."""

    name: str
    file: str
    modality: Literal["ct", "mri"]
    title: str
    size: int | None = None

    def path(self) -> Path:
        """The scan's file, of pydicom's own test data (never downloaded)."""
        from pydicom.data import get_testdata_file

        path = get_testdata_file(self.file, download=False)
        if path is None:
            raise FileNotFoundError(f"{self.file} is not in this installation of pydicom; reinstall pydicom")
        return Path(str(path))

    def load(self) -> Volume:
        """The scan."""
        return formats.read(self.path())

    def simulate(self, volume: Volume, generator: torch.Generator) -> Scan:
        """60 low-dose fan views, or 4-fold undersampled 8-coil k-space."""
        if self.modality == "ct":
            return simulate_ct(volume, geometry="fan", views=60, i0=5e4, size=self.size, generator=generator)
        return simulate_mri(volume, accel=4.0, mask="random", acs=24, coils=8, snr_db=30.0, generator=generator)

    def reference(self, volume: Volume) -> Volume:
        """What the reconstruction is compared with: the scan, averaged to the reconstruction's pixels."""
        if self.modality == "mri":
            return volume
        grid, affine = reconstruction_grid(volume, self.size)
        data = mu_to_hu(resize(hu_to_mu(volume.data.float()), grid.shape))
        return Volume(data, affine, volume.units, volume.modality, volume.source)


CASES = (
    Case("ct_head", "J2K_pixelrep_mismatch.dcm", "ct", "Head CT, 60 low-dose fan views, 256 x 256", 256),
    Case("ct_small", "CT_small.dcm", "ct", "CT, 60 low-dose fan views, 128 x 128"),
    Case("mr_abdomen", "examples_overlay.dcm", "mri", "Abdominal MR, 8 coils, 4-fold undersampled"),
)


def _shifted(on_progress: OnProgress, base: int, total: int, done: float) -> None:
    on_progress(base + done, total)


def run_demo(
    folder: Path,
    *,
    device: str = "cpu",
    seed: int = 0,
    cases: Collection[str] | None = None,
    solvers: Collection[str] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    on_progress: OnProgress = silent,
) -> list[dict[str, Any]]:
    """Simulate, reconstruct and compare; `folder` appears whole, an earlier demo there is replaced.

    Args:
        cases, solvers: names of those to run; all applicable ones by default, learned ones only with weights.
        settings: hyper-parameters by solver name.

    Returns:
        The rows of results.json: case, solver, psnr_db, ssim, rmse, chi2, seconds, and more.

    Raises:
        FileExistsError: `folder` holds something that is not a demo's output.
    """
    plan = [
        (case, names)
        for case in CASES
        if cases is None or case.name in cases
        if (names := applicable(case.modality, solvers))
    ]
    total = sum(len(names) for _, names in plan)
    rows: list[dict[str, Any]] = []
    with atomic.outputs((folder.absolute(),), lambda: refuse_foreign(folder)) as (made,):
        made.mkdir()
        for case, names in plan:
            report = partial(_shifted, on_progress, len(rows), total)
            rows += run_case(case, names, made, device, seed, settings or {}, report)
        (made / "results.json").write_text(json.dumps(rows, indent=2) + "\n")
    return rows


def applicable(modality: str, chosen: Collection[str] | None) -> list[str]:
    """Solvers of a modality; learned ones only if the package has weights for it."""
    from medrecon.models.store import shipped

    return [
        name
        for name, cls in solver_classes().items()
        if modality in cls.modalities
        and cls.scans in ("any", "cartesian")
        and (modality in shipped() or not cls.needs_prior)
        and (name in chosen if chosen is not None else not cls.slow)
    ]


def run_case(
    case: Case,
    solvers: list[str],
    folder: Path,
    device: str,
    seed: int,
    settings: Mapping[str, Mapping[str, Any]],
    on_done: Callable[[float], None],
) -> list[dict[str, Any]]:
    """One scan, all solvers: volumes and a picture in `folder`, and the rows."""
    original = case.load()
    scan = case.simulate(original, torch.Generator().manual_seed(seed))
    reference = case.reference(original)
    formats.write(reference, folder / case.name / "reference.nii.gz")
    rows: list[dict[str, Any]] = []
    images, captions = {}, {}

    def progress(part: float, whole: int) -> None:
        on_done(len(rows) + part / whole)

    for name in solvers:
        volume, report = reconstruct(
            scan, name, device=device, seed=seed, settings=settings.get(name), on_progress=progress
        )
        scores = evaluate(volume, reference)
        description = f"{case.title}; medrecon {name}"
        formats.write(volume, folder / case.name / f"{name}.nii.gz", description=description)
        series = folder / case.name / f"{name}_dicom"
        formats.write(volume, series, template=case.path(), description=description)
        rows.append(_row(case, name, scores, report))
        images[name] = volume.data[0]
        captions[name] = f"{rows[-1]['psnr_db']:.1f} dB, SSIM {rows[-1]['ssim']:.3f}"
        on_done(len(rows))
    window, error = display_window(reference)
    comparison(
        reference.data[0].float(),
        images,
        folder / f"{case.name}.png",
        title=case.title,
        units=reference.units,
        window=window,
        error=error,
        captions=captions,
    )
    return rows


def _row(case: Case, solver: str, scores: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
    row = {
        "case": case.name,
        "solver": solver,
        **{key: scores[key] for key in ("psnr_db", "ssim", "rmse", "nmse")},
        "units": scores["units"],
        "data_range": scores["data_range"],
        "chi2": report["chi2"],
        "seconds": round(report["seconds"], 3),
        "operator_calls": report["operator_calls_per_slice"],
        "network_calls": report.get("network_calls_per_slice", {}),
        "settings": report["settings"],
    }
    if "windows" in scores:
        row["soft"] = {key: scores["windows"]["soft"][key] for key in ("psnr_db", "ssim", "rmse")}
    return row


def refuse_foreign(folder: Path) -> None:
    """Raise FileExistsError unless `folder` is absent, empty, or holds an earlier demo's output and nothing else."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; give a folder for the demo")
    files = [p for p in folder.rglob("*") if not p.is_dir()]
    foreign = [p for p in files if p.suffix not in SUFFIXES]
    if files and (foreign or not (folder / "results.json").is_file()):
        first = (foreign or files)[0].relative_to(folder)
        raise FileExistsError(f"{folder} holds {str(first)!r}, which is no demo's output; give another folder")
