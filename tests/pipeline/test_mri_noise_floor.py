"""k-space without noise, filtered, of dead coils, or measured on both sides: finite results, a reason, or a refusal."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor

from medrecon.cli import main
from medrecon.coils.maps.nlinv import nlinv
from medrecon.core.measurement import Measurement
from medrecon.core.noise import MRINoise
from medrecon.core.scan import Scan
from medrecon.formats.measurement_file import save_scan
from medrecon.numerics.fourier import centred_fft
from medrecon.operators.base import LinearOperator
from medrecon.pipeline import reconstruct
from medrecon.pipeline.mri_problem import FLOOR
from medrecon.solvers.base import OnStep, Solution, Solver
from medrecon.solvers.mri.homodyne import Homodyne

pytestmark = pytest.mark.usefixtures("one_thread")
N, COILS = 32, 4
AFFINE = torch.diag(torch.tensor([-2.0, -2.0, 5.0, 1.0], dtype=torch.float64))


def blobs() -> Tensor:
    """(C, N, N) images of two blobs, seen by smooth coils."""
    axis = (torch.arange(N) - N // 2) / N
    y, x = axis[:, None], axis[None]
    image = torch.exp(-((x - 0.1) ** 2 + (y + 0.15) ** 2) / 0.01) + 0.6 * torch.exp(-((x + 0.2) ** 2 + y**2) / 0.006)
    turns = 2 * torch.pi * torch.arange(COILS)[:, None, None] / COILS
    maps = torch.exp(-((x - 0.4 * torch.cos(turns)) ** 2 + (y - 0.4 * torch.sin(turns)) ** 2) / 0.5)
    return image * maps * torch.exp(1j * turns)


TRUTH = blobs().abs().square().sum(0).sqrt()


def scan(kspace: Tensor, mask: Tensor | None = None) -> Scan:
    return Scan("mri", kspace[None].to(torch.complex64), (N, N), AFFINE, "a.u.", mask=mask)


def noisy(sigma: float = 0.01) -> Tensor:
    white = torch.randn(COILS, N, N, dtype=torch.complex64, generator=torch.Generator().manual_seed(3))
    return centred_fft(blobs()) + sigma * white


HANN = torch.hann_window(N, periodic=True)
PADDED = torch.nn.functional.pad(torch.ones(N // 2, N // 2), (N // 4,) * 4)
CLEAN = {
    "simulated": centred_fft(blobs().to(torch.complex128)),
    "filtered": noisy() * HANN[:, None] * HANN,
    "padded": noisy() * PADDED,
    "padded and rounded": noisy() * PADDED + 1e-9,
}


@pytest.mark.parametrize("solver", ["cg-sense", "tv", "l1-wavelet", "zero-filled"])
@pytest.mark.parametrize("kind", list(CLEAN))
def test_results_stay_finite_without_noise(kind: str, solver: str, caplog: pytest.LogCaptureFixture) -> None:
    volume, report = reconstruct(scan(CLEAN[kind], torch.ones(N, N, dtype=torch.bool)), solver)
    assert bool(volume.data.isfinite().all()) and 0 < report["chi2"] < 1e7
    assert float((volume.data[0] - TRUTH).norm() / TRUTH.norm()) < 0.2
    rms = float(CLEAN[kind].abs().square().mean().sqrt())
    assert report["sigma"] == pytest.approx(FLOOR * rms, rel=1e-3) and report["sigma_estimated"] < report["sigma"]
    assert "filtered, padded with zeros or simulated without noise" in report["noise_model"]
    assert "noise: the estimate" in caplog.text


def test_noise_that_can_be_believed_is_taken_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    _, report = reconstruct(scan(noisy()), "zero-filled")
    assert report["sigma"] == report["sigma_estimated"] == pytest.approx(0.01, rel=0.1)
    assert report["noise_model"] == "estimated from the data" and not caplog.text
    axis = (torch.arange(N) - N // 2).abs() / (N // 2)
    fermi = 1 / (1 + torch.exp(((axis[:, None] ** 2 + axis**2).sqrt() - 0.9) / 0.2))
    _, report = reconstruct(scan(noisy() * fermi), "zero-filled")
    assert "still falls towards its edge, as behind a filter" in report["noise_model"] and "filter" in caplog.text
    with pytest.raises(ValueError, match="every acquired sample is 0"):
        reconstruct(scan(torch.zeros(COILS, N, N)), "zero-filled")


@dataclass(frozen=True)
class Diverging(Solver):
    """Comes out with a NaN."""

    name: ClassVar[str] = "diverging"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("mri",)
    summary: ClassVar[str] = "for a test"

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        image = A.adjoint(y.data)
        image[:, 0, 0] = torch.nan
        return Solution(image, [1.0], torch.ones(len(image)), True)

    @classmethod
    def examples(cls) -> Any:
        yield cls()


def test_what_is_not_finite_is_not_written(tmp_path: Path) -> None:
    two = Scan("mri", noisy()[None].repeat(3, 1, 1, 1), (N, N), AFFINE, "a.u.", noise=MRINoise(0.01))
    with pytest.raises(ValueError, match="diverging diverged"):
        reconstruct(two, Diverging())
    save_scan(scan(CLEAN["simulated"]), tmp_path / "scan.h5")
    assert main(["recon", str(tmp_path / "scan.h5"), "-o", str(tmp_path / "x.nii.gz"), "--solver", "cg-sense"]) == 0
    report = json.loads((tmp_path / "x.report.json").read_text())
    assert report["chi2"] is not None and "taken instead" in report["noise_model"]


@pytest.mark.parametrize("dead", [[2], [1, 2], []])
def test_dead_coils_tell_nothing_of_the_noise(dead: list[int]) -> None:
    kspace = noisy()
    kspace[dead] = 0
    volume, report = reconstruct(scan(kspace), "cg-sense")
    assert report["sigma"] == pytest.approx(0.01, rel=0.1)
    assert report.get("dead_coils", []) == dead
    alive = [c for c in range(COILS) if c not in dead]
    same, _ = reconstruct(scan(kspace[alive]), "cg-sense")
    assert torch.equal(volume.data, same.data)


def test_a_dead_coil_of_given_maps_and_covariance() -> None:
    kspace, maps = noisy(), torch.full((COILS, N, N), 0.5, dtype=torch.complex64)
    kspace[1] = 0
    covariance = 1e-4 * torch.eye(COILS, dtype=torch.complex64)
    given = Scan("mri", kspace[None], (N, N), AFFINE, "a.u.", maps=maps[None], noise=MRINoise(covariance))
    left = given.of_coils(torch.tensor([True, False, True, True]))
    assert left.noise.covariance.shape == (3, 3) and left.maps.shape[1] == 3
    volume, report = reconstruct(given, "cg-sense")
    assert report["dead_coils"] == [1] and torch.equal(volume.data, reconstruct(left, "cg-sense")[0].data)


@pytest.mark.parametrize("solver", ["homodyne", "pocs", "phase-constrained"])
def test_partial_fourier_is_for_partial_fourier(
    solver: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = f"solver '{solver}' is for partial Fourier, and both ends of this scan's k-space were measured alike"
    mask = torch.zeros(N, N, dtype=torch.bool)
    mask[:, ::2] = mask[:, 12:20] = True
    for whole in (scan(noisy()), scan(noisy() * mask, mask)):
        with pytest.raises(ValueError, match=message):
            reconstruct(whole, solver)
    with pytest.raises(ValueError, match="homodyne"):
        reconstruct(scan(noisy()), Homodyne())
    save_scan(scan(noisy()), tmp_path / "scan.h5")
    told = ["recon", str(tmp_path / "scan.h5"), "-o", str(tmp_path / "x.nii"), "--solver", solver, "--dry-run"]
    assert main(told) == 2 and message in capsys.readouterr().err
    mask = torch.arange(N) >= N // 4
    image, _ = reconstruct(scan(noisy() * mask, mask.expand(N, N)), solver)
    assert float((image.data[0] - TRUTH).norm() / TRUTH.norm()) < 0.1


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (N, 1), (N, 7), (7, 7)])
def test_nlinv_without_the_middle_of_kspace_is_refused(rows: int, columns: int) -> None:
    """Its image would be off by 0.2 and more: nothing tells image from maps. One missing sample does little."""
    distance = (torch.arange(N) - N // 2).abs()
    hole = (distance[:, None] <= rows // 2) & (distance <= columns // 2)
    with pytest.raises(ValueError, match="samples around zero frequency were acquired"):
        nlinv(noisy(0.003).masked_fill(hole, 0))
    with pytest.raises(ValueError, match="samples around zero frequency"):
        reconstruct(scan(noisy().masked_fill(hole, 0), ~hole), "zero-filled", maps="nlinv")
    for kept in (torch.ones(N, N, dtype=torch.bool), (distance[:, None] + distance) > 0):
        assert float((nlinv(noisy(0.003) * kept)[0].abs() - TRUTH).norm() / TRUTH.norm()) < 0.15
