"""The law of readers, for raw CT: files of an analytic disc come back right over what the formats leave free, or are
refused by name. 2,304 combinations of DXchange and 216 of HTC2022; a seeded draw of them here, all with LAW_ALL=1.
"""

import itertools
import os
import random
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from ct_phantoms import Ellipse
from raw_maker import lines
from scipy.io import savemat

from medrecon.acquisition.options import RawOptions
from medrecon.formats.raw_data import read_raw
from medrecon.geometry import FanGeometry, ParallelGeometry

pytestmark = pytest.mark.usefixtures("one_thread")
DISC = (Ellipse(3.0, -2.0, 14.0, 11.0, 0.4, 0.05), Ellipse(8.0, 1.0, 3.0, 2.0, 0.0, 0.06))
VIEWS, ELEMENTS, SHIFT = 40, 48, 1.5


def drawn(*freedoms: tuple[object, ...], count: int) -> list[tuple[object, ...]]:
    every = list(itertools.product(*freedoms))
    return every if os.environ.get("LAW_ALL") else random.Random(0).sample(every, count)


ORDERS = {
    "rising": np.arange(VIEWS) * 180 / VIEWS,
    "falling": -np.arange(VIEWS) * 180 / VIEWS,
    "shuffled": np.random.default_rng(0).permutation(VIEWS) * 180 / VIEWS,
    "golden": np.mod(np.arange(VIEWS) * 111.246, 180),
}
KINDS = ("u2", "i4", "f4", "f8")
AXES = ("theta:y:x", "y:theta:x", "x:y:theta")
UNITS = ("degrees", "rad", None)
PITCHES = ((1e-3, "m"), (0.1, "cm"), (1.0, "mm"), (1e3, "um"))
IMAGES = (0, 1, 5, 12)
"""Flats and darks; 0: one of them, without an axis for it."""


@pytest.mark.parametrize(
    ("order", "kind", "axes", "units", "pitch", "images", "side"),
    drawn(tuple(ORDERS), KINDS, AXES, UNITS, PITCHES, IMAGES, (SHIFT,), count=24),
)
def test_dxchange(
    order: str,
    kind: str,
    axes: str,
    units: str | None,
    pitch: tuple[float, str],
    images: int,
    side: float,
    tmp_path: Path,
) -> None:
    degrees = ORDERS[order]
    rays = ParallelGeometry(tuple(np.deg2rad(degrees)), ELEMENTS, 1.0, -side)
    p = np.stack([lines(rays, DISC).double().numpy() * f for f in (1.0, 1.2)], axis=1)
    flat, dark = 30000 + 2000 * np.cos(np.arange(ELEMENTS) / 7), 200.0
    field = np.broadcast_to(flat, (2, ELEMENTS)) if images == 0 else np.broadcast_to(flat, (images, 2, ELEMENTS))
    with h5py.File(tmp_path / "law.h5", "w") as h5:
        counts = dark + (np.rint(flat) - dark) * np.exp(-p)
        turned = counts.transpose([["theta", "y", "x"].index(name) for name in axes.split(":")])
        h5["exchange/data"] = np.rint(turned).astype(kind)
        h5["exchange/data"].attrs["axes"] = axes
        h5["exchange/data_white"] = np.rint(field).astype(kind)
        h5["exchange/data_dark"] = np.full(field.shape, dark).astype(kind)
        h5["exchange/theta"] = np.deg2rad(degrees) if units == "rad" else degrees
        if units is not None:
            h5["exchange/theta"].attrs["units"] = units
        key = "measurement/instrument/detector/actual_pixel_size_x"
        h5[key] = pitch[0]
        h5[key].attrs["units"] = pitch[1]
    scan = read_raw(tmp_path / "law.h5", RawOptions(centre=(ELEMENTS - 1) / 2 + side))
    np.testing.assert_allclose(scan.rays.angles, rays.angles, atol=1e-9)
    assert scan.rays.det_spacing == pytest.approx(1.0) and scan.rays.det_offset == pytest.approx(-side)
    np.testing.assert_allclose(scan.data.numpy(), p.transpose(1, 0, 2), atol=1e-3)  # whole counts
    assert scan.image_shape == (ELEMENTS, ELEMENTS) and scan.units == "1/mm"
    middle = scan.affine @ torch.tensor([(ELEMENTS - 1) / 2, (ELEMENTS - 1) / 2, 0, 1], dtype=torch.float64)
    assert middle.tolist() == pytest.approx([0, 0, 0, 1])


