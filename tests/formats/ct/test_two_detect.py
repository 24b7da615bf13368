"""2DeteCT folders: attenuation, the shifted detector, and every broken file named."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ct_phantoms import Ellipse
from PIL import Image

from medrecon.acquisition.options import RawOptions
from medrecon.formats.raw_data import read_raw
from medrecon.geometry import FanGeometry
from medrecon.operators.ct.filtered.fbp import fbp

pytestmark = pytest.mark.usefixtures("one_thread")
SAMPLE = (Ellipse(6.0, -9.0, 30.0, 22.0, 0.4, 0.05), Ellipse(15.0, 0.0, 6.0, 4.0, 0.0, 0.03))
SHIFT = 2.0
"""Of the axis from the middle, in elements before binning: as in the first 2830 slices."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """slice00001/mode2 of the size of the real ones, every element the same on either side of a pair."""
    path = tmp_path_factory.mktemp("2detect") / "slice00001" / "mode2"
    path.mkdir(parents=True)
    views = tuple(np.arange(3600) * 2 * np.pi / 3600)
    binned = FanGeometry(views, 956, 0.1496, 431.019989, 97.980499, det_offset=-SHIFT * 0.0748)
    p = np.repeat(sum(e.sinogram(binned) for e in SAMPLE).numpy(), 2, axis=1)
    dark = np.full(1912, 300)
    flat = 20000 + 5000 * np.cos(np.arange(1912) / 300)
    counts = dark + (1.01 * flat - dark) * np.exp(-np.vstack([p, p[:1]]))
    images = {"sinogram": counts, "dark": dark[None], "flat1": flat[None], "flat2": 1.02 * flat[None]}
    for name, values in images.items():
        Image.fromarray(values.round().astype(np.uint16)).save(path / f"{name}.tif")
    return path


def test_attenuation_and_centre(folder: Path) -> None:
    scan = read_raw(folder, RawOptions(size=128))
    assert scan.data.shape == (1, 3600, 956) and scan.units == "1/mm" and scan.noise is None
    assert scan.provenance["source"] == "slice00001/mode2" and scan.provenance["rotation_centre_from"] == "symmetry"
    assert scan.provenance["rotation_centre_elements"] == pytest.approx(955 / 2 + SHIFT / 2, abs=0.05)
    grid = scan.grid
    assert grid.spacing[0] * 128 == pytest.approx(956 * 0.1496 * 431.019989 / 529.000488)
    thin = scan.rays.subset(range(0, 3600, 10))
    image = fbp(scan.data[:, ::10], thin, grid)[0]
    for x, y, mu in ((-5.0, -12.0, 0.05), (15.0, 0.0, 0.08), (-35.0, 30.0, 0.0)):
        spot = Ellipse(x, y, 3, 2).inside(grid)
        assert float(image[spot].mean()) == pytest.approx(mu, abs=6e-4)
    with pytest.raises(ValueError, match="centre 956: not on the detector of 956 elements, two of the file's each"):
        read_raw(folder, RawOptions(centre=956.0))  # counted in the file's 1912
    given = read_raw(folder, RawOptions(centre=478.5, pixel=0.5))
    assert given.geometry.det_offset == pytest.approx(-0.1496) and given.image_shape == (233, 233)
    assert torch.equal(given.data, scan.data)
    # The last view, 16-bit counts and the mean of the flats included.
    exact = sum(e.sinogram(given.rays) for e in SAMPLE)
    assert torch.allclose(given.data[0], exact, atol=0.005)


def tiff(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values.astype(np.uint16)).save(path)


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("dark.tif", lambda f: f.unlink(), "missing; a 2DeteCT folder holds sinogram.tif, dark.tif"),
        ("flat2.tif", lambda f: f.write_text("no"), "not a TIFF image, or truncated"),
        ("sinogram.tif", lambda f: f.write_bytes(f.read_bytes()[:100000]), "not a TIFF image, or truncated"),
        (
            "flat1.tif",
            lambda f: tiff(f, np.ones((1, 956))),
            r"expected \(1 views, 1912 elements\), got shape \(1, 956\)",
        ),
        ("sinogram.tif", lambda f: tiff(f, np.ones((100, 1912))), r"expected \(3601 views, 1912 elements\)"),
        ("sinogram.tif", lambda f: tiff(f, np.zeros((3601, 1912))), "samples at or below the dark field: 100% of all"),
        ("dark.tif", lambda f: tiff(f, np.full((1, 1912), 60000)), "no brighter than the dark field"),
    ],
)
def test_broken_files_are_named(folder: Path, tmp_path: Path, name: str, spoil, message: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "mode2"))
    spoil(copy / name)
    with pytest.raises(ValueError, match=message) as error:
        read_raw(copy)
    assert str(copy) in str(error.value)
