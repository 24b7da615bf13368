"""simulate, recon, evaluate: from a scan to measurements to an image to figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from medrecon.cli.options import CTOptions, Maps, MRIOptions, Output, UsageError, Writing, parse_slices, solver_settings
from medrecon.cli.progress import progress
from medrecon.cli.show import check_free, note, show_json, show_tree

if TYPE_CHECKING:
    from torch import Generator

    from medrecon.core.scan import Scan
    from medrecon.core.volume import Volume
    from medrecon.simulate.source import OnProgress

Out = Annotated[Path, Parameter(name=["--output", "-o"])]


def simulate(
    source: Path,
    /,
    *,
    output: Out,
    modality: Literal["ct", "mri"],
    slices: str | None = None,
    series: str | None = None,
    seed: int = 0,
    matched: Annotated[bool, Parameter(negative="")] = False,
    ct: Annotated[CTOptions, Parameter(name="*")] = CTOptions(),
    mri: Annotated[MRIOptions, Parameter(name="*")] = MRIOptions(),
    writing: Writing = Writing(),
    out: Output = Output(),
) -> int:
    """Simulate an undersampled, noisy measurement of a scan.

    Parameters
    ----------
    source
        DICOM folder or file, or NIfTI file
    output
        measurement file (.h5) to write
    modality
        what to simulate; the source must be of that kind (ct: values in HU)
    slices
        A:B, slices A to B-1 only
    series
        which series of a folder with several; `medrecon info` lists them
    seed
        seed of the noise, the mask and the coils
    matched
        simulate with the very model that will reconstruct: an inverse crime, recorded in the file
    """
    _no_foreign_options(modality, ct, mri)
    _check_trajectory(mri, matched)
    if output.suffix != ".h5":
        raise UsageError(f"-o {output}: a measurement file ends in .h5")
    check_free(output, writing.overwrite)

    import torch

    from medrecon import formats
    from medrecon.formats.measurement_file import save_scan
    from medrecon.simulate import simulate_ct

    volume = formats.read(source, series=series, modality="CT" if modality == "ct" else "MR")
    volume = volume.slices(*parse_slices(slices, volume.data.shape[0]))
    chosen = ct if modality == "ct" else mri
    plan = {
        "source": str(source),
        "output": str(output),
        "modality": modality,
        "grid": list(volume.data.shape),
        "spacing_mm": list(volume.spacing),
        **chosen.model_dump(),
        "seed": seed,
        "matched": matched,
    }
    if writing.dry_run:
        (show_json if out.json else show_tree)({**plan, "dry_run": True})
        return 0
    generator = torch.Generator().manual_seed(seed)
    with progress(f"simulate {source.name}", out.quiet) as report:
        if modality == "ct":
            scan = simulate_ct(
                volume,
                geometry=ct.geometry,
                views=ct.views,
                arc=None if ct.arc is None else ct.arc * torch.pi / 180,
                i0=ct.i0,
                sigma_e=ct.sigma_e,
                tube_current=ct.tube_current,
                size=ct.size,
                couch=ct.couch,
                matched=matched,
                generator=generator,
                on_progress=report,
            )
        else:
            scan = _mri_scan(volume, mri, matched, generator, report)
    save_scan(scan, output, overwrite=writing.overwrite)
    note(f"wrote {output}")
    if out.json:
        show_json({**plan, "provenance": scan.provenance})
    return 0


def _mri_scan(volume: Volume, mri: MRIOptions, matched: bool, generator: Generator, report: OnProgress) -> Scan:
    """k-space on a grid or along a trajectory."""
    from medrecon.simulate import simulate_mri, simulate_noncartesian

    if mri.trajectory == "cartesian":
        return simulate_mri(
            volume,
            accel=mri.accel,
            mask=mri.mask,
            acs=mri.acs,
            partial_fourier=mri.partial_fourier,
            coils=mri.coils,
            snr_db=mri.snr,
            phase_encoding=mri.phase_encoding,
            matched=matched,
            generator=generator,
            on_progress=report,
        )
    readouts = mri.readouts or (16 if mri.trajectory == "spiral" else 64)
    return simulate_noncartesian(
        volume,
        pattern=mri.trajectory,
        readouts=readouts,
        coils=mri.coils,
        snr_db=mri.snr,
        generator=generator,
        on_progress=report,
    )


GRID_ONLY = {"accel", "mask", "acs", "partial_fourier", "phase_encoding"}


def _check_trajectory(mri: MRIOptions, matched: bool) -> None:
    """Options of lines on a grid mean nothing along a trajectory, and the other way round."""
    along = mri.trajectory != "cartesian"
    foreign = mri.model_fields_set & (GRID_ONLY if along else {"readouts"})
    given = sorted(f"--{field.replace('_', '-')}" for field in foreign) + ["--matched"] * (along and matched)
    if given:
        raise UsageError(f"{', '.join(given)}: not for --trajectory {mri.trajectory}")


def _no_foreign_options(modality: str, ct: CTOptions, mri: MRIOptions) -> None:
    other, name = (mri, "mri") if modality == "ct" else (ct, "ct")
    given = sorted(f"--{field.replace('_', '-')}" for field in other.model_fields_set)
    if given:
        raise UsageError(f"{', '.join(given)}: only for --modality {name}")


def recon(
    measurement: Path,
    /,
    *,
    output: Annotated[str, Parameter(name=["--output", "-o"])],
    solver: str,
    mode: Literal["fast", "paper", "reference"] | None = None,
    slices: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    batch: int | None = None,
    settings: dict[str, str] | None = None,
    prior: str | None = None,
    label: str | None = None,
    maps: Maps = "auto",
    writing: Writing = Writing(),
    out: Output = Output(),
) -> int:
    """Reconstruct a measurement file to NIfTI or DICOM, with a JSON report beside it.

    Parameters
    ----------
    measurement
        measurement file (.h5)
    output
        NIfTI file (.nii, .nii.gz), a folder for a DICOM series, or an array for BART (.cfl)
    solver
        one of `medrecon solvers`
    mode
        for the solvers that have modes, such as resample
    slices
        A:B, slices A to B-1 only; not of a cone-beam scan
    device
        cpu, cuda or cuda:N
    seed
        seed of stochastic solvers
    batch
        slices solved at once; the result does not depend on it
    settings
        hyper-parameters of the solver, such as --settings.iterations 50 or --settings.original.steps 100
    prior
        a shipped prior's name or a .safetensors file, instead of the modality's own
    label
        what is measured: a class that the prior was trained with, such as chest
    maps
        coil sensitivities of MRI: auto takes the measurement's own, or else ESPIRiT's; nlinv and jsense need no fully
        sampled centre
    """
    check_free(Path(output), writing.overwrite)

    from medrecon.formats.measurement_file import load_scan
    from medrecon.pipeline import reconstruct, solver_class

    scan = load_scan(measurement)
    if scan.modality == "ct" and maps != "auto":
        raise UsageError(f"--maps {maps}: CT has no coils")
    start, stop = parse_slices(slices, scan.slice_count)
    some = (start, stop) if slices else None
    options = solver_settings(settings)
    options |= {"mode": mode} if mode else {}
    try:
        scan.within(some)
        chosen = solver_class(
            solver, scan.modality, options, volumetric=scan.volumetric, noncartesian=scan.noncartesian
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    plan = {
        "measurement": str(measurement),
        "output": output,
        "solver": solver,
        "class": chosen.__name__,
        "settings": options,
        "slices": [start, stop],
        "device": device,
        "seed": seed,
        "maps": maps,
    }
    if writing.dry_run:
        (show_json if out.json else show_tree)({**plan, "dry_run": True})
        return 0
    with progress(f"recon {solver}", out.quiet) as report:
        volume, result = reconstruct(
            scan,
            solver,
            slices=some,
            device=device,
            seed=seed,
            batch=batch,
            settings=options,
            prior=prior,
            label=label,
            maps=maps,
            on_progress=report,
        )
    save(volume, {**plan, **result}, output, writing.overwrite)
    note(f"wrote {output}: chi^2/m {result['chi2']:.3g}, {result['seconds']:.1f} s")
    if out.json:
        show_json({**plan, **result})
    return 0


def save(volume: Volume, report: dict[str, Any], output: str, overwrite: bool) -> None:
    """The image, and the report as `output`.report.json beside it (a DICOM folder holds DICOM only)."""
    import json

    from medrecon import formats
    from medrecon.cli.show import plain
    from medrecon.core import atomic

    settings = ", ".join(f"{k}={v}" for k, v in report["settings"].items())
    formats.write(volume, output, overwrite=overwrite, description=f"medrecon {report['solver']}({settings})")
    target = Path(output)
    name = target.name.removesuffix(".gz").removesuffix(".nii")
    with atomic.file(target.parent / f"{name}.report.json", overwrite=True) as path:
        path.write_text(json.dumps(plain(report), indent=2) + "\n")


def evaluate(recon: Path, reference: Path, /, *, series: str | None = None, out: Output = Output()) -> int:
    """Compare a reconstruction with its reference, on the reference's grid; nothing is rescaled to fit.

    Parameters
    ----------
    recon
        NIfTI file or DICOM folder
    reference
        NIfTI file, DICOM folder, or fastMRI file with its target
    series
        which series of a reference folder with several, `medrecon info` lists them; of a fastMRI file rss or esc
    """
    from medrecon import formats
    from medrecon.quality.evaluate import evaluate as compare

    result = compare(formats.read(recon), formats.read(reference, series=series))
    (show_json if out.json else show_tree)(result)
    return 0
