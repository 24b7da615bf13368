"""Fixtures: the corpus of real scans where it is present, and a seeded generator."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(2)


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
