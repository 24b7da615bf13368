"""HTC2022 .mat files, MATLAB 5 and 7.3: geometry, sense of rotation on real data, and every mistake named."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from ct_phantoms import Ellipse
from raw_maker import lines
from scipy.io import savemat

from medrecon.acquisition.options import RawOptions
from medrecon.core.scan import Scan
from medrecon.formats.raw_data import read_raw
from medrecon.geometry import FanGeometry
from medrecon.operators.ct.filtered.fbp import fbp
from medrecon.pipeline import reconstruct

pytestmark = pytest.mark.usefixtures("one_thread")
DISC = (Ellipse(2.0, -3.0, 33.0, 33.0, 0.0, 0.04), Ellipse(12.0, 8.0, 8.0, 5.0, 0.5, -0.04))
ANGLES = np.arange(360) * 1.0
RAYS = FanGeometry(tuple(np.deg2rad(ANGLES)), 560, 0.2, 410.66, 143.08)


def content(**changes: Any) -> dict[str, Any]:
    """The struct of the challenge; `None` leaves a parameter out."""
    pitch = RAYS.det_spacing
    parameters = {
        "projectName": "htc2022_test_",
        "geometryType": "Cone",
        "distanceSourceOrigin": 410.66,
        "distanceSourceDetector": 553.74,
        "distanceUnit": "mm",
        "geometricMagnification": 553.74 / 410.66,
        "numberImages": float(len(ANGLES)),
        "angles": ANGLES,
        "pixelSizePost": pitch,
        "effectivePixelSizePost": pitch * 410.66 / 553.74,
        "numDetectorsPost": 560.0,
    }
    sinogram = changes.pop("sinogram", lines(RAYS, DISC).double().numpy())
    return {
        "type": "2D",
        "sinogram": sinogram,
        "parameters": {k: v for k, v in {**parameters, **changes}.items() if v is not None},
    }


def matlab5(path: Path, struct: dict[str, Any], name: str = "CtDataLimited") -> Path:
    savemat(path, {name: struct})
    return path


def matlab73(path: Path, struct: dict[str, Any], name: str = "CtDataLimited") -> Path:
    """HDF5 behind MATLAB's 512 bytes; columns first, texts as numbers."""
    with h5py.File(path, "w", userblock_size=512) as h5:
        for key, value in {**struct, **struct["parameters"]}.items():
            if key == "parameters":
                continue
            place = f"{name}/{key}" if key in struct else f"{name}/parameters/{key}"
            text = [[ord(letter)] for letter in value] if isinstance(value, str) else None
            h5[place] = np.array(text, dtype=np.uint16) if text else np.atleast_2d(value).T
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return path


WRITERS = pytest.mark.parametrize("write", [matlab5, matlab73])
Writer = Callable[..., Path]


@WRITERS
def test_attenuation_and_geometry(write: Writer, tmp_path: Path) -> None:
    scan = read_raw(write(tmp_path / "a.mat", content()), RawOptions(size=128))
    assert scan.units == "1/mm" and scan.data.shape == (1, 360, 560) and scan.image_shape == (128, 128)
    assert torch.allclose(scan.data[0], lines(scan.rays, DISC), atol=1e-5)
    assert scan.rays.source_origin == 410.66 and scan.rays.origin_detector == pytest.approx(143.08)
    grid = scan.grid
    assert grid.spacing[0] * 128 == pytest.approx(512 * 0.2 * 410.66 / 553.74)
    image = fbp(scan.data, scan.rays, grid)[0]
    for x, y, mu in ((-10.0, -10.0, 0.04), (12.0, 8.0, 0.0)):
        spot = Ellipse(x, y, 4, 3).inside(grid)
        assert float(image[spot].mean()) == pytest.approx(mu, abs=4e-4)
    centre = scan.affine @ torch.tensor([63.5, 63.5, 0, 1], dtype=torch.float64)
    assert torch.allclose(centre[:2], torch.zeros(2, dtype=torch.float64))


def test_other_names_sizes_and_units(tmp_path: Path) -> None:
    scan = read_raw(matlab73(tmp_path / "a.mat", content(), "CtDataFull"), RawOptions(pixel=0.5))
    assert scan.grid.spacing == (0.5, 0.5) and scan.image_shape == (152, 152)
    metres = content(
        distanceUnit="m",
        distanceSourceOrigin=0.41066,
        distanceSourceDetector=0.55374,
        pixelSizePost=2e-4,
        effectivePixelSizePost=2e-4 * 410.66 / 553.74,
    )
    again = read_raw(matlab5(tmp_path / "b.mat", metres), RawOptions(pixel=0.5))
    assert again.rays.source_origin == pytest.approx(410.66) and again.grid == scan.grid


