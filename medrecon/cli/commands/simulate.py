"""simulate: an undersampled, noisy measurement of a scan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from medrecon.cli.options import CTOptions, MRIOptions, Output, UsageError, Writing, parse_slices
from medrecon.cli.progress import progress
from medrecon.cli.show import check_free, note, show_json, show_tree

if TYPE_CHECKING:
    from torch import Generator

    from medrecon.core.progress import OnProgress
    from medrecon.core.scan import Scan
    from medrecon.core.volume import Volume

app = App(name="simulate")


@app.default
def simulate(
    source: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
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
    from medrecon.core.scan import save_scan
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
