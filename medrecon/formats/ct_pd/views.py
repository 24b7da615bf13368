"""DICOM-CT-PD in: projections of a CT scan, one file a view, as the Mayo clinic publishes them.

See docs/guide/ct_pd.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.formats.ct_pd import tags
from medrecon.formats.ct_pd.scanner import Scanner, dataset_of, is_projection
from medrecon.formats.dicom import files as dicom_files

T = TypeVar("T")
S = TypeVar("S")

THREADS = 8


@dataclass(frozen=True, eq=False)
class Projections:
    """Line integrals of a scan and where they were measured, in medrecon's convention; mm and rad.

    x to the right and y up as seen from the patient table, z along the table into the gantry. At angle t the detector
    focal centre is at radius (sin t, -cos t); columns are counted along (cos t, sin t), rows along +z.

    Attributes:
        data: (V, R, D) float32; (0, R, D) where only the geometry was read.
        angles: (V,) t of the detector focal centre, unwrapped.
        heights: (V,) its z.
        radii: (V,) its distance from the rotation axis.
        focal_shifts: (V, 3) angle, distance and z by which the focal spot leaves it.
        det_spacing: (row, column) pitch on the detector, along the arc.
        det_offset: (row, column) shift of the detector's middle from the ray through the axis.
        source_detector: distance of the detector from its focal centre.
        detector: 'flat' or 'arc'.
        focal_mode: FFSNONE, FFSZ, FFSXY or FFSXYZ.
        views_per_turn: as the files say.
        mu_water: attenuation of water that defines HU [1/mm]; None where the files do not say it.
        photons: (V, D) incident photons (noise-equivalent quanta) of each column; None where the files lack them.
        manufacturer, patient_position: as the files say, '' where unknown.
        files: of the views, in order.
    """

    data: Tensor
    angles: NDArray[np.float64]
    heights: NDArray[np.float64]
    radii: NDArray[np.float64]
    focal_shifts: NDArray[np.float64]
    det_spacing: tuple[float, float]
    det_offset: tuple[float, float]
    source_detector: float
    detector: Literal["flat", "arc"] = "arc"
    focal_mode: str = "FFSNONE"
    views_per_turn: int = 0
    mu_water: float | None = None
    photons: Tensor | None = None
    manufacturer: str = "medrecon"
    patient_position: str = ""
    files: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        views = len(self.angles)
        for name, shape in (("heights", (views,)), ("radii", (views,)), ("focal_shifts", (views, 3))):
            if getattr(self, name).shape != shape:
                raise ValueError(f"Projections: {name}: expected {shape}, got {getattr(self, name).shape}")
        if self.data.ndim != 3 or len(self.data) not in (0, views):
            raise ValueError(f"Projections: data: expected ({views}, rows, columns), got {tuple(self.data.shape)}")


def read_ct_pd(folder: str | Path, *, views: tuple[int, int] | None = None, pixels: bool = True) -> Projections:
    """Read a folder of projections in the order of their instance numbers.

    Args:
        views: (start, stop) of the views to read, counted in that order; all by default.
        pixels: off: the geometry alone; `read_views` then reads the data piece by piece.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: names the file and the tag: not DICOM-CT-PD, damaged or truncated, doubled or missing instance
            numbers, files that do not belong together, an unknown manufacturer, values that no scanner has.
    """
    files = _ordered(Path(folder))
    start, stop = views or (0, len(files))
    if not 0 <= start < stop <= len(files):
        raise ValueError(f"{folder}: views {start}:{stop} are not within 0:{len(files)}")
    files = files[start:stop]
    scanner = Scanner.of(files[0])
    data = torch.empty(len(files) if pixels else 0, scanner.rows, scanner.columns)
    photons = torch.empty(len(files), scanner.columns) if scanner.photons else None

    def view(index: int) -> list[float]:
        path = files[index]
        dataset = dataset_of(path, pixels)
        scanner.check(dataset, path)
        if pixels:
            data[index] = scanner.values(dataset, path)
        if photons is not None:
            counted = tags.numbers(dataset, tags.PHOTONS, path, scanner.columns)
            photons[index] = torch.from_numpy(counted[::-1].copy())
        return scanner.place(dataset, path)

    place = np.array(list(_map(view, range(len(files)))))
    return Projections(
        data,
        np.unwrap(place[:, 0]) + np.pi,
        place[:, 1],
        place[:, 2],
        place[:, 3:],
        scanner.spacing,
        scanner.offset,
        scanner.distance,
        scanner.shape,
        scanner.focal_mode,
        scanner.steps,
        scanner.water,
        photons,
        scanner.manufacturer,
        scanner.patient_position,
        tuple(files),
    )


def read_views(projections: Projections, start: int, stop: int) -> Tensor:
    """(stop - start, R, D) line integrals of some views of a scan whose geometry was read.

    Raises:
        ValueError: as `read_ct_pd`.
    """
    files = projections.files[start:stop]
    scanner = Scanner.of(projections.files[0])
    data = torch.empty(len(files), scanner.rows, scanner.columns)

    def view(index: int) -> None:
        data[index] = scanner.values(dataset_of(files[index], True), files[index])

    for _ in _map(view, range(len(files))):
        pass
    return data


def is_ct_pd(path: Path) -> bool:
    """Tell whether this is a folder with projections; looks at one DICOM file in it."""
    if not path.is_dir():
        return False
    first = next((p for p in sorted(path.iterdir()) if p.is_file() and dicom_files.is_dicom(p)), None)
    return first is not None and is_projection(first)


def _ordered(folder: Path) -> list[Path]:
    """The DICOM files of a folder by instance number, which must have no gap and no double."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    files = [p for p in sorted(folder.iterdir()) if p.is_file() and dicom_files.is_dicom(p)]
    if not files:
        raise ValueError(f"{folder}: no DICOM files; give the folder that holds the projections themselves")
    found: dict[int, Path] = {}
    for path, instance in zip(files, _map(_instance, files), strict=True):
        if instance in found:
            raise ValueError(
                f"{path}: instance number {instance} again, as {found[instance].name}; two scans in one folder?"
            )
        found[instance] = path
    order = sorted(found)
    if (gap := next((a for a, b in zip(order, order[1:]) if b != a + 1), None)) is not None:
        raise ValueError(f"{folder}: instance number {gap + 1} is missing, after {found[gap].name}")
    return [found[i] for i in order]


def _instance(path: Path) -> int:
    dataset = dataset_of(path, False, only=["InstanceNumber"])
    if dataset.get("InstanceNumber") is None:
        raise ValueError(f"{path}: (0020,0013) InstanceNumber is missing, so its place in the scan is unknown")
    return int(dataset.InstanceNumber)


def _map(function: Callable[[S], T], items: Sequence[S]) -> Iterator[T]:
    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(function, items)