BROKEN = [
    ({"angles": None}, "angles: missing"),
    ({"distanceSourceOrigin": None}, "distanceSourceOrigin: missing"),
    ({"effectivePixelSizePost": None}, "effectivePixelSizePost: missing"),
    ({"angles": ANGLES[1:]}, "angles: expected 360 angles, one per view, got 359"),
    ({"angles": np.roll(ANGLES, 9)}, "angles: the angles are not monotone: 359 is followed by 0"),
    ({"angles": np.deg2rad(ANGLES)}, r"angles: spans 6\.2.* radians\?"),
    ({"angles": np.arange(360) * 4 * np.pi / 360}, r"angles: spans 12\.5.* radians\?"),
    ({"angles": ANGLES * np.nan}, "angles: 360 NaN"),
    ({"numDetectorsPost": 2240.0}, "numDetectorsPost: 2240, but the sinogram has 560"),
    ({"sinogram": np.full((360, 560), np.inf)}, "sinogram: 201600 NaN or infinite.*zero counts"),
    ({"sinogram": np.zeros(560)}, "sinogram: expected|one per view"),
    ({"distanceSourceOrigin": 41.066}, "beyond the source at 41.066 mm; check the units|magnification"),
    ({"distanceSourceOrigin": 41.066, "distanceSourceDetector": 55.374}, "beyond the source.*check the units"),
    ({"pixelSizePost": 0.02}, "the detector sees 8.306 mm at the axis, the image is 75.94 mm wide; check the units"),
    ({"effectivePixelSizePost": 0.3}, "check the units"),
    ({"distanceSourceDetector": 400.0}, "the axis is not between them; check the units"),
    ({"distanceUnit": "inch"}, "distanceSourceOrigin: unknown units of length 'inch'"),
    ({"distanceUnit": "cm"}, "check the units"),
]


@WRITERS
@pytest.mark.parametrize(("changes", "message"), BROKEN, ids=[m[:40] for _, m in BROKEN])
def test_bad_files_name_file_and_key(write: Writer, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "bad.mat", content(**changes))
    with pytest.raises(ValueError, match=message) as error:
        read_raw(path)
    assert str(error.value).startswith(f"{path}: ")


@WRITERS
def test_truncated_and_foreign_mat_files(write: Writer, tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.mat", content()).read_bytes()
    (tmp_path / "half.mat").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"half\.mat: .*truncated or damaged"):
        read_raw(tmp_path / "half.mat")
    with pytest.raises(ValueError, match=r"other\.mat: CtDataLimited: missing; the file has pool"):
        read_raw(write(tmp_path / "other.mat", content(), "pool"))


def discs(corpus: Path) -> Scan:
    """The five limited-angle files of disc tb as one scan of 455 views, every fourth of them."""
    found: dict[int, tuple[float, torch.Tensor]] = {}
    for path in sorted((corpus / "raw" / "raw_ct_htc2022").glob("tb_*.mat")):
        scan = read_raw(path, RawOptions(size=96))
        for angle, view in zip(scan.geometry.angles, scan.data[0], strict=True):
            key = round(math.degrees(angle) * 2)
            assert key not in found or torch.equal(found[key][1], view)
            found[key] = angle, view
    angles, views = zip(*(found[key] for key in sorted(found)[::4]), strict=True)
    return replace(scan, data=torch.stack(views)[None], geometry=replace(scan.geometry, angles=angles))


def test_sense_of_rotation_on_real_data(corpus: Path) -> None:
    """All arcs fit one disc as read; with the sense of rotation alone reversed they do not."""
    scan = discs(corpus)
    reverse = replace(scan, geometry=replace(scan.geometry, angles=tuple(-a for a in scan.geometry.angles)))
    right, wrong = (reconstruct(s, "cgls", settings={"iterations": 12})[1]["chi2"] for s in (scan, reverse))
    assert wrong > 4 * right


@pytest.mark.parametrize(
    "name",
    [
        "solid_disc_subsample73",
        "ta_subsample73",
        "tb_subsample",
        "tb_subsample_30",
        "tb_subsample_50",
        "tb_subsample_70",
        "tb_subsample_90",
    ],
)
def test_real_files(name: str, corpus: Path) -> None:
    scan = read_raw(corpus / "raw" / "raw_ct_htc2022" / f"{name}.mat")
    assert scan.data.shape[2] == 560 and scan.image_shape == (512, 512) and scan.provenance["arc_degrees"] >= 30
    assert scan.grid.spacing[0] == pytest.approx(0.2 * 410.66 / 553.74)
    assert 1.5 < float(scan.data.max()) < 2.5
