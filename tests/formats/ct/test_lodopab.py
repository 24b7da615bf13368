"""LoDoPaB-CT files as the authors' script makes them: ODL's array axes and rays, normalised line integrals."""

import math
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from ct_phantoms import Ellipse

from medrecon.acquisition.options import RawOptions
from medrecon.formats.lodopab import MU_MAX
from medrecon.formats.raw_data import read_raw
from medrecon.geometry import ImageGrid, ParallelGeometry
from medrecon.operators.ct.filtered.fbp import fbp
from medrecon.pipeline.problem import build_problem

pytestmark = pytest.mark.usefixtures("one_thread")
CHEST = (Ellipse(10.0, -20.0, 110.0, 80.0, 0.3, 0.02), Ellipse(50.0, 30.0, 30.0, 20.0, 1.0, -0.015))
"""In ODL's axes: x to the right, y up, mm."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """observation_train_000.hdf5 and its ground truth, 3 slices of rising density."""
    folder = tmp_path_factory.mktemp("lodopab")
    # ODL: middles of the cells of [0, pi] and of the diagonal; ray x cos t + y sin t = s.
    views = tuple((np.arange(1000) + 0.5) * math.pi / 1000)
    p = sum(e.sinogram(ParallelGeometry(views, 513, 260 * math.sqrt(2) / 513)) for e in CHEST)
    grid = ImageGrid((362, 362), (260 / 362, 260 / 362))
    # ODL's array is [x, y], both rising; ours is [row from the top, column].
    truth = sum(e.image(grid) for e in CHEST).flip(0).T * 1000 / MU_MAX
    for name, item in (("observation", p.numpy() / MU_MAX), ("ground_truth", truth.numpy())):
        with h5py.File(folder / f"{name}_train_000.hdf5", "w") as h5:
            h5["data"] = np.stack([item * (1 - 0.1 * n) for n in range(3)]).astype(np.float32)
    return folder


def test_image_is_the_transposed_ground_truth(files: Path) -> None:
    """In HU, and as DICOM shows it: ODL's y rises with the DICOM row."""
    scan = read_raw(files / "observation_train_000.hdf5", RawOptions(slices=(1, 3)))
    assert scan.data.shape == (2, 1000, 513) and scan.image_shape == (362, 362) and scan.units == "HU"
    assert scan.noise.i0 == 4096.0 and scan.mu_water == 0.02
    upside_down = [replace(e, y=-e.y, tilt=-e.tilt) for e in CHEST]
    exact = 0.9 * sum(e.sinogram(scan.rays) for e in upside_down)
    assert torch.allclose(scan.data[0], exact, atol=1e-4)
    image = fbp(scan.data[:, ::4], scan.rays.subset(range(0, 1000, 4)), scan.grid)[0]
    with h5py.File(files / "ground_truth_train_000.hdf5") as h5:
        truth = torch.from_numpy(h5["data"][1]) * MU_MAX / 1000
    right, others = truth.T, [truth, truth.T.flip(0), truth.flip(0), truth.T.flip(1)]
    assert float((image - right).norm() / right.norm()) < 0.06
    assert min(float((image - o).norm() / right.norm()) for o in others) > 0.3
    water = build_problem(scan, "cpu").values(image / 0.9)[200:230, 150:180]
    assert float(water.mean()) == pytest.approx(0, abs=5)
    small = read_raw(files / "observation_train_000.hdf5", RawOptions(slices=(0, 1), size=64))
    assert small.grid.spacing[0] * 64 == pytest.approx(260)


def test_bad_files(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ground_truth_train_000\.hdf5: data: images, the ground truth"):
        read_raw(files / "ground_truth_train_000.hdf5")

    def written(data: object) -> Path:
        with h5py.File(tmp_path / "observation.hdf5", "w") as h5:
            h5["data"] = data
        return tmp_path / "observation.hdf5"

    named = RawOptions(format="lodopab")
    with pytest.raises(ValueError, match=r"observation.hdf5: data: expected .*, got shape \(2, 1000, 512\)"):
        read_raw(written(np.zeros((2, 1000, 512))), named)
    bad = np.zeros((1, 1000, 513))
    bad[0, 5, 6] = np.inf
    with pytest.raises(ValueError, match=r"data: 1 NaN .*, the first at \[0, 5, 6\]; zero counts"):
        read_raw(written(bad))
    with pytest.raises(ValueError, match=r"data: values up to 10.6, but no counts are 0.131; .*other units"):
        read_raw(written(np.full((1, 1000, 513), 10.6)))
    with pytest.raises(ValueError, match=r"slices 0:5 are not within 0:1"):
        read_raw(written(np.zeros((1, 1000, 513))), RawOptions(slices=(0, 5)))
    whole = (files / "observation_train_000.hdf5").read_bytes()
    (tmp_path / "half.hdf5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"half.hdf5: not HDF5, truncated or damaged"):
        read_raw(tmp_path / "half.hdf5", named)
