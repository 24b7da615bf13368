"""A learned run that fails ends in one line that names why, and leaves no file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from medrecon.cli import main
from medrecon.core.scan import Scan
from medrecon.core.volume import Volume
from medrecon.formats.measurement_file import save_scan
from medrecon.models.denoiser import Denoiser
from medrecon.models.exact.gaussian import IdentityAutoencoder
from medrecon.models.prior import Prior
from medrecon.models.values import Linear
from medrecon.simulate import simulate_mri


class Silent(Denoiser):
    """A network that gives NaN at every level below 1."""

    sigma_min, sigma_max = 1e-2, 10.0

    def __call__(self, z: Tensor, sigma: Tensor) -> Tensor:
        return z / (1 + sigma.reshape(-1, 1, 1, 1) ** 2) * torch.where(sigma.reshape(-1, 1, 1, 1) < 1, torch.nan, 1.0)


@pytest.fixture(scope="module")
def mri(disc_volume: Callable[..., Volume]) -> Scan:
    return simulate_mri(disc_volume("MR", 32), accel=2, acs=12, coils=3, generator=torch.Generator().manual_seed(0))


NAMED = {
    "network": "what the denoiser of given gave is not finite",
    "solver": "needs a known singular value decomposition",
    "modality": "knows CT images",
}


@pytest.mark.parametrize("wrong", NAMED)
def test_nothing_is_written(
    wrong: str, mri: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    modality = "CT" if wrong == "modality" else "MR"
    given = Prior(IdentityAutoencoder(), Silent(), Linear(0.0, 1.0), "a.u.", modality, 0.01, "given")
    monkeypatch.setattr("medrecon.models.store.load_prior", lambda name, device: given)
    scan, out = tmp_path / "scan.h5", tmp_path / "out"
    save_scan(mri, scan)
    out.mkdir()
    line = ["recon", str(scan), "-o", str(out / "x.nii.gz"), "--solver", "ddnm" if wrong == "solver" else "dds"]
    assert main([*line, "--slices", "0:1", "--settings.start", "2", "--quiet"]) != 0
    said = capsys.readouterr().err
    assert NAMED[wrong] in said and "Traceback" not in said
    assert list(out.iterdir()) == []
