"""Fixtures: the corpus of real scans where it is present, and a seeded generator."""

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from medrecon.core.volume import Modality, Volume

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Folder with real CT and MRI; the test is skipped where it is absent."""
    path = Path(os.environ.get("MEDRECON_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))
    if not (path / "README.md").exists():
        pytest.skip(f"corpus of real scans not found at {path}; set MEDRECON_CORPUS")
    return path


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def _disc_volume(modality: Modality, size: int = 64, slices: int = 3) -> Volume:
    """A disc with two inserts that move with the slice: water in air (HU) or bright (a.u.); 2 mm voxels."""
    axis = (torch.arange(size) - (size - 1) / 2) / size
    y, x = axis[:, None], axis[None, :]
    planes = []
    for k in range(slices):
        image = ((x.square() + y.square()).sqrt() < 0.4).float()
        turn = 0.5 * k
        for radius, value, angle in ((0.08, 0.6, turn), (0.05, -0.5, turn + 2.0)):
            inside = ((x - 0.2 * math.cos(angle)).square() + (y - 0.2 * math.sin(angle)).square()).sqrt() < radius
            image = image + value * inside
        planes.append(image)
    data = torch.stack(planes)
    affine = torch.diag(torch.tensor([-2.0, -2.0, 3.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([60.0, 55.0, -20.0])
    if modality == "CT":
        return Volume(1000 * (data - 1), affine, "HU", "CT")
    return Volume(300 * data, affine, "a.u.", "MR")


@pytest.fixture(scope="session")
def disc_volume() -> Callable[..., Volume]:
    """disc_volume(modality, size=64, slices=3) -> Volume."""
    return _disc_volume


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For many operations on small tensors: threads that wait for each other on a busy machine cost tenfold."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