LENGTHS = (("mm", 1.0), ("cm", 0.1), ("m", 1e-3))
ARCS = {"full": np.arange(120) * 3.0, "90": np.arange(91) * 1.0, "from 60": 60 + np.arange(61) * 0.5}


@pytest.mark.parametrize(
    ("arc", "sign", "unit", "kind", "names", "compressed"),
    drawn(
        tuple(ARCS), (1, -1), LENGTHS, ("f4", "f8"), ("CtDataLimited", "CtDataFull", "CtData"), (True, False), count=10
    ),
)
def test_htc2022(
    arc: str, sign: int, unit: tuple[str, float], kind: str, names: str, compressed: bool, tmp_path: Path
) -> None:
    degrees = sign * ARCS[arc]
    rays = FanGeometry(tuple(np.deg2rad(degrees)), 560, 0.2, 410.66, 143.08)
    p = lines(rays, DISC).numpy().astype(kind)
    name, scale = unit
    parameters = {
        "distanceSourceOrigin": 410.66 * scale,
        "distanceSourceDetector": 553.74 * scale,
        "distanceUnit": name,
        "angles": degrees,
        "pixelSizePost": 0.2 * scale,
        "effectivePixelSizePost": 0.2 * 410.66 / 553.74 * scale,
        "numDetectorsPost": 560.0,
    }
    struct = {names: {"sinogram": p, "parameters": parameters}}
    savemat(tmp_path / "law.mat", struct, do_compression=compressed)
    scan = read_raw(tmp_path / "law.mat", RawOptions(size=64))
    np.testing.assert_allclose(scan.rays.angles, rays.angles, atol=1e-9)
    np.testing.assert_allclose(scan.data[0].numpy(), p, atol=1e-5)
    assert isinstance(scan.rays, FanGeometry) and scan.rays.source_detector == pytest.approx(553.74)
    assert scan.grid.spacing[0] * 64 == pytest.approx(512 * 0.2 * 410.66 / 553.74)


@pytest.mark.parametrize("given", ["counts", "transmission", "the other sign"])
def test_what_is_no_line_integral_is_refused_by_name(given: str, tmp_path: Path) -> None:
    """A .mat whose logarithm was not taken, or taken twice."""
    rays = FanGeometry(tuple(np.deg2rad(ARCS["90"])), 560, 0.2, 410.66, 143.08)
    p = lines(rays, DISC).double().numpy()
    wrong = {"counts": 5e4 * np.exp(-p), "transmission": np.exp(-p), "the other sign": -p}[given]
    parameters = {
        "distanceSourceOrigin": 410.66,
        "distanceSourceDetector": 553.74,
        "distanceUnit": "mm",
        "angles": ARCS["90"],
        "pixelSizePost": 0.2,
        "effectivePixelSizePost": 0.2 * 410.66 / 553.74,
        "numDetectorsPost": 560.0,
    }
    savemat(tmp_path / "law.mat", {"CtData": {"sinogram": wrong, "parameters": parameters}})
    message = {"counts": "are they counts", "transmission": "transmissions", "the other sign": "sign of the log"}[given]
    with pytest.raises(ValueError, match=rf"law\.mat: slice 0: .*{message}"):
        read_raw(tmp_path / "law.mat")


@pytest.mark.parametrize("dark", [0.0, 100.0])
@pytest.mark.parametrize("flat", [1.0, 30000.0])
def test_line_integrals_in_the_place_of_counts(dark: float, flat: float, tmp_path: Path) -> None:
    rays = ParallelGeometry(tuple(np.deg2rad(ORDERS["rising"])), ELEMENTS, 1.0)
    p = lines(rays, DISC).double().numpy()[:, None]
    with h5py.File(tmp_path / "law.h5", "w") as h5:
        h5["exchange/data"] = p.clip(0)
        h5["exchange/data_white"] = np.full((2, 1, ELEMENTS), dark + flat)
        h5["exchange/data_dark"] = np.full((2, 1, ELEMENTS), dark)
        h5["exchange/theta"] = ORDERS["rising"]
    with pytest.raises(ValueError, match=r"law\.h5: .*(at or below the dark field|no counts|more photons)"):
        read_raw(tmp_path / "law.h5", RawOptions(pixel_size=1.0, centre=(ELEMENTS - 1) / 2))
