"""simulate: an undersampled, noisy measurement of a scan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter
from pydantic import Field

from medrecon.cli.options import (
    MOST_PIXELS,
    CTOptions,
    Model,
    MRIOptions,
    Output,
    Seed,
    UsageError,
    Writing,
    parse_slices,
)
from medrecon.cli.progress import progress
from medrecon.cli.running import Resuming, drop_leftover, kept
from medrecon.cli.show import check_free, note, show_json, show_tree

if TYPE_CHECKING:
    from medrecon.core.keeping import Keep
    from medrecon.core.progress import OnProgress
    from medrecon.core.scan import Scan
    from medrecon.core.volume import Volume

app = App(name="simulate")


class Source(Model):
    """Which images."""

    slices: str | None = None
    """A:B, slices A to B-1 only; of a DICOM series the others may be damaged"""
    series: str | None = None
    """which series of a folder with several; `medrecon info` lists them"""
    units: Literal["HU", "1/mm", "1/cm"] | None = None
    """CT: of the values of a NIfTI file; HU unless given"""
    size: int | None = Field(None, ge=8, le=MOST_PIXELS)
    """rows of the reconstructed image over the same field of view; the source's own unless given; of MRI k-space then
    ends there"""
    seed: Seed = 0
    """seed of the noise, the mask and the coils"""
    matched: Annotated[bool, Parameter(negative="")] = False
    """simulate with the very model that will reconstruct: an inverse crime, recorded in the file"""


@Parameter(name="*")
@dataclass(frozen=True)
class Choices:
    """What to simulate."""

    modality: Literal["ct", "mri"]
    """what to simulate; the source must be of that kind (ct: values in HU)"""
    source: Source = Source()
    ct: CTOptions = CTOptions()
    mri: MRIOptions = MRIOptions()

    @property
    def chosen(self) -> CTOptions | MRIOptions:
        """The options of the modality."""
        return self.ct if self.modality == "ct" else self.mri


@app.default
def simulate(
    source: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    what: Choices,
    resuming: Resuming = Resuming(),
    writing: Writing = Writing(),
    out: Output = Output(),
) -> int:
    """Simulate an undersampled, noisy measurement of a scan.

    Finished slices are kept in OUTPUT.slices until the output is written; after a kill the same command goes on.

    Parameters
    ----------
    source
        DICOM folder or file, or NIfTI file
    output
        measurement file (.h5) to write
    """
    _check(what)
    if output.suffix != ".h5":
        raise UsageError(f"-o {output}: a measurement file ends in .h5")
    drop_leftover(output)
    check_free(output, writing.overwrite, inputs=(source,))

    from medrecon.formats.measurement_file import save_scan

    volume = _read(source, what)
    check_free(output, writing.overwrite, _size(volume, what, source))
    how = {
        "modality": what.modality,
        "grid": list(volume.data.shape),
        "spacing_mm": list(volume.spacing),
        **what.chosen.model_dump(),
        "size": what.source.size,
        "seed": what.source.seed,
        "matched": what.source.matched,
    }
    plan = {"source": str(source), "output": str(output), **how}
    if writing.dry_run:
        (show_json if out.json else show_tree)({**plan, "dry_run": True})
        return 0
    with (
        kept(output, _record(volume, how), resuming.resume) as memo,
        progress(f"simulate {source.name}", out.quiet) as report,
    ):
        scan = (_ct_scan if what.modality == "ct" else _mri_scan)(volume, what, memo, report)
        memo.kept.finish(output)
        save_scan(scan, output, overwrite=writing.overwrite)
    note(f"wrote {output}")
    if out.json:
        show_json({**plan, "provenance": scan.provenance})
    return 0


def _record(volume: Volume, how: dict[str, Any]) -> dict[str, Any]:
    """All that a simulation depends on."""
    import torch

    from medrecon import __version__
    from medrecon.core import checksum

    versions = {"medrecon": __version__, "torch": str(torch.__version__)}
    return {"source": checksum.of_content(volume.data, volume.affine), **how, "versions": versions}


def _read(source: Path, what: Choices) -> Volume:
    """The slices asked for, CT in HU, once they can be simulated; other slices may be damaged."""
    from medrecon import formats
    from medrecon.core.units import mu_to_hu
    from medrecon.formats.base import Slices
    from medrecon.formats.common.naming import naming
    from medrecon.simulate.ct_rays import WHOLE
    from medrecon.simulate.resolution import lower_resolution
    from medrecon.simulate.volume_checks import check_ct, check_mri

    modality: Literal["CT", "MR"] = "CT" if what.modality == "ct" else "MR"
    some: Slices = lambda count: parse_slices(what.source.slices, count)  # noqa: E731
    volume = formats.read(source, series=what.source.series, modality=modality, units=what.source.units, slices=some)
    volume = volume.map(mu_to_hu, "HU") if volume.units == "1/mm" else volume
    with naming(source):
        if what.modality == "ct":
            check_ct(volume, whole=what.ct.geometry in WHOLE)
        else:
            check_mri(volume)
            volume = volume if what.source.size is None else lower_resolution(volume, what.source.size)
    return volume


def _size(volume: Volume, what: Choices, source: Path) -> float:
    """Bytes on disk, at least.

    Raises:
        ValueError: what cannot be simulated of this volume; names the options.
    """
    from medrecon.simulate import beforehand

    ct, mri = what.ct, what.mri
    try:
        if what.modality == "ct":
            return beforehand.check_ct(
                volume, geometry=ct.geometry, views=ct.views, arc=ct.radians, size=what.source.size
            )
        if mri.trajectory != "cartesian":
            return beforehand.check_trajectory(volume, readouts=mri.interleaves, coils=mri.coils) / 4
        grid = mri.model_dump(include=GRID_ONLY | {"coils"})
        return beforehand.check_cartesian(volume, seed=what.source.seed, **grid) / 4  # k-space with zeros is compressed
    except ValueError as error:
        size = what.source.model_dump(exclude_unset=True, include={"size"})
        given = {**what.chosen.model_dump(exclude_unset=True), **size}.items()
        named = [f"--{name.replace('_', '-')} {value}" for name, value in given]
        said = str(error).removeprefix("simulate_ct: ").removeprefix("simulate_mri: ")
        raise ValueError(f"{', '.join([str(source), *named])}: {said}") from error


def _ct_scan(volume: Volume, what: Choices, keep: Keep, report: OnProgress) -> Scan:
    """Line integrals."""
    import torch

    from medrecon.simulate import simulate_ct

    ct = what.ct
    scan = simulate_ct(
        volume,
        geometry=ct.geometry,
        views=ct.views,
        arc=ct.radians,
        i0=ct.photons,
        sigma_e=ct.sigma_e,
        tube_current=ct.tube_current,
        size=what.source.size,
        couch=ct.couch,
        matched=what.source.matched,
        generator=torch.Generator().manual_seed(what.source.seed),
        keep=keep,
        on_progress=report,
    )
    if ct.dose == 1:
        return scan
    note(
        f"dose: {100 * ct.dose:g} % of --i0 {ct.i0:g} are {ct.photons:g} photons; the image does not tell its own dose"
    )
    return replace(scan, provenance={**scan.provenance, "dose_fraction": ct.dose, "dose_of_i0": ct.i0})


def _mri_scan(volume: Volume, what: Choices, keep: Keep, report: OnProgress) -> Scan:
    """k-space on a grid or along a trajectory; where it has a size, the digest of the source is of it at that size."""
    scan = _kspace(volume, what, keep, report)
    size = what.source.size
    return scan if size is None else replace(scan, provenance={**scan.provenance, "size": size})


def _kspace(volume: Volume, what: Choices, keep: Keep, report: OnProgress) -> Scan:
    import torch

    from medrecon.simulate import simulate_mri, simulate_noncartesian

    mri, generator = what.mri, torch.Generator().manual_seed(what.source.seed)
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
            matched=what.source.matched,
            generator=generator,
            keep=keep,
            on_progress=report,
        )
    return simulate_noncartesian(
        volume,
        pattern=mri.trajectory,
        readouts=mri.interleaves,
        coils=mri.coils,
        snr_db=mri.snr,
        generator=generator,
        keep=keep,
        on_progress=report,
    )


GRID_ONLY = {"accel", "mask", "acs", "partial_fourier", "phase_encoding"}


def _check(what: Choices) -> None:
    """Options of the other modality mean nothing; nor do those of lines on a grid along a trajectory, or its own."""
    mri, other = what.mri, "mri" if what.modality == "ct" else "ct"
    if what.source.units is not None and what.modality != "ct":
        raise UsageError(f"--units {what.source.units}: only for --modality ct")
    if given := _flags((what.mri if other == "mri" else what.ct).model_fields_set):
        raise UsageError(f"{', '.join(given)}: only for --modality {other}")
    along = mri.trajectory != "cartesian"
    given = _flags(mri.model_fields_set & (GRID_ONLY if along else {"readouts"}))
    given += ["--matched"] * (along and what.source.matched)
    if given:
        raise UsageError(f"{', '.join(given)}: not for --trajectory {mri.trajectory}")


def _flags(names: Iterable[str]) -> list[str]:
    return sorted(f"--{name.replace('_', '-')}" for name in names)
