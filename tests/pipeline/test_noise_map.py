"""Noise maps of whole reconstructions: the closed form of full sampling, command line, refusals."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from medrecon import formats
from medrecon.cli.main import main
from medrecon.coils.combine import birdcage_maps
from medrecon.core.noise import MRINoise
from medrecon.core.scan import Scan
from medrecon.core.volume import Volume
from medrecon.formats.measurement_file import load_scan, save_scan
from medrecon.pipeline.noise_map import noise_map
from medrecon.simulate import simulate_ct


def full_scan(sigma: float) -> Scan:
    """A bright disc, every sample measured, coils of unit root-sum-of-squares, noise far below the signal."""
    g = torch.Generator().manual_seed(0)
    maps = birdcage_maps(3, (24, 20), g)
    image = torch.full((24, 20), 500.0, dtype=torch.complex64)
    y = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(maps * image, dim=(-2, -1)), norm="ortho"), dim=(-2, -1))
    y = y + sigma * torch.randn(y.shape, dtype=y.dtype, generator=g)
    return Scan(
        "mri",
        y[None],
        (24, 20),
        torch.eye(4, dtype=torch.float64),
        "a.u.",
        maps=maps[None],
        mask=torch.ones(24, 20, dtype=torch.bool),
        noise=MRINoise(sigma),
    )


@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_full_sampling_has_the_noise_of_one_sample(sigma: float) -> None:
    """A is an isometry: each pixel has the complex noise of a sample, its magnitude 1 / sqrt(2) of that."""
    found = noise_map(full_scan(sigma), "zero-filled", replicas=200)
    assert found.units == "a.u."
    ratio = found.data[0] / (sigma / 2**0.5)
    assert float(ratio.mean()) == pytest.approx(1, abs=0.02)
    assert 0.6 < float(ratio.std()) / (1 / 400**0.5) < 1.5  # the spread of a standard deviation of 200 values


def test_command_line(tmp_path: Path, disc_volume: Callable[..., Volume]) -> None:
    scan, path = tmp_path / "mr.h5", tmp_path / "sd.nii.gz"
    save_scan(full_scan(2.0), scan)
    assert main(["noise", str(scan), "-o", str(path), "--solver", "cg-sense", "--replicas", "40"]) == 0
    assert float(formats.read(path).data.mean()) == pytest.approx(2 / 2**0.5, rel=0.1)
    assert main(["noise", str(scan), "-o", str(tmp_path / "x.nii"), "--solver", "fbp"]) == 2
    assert main(["noise", str(scan), "-o", str(tmp_path / "x.nii"), "--solver", "cg-sense", "--replicas", "1"]) == 2
    assert main(["noise", str(scan), "-o", str(tmp_path / "dicom"), "--solver", "cg-sense"]) == 2
    assert load_scan(scan).noise.covariance == 2.0


def test_ct_in_hu(disc_volume: Callable[..., Volume]) -> None:
    """Four times the photons, half the noise."""
    maps = [
        noise_map(
            simulate_ct(
                disc_volume("CT", 64, 1), views=40, i0=i0, sigma_e=0.0, generator=torch.Generator().manual_seed(0)
            ),
            "fbp",
            replicas=20,
        )
        .data[0, 24:40, 24:40]
        .mean()
        for i0 in (1e4, 4e4)
    ]
    assert float(maps[0] / maps[1]) == pytest.approx(2, rel=0.15)
