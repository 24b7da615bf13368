"""Volumes compared on the reference's grid: place, coverage, conventions, errors."""

import json
import math

import pytest
import torch
from torch import Tensor

from medrecon.core.volume import Modality, Units, Volume
from medrecon.quality.evaluate import evaluate, resample_to
from medrecon.quality.metrics import CT_WINDOWS, nmse, psnr, ssim

OBLIQUE = torch.linalg.qr(torch.tensor([[1.0, 0.2, -0.1], [-0.2, 1.0, 0.3], [0.1, -0.3, 1.0]], dtype=torch.float64))[0]


def affine(spacing: tuple[float, float, float], origin: tuple[float, float, float]) -> Tensor:
    a = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    a[:3, 3] = torch.tensor(origin, dtype=torch.float64)
    return a


def oblique() -> Tensor:
    """1.0 x 1.1 x 1.2 mm voxels along tilted axes; voxel (30, 30, 30) lies at (2, -1, 0) mm."""
    a = affine((1.0, 1.1, 1.2), (0, 0, 0))
    a[:3, :3] = OBLIQUE @ a[:3, :3]
    a[:3, 3] = torch.tensor([2.0, -1.0, 0.0], dtype=torch.float64) - a[:3, :3].sum(1) * 30
    return a


def place(shape: tuple[int, int, int], a: Tensor) -> Tensor:
    """World coordinates (mm) of all voxels, (Z, Y, X, 3)."""
    z, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij")
    return torch.stack([x, y, z], -1) @ a[:3, :3].T + a[:3, 3]


def field(shape: tuple[int, int, int], a: Tensor, modality: Modality = "CT") -> Volume:
    """The same linear function of the place in mm, on any grid: trilinear interpolation is exact for it."""
    values = place(shape, a) @ torch.tensor([2.0, -3.0, 5.0], dtype=torch.float64) + 40
    units: Units = "HU" if modality == "CT" else "a.u."
    return Volume(values.float(), a, units, modality)


def noisy(volume: Volume, sigma: float) -> Volume:
    g = torch.Generator().manual_seed(0)
    return volume.map(lambda d: d + sigma * torch.randn(d.shape, generator=g))


REFERENCE = field((6, 24, 30), affine((0.8, 0.9, 3.0), (-10, -12, -8)))


@pytest.mark.parametrize("size", [1.0, 1e-5])
def test_grids_that_differ_by_a_voxel_are_never_the_same(size: float) -> None:
    """However small the voxels are: a shift of the image and its place is no error of it."""
    image = torch.rand((3, 12, 12), generator=torch.Generator().manual_seed(0)) * 100
    there = torch.diag(torch.tensor([size, size, size, 1.0], dtype=torch.float64))
    moved = there.clone()
    moved[0, 3] = 2 * size
    result = evaluate(Volume(image.roll(-2, 2), moved, "a.u.", "MR"), Volume(image, there, "a.u.", "MR"))
    assert result["grid"]["resampled"] and result["rmse"] < 1e-3


def test_a_reference_of_huge_voxels_is_refused_at_once() -> None:
    fine = Volume(torch.rand(4, 16, 16), torch.diag(torch.tensor([0.3, 0.3, 0.3, 1.0]).double()), "a.u.", "MR")
    huge = Volume(torch.rand(4, 4, 4), torch.diag(torch.tensor([1000.0, 1000, 1000, 1]).double()), "a.u.", "MR")
    with pytest.raises(ValueError, match="are the lengths of both mm"):
        evaluate(fine, huge)


def test_ct_figures_of_the_same_grid() -> None:
    reference = REFERENCE.map(lambda d: d * 30)
    assert float(reference.data.min()) < -1350 and float(reference.data.max()) > 3071  # every window clips
    recon = noisy(reference, 10.0)
    result = evaluate(recon, reference)
    assert result["grid"] == {
        "of": "reference",
        "shape": [6, 24, 30],
        "resampled": False,
        "slices_compared": 6,
        "slices_left_out": [],
        "covered": 1.0,
    }
    for name, window in CT_WINDOWS.items():
        a, b = window.clip(recon.data), window.clip(reference.data)
        scores = result["windows"][name]
        assert scores["data_range"] == window.width
        whole = psnr(a.reshape(1, -1, 30), b.reshape(1, -1, 30), window.width)
        assert scores["psnr_db"] == pytest.approx(float(whole), rel=1e-9)
        expected = nmse((a - window.low).reshape(1, -1, 30), (b - window.low).reshape(1, -1, 30))
        assert scores["nmse"] == pytest.approx(float(expected), rel=1e-4)
        assert scores["ssim"] == pytest.approx(float(ssim(a, b, window.width).mean()), rel=1e-9)
        assert result["slices"][2][name]["psnr_db"] == pytest.approx(float(psnr(a, b, window.width)[2]), rel=1e-9)
    assert result["psnr_db"] == result["windows"]["full"]["psnr_db"]
    assert evaluate(noisy(REFERENCE, 10.0), REFERENCE)["rmse"] == pytest.approx(10.0, rel=0.05)
    assert evaluate(REFERENCE.map(lambda d: d + 3), REFERENCE)["bias"] == pytest.approx(3.0, rel=1e-4)
    json.dumps(result, allow_nan=False)


def test_mri_range_is_the_maximum_of_the_reference_volume() -> None:
    reference = field((4, 16, 20), affine((1, 1, 4), (0, 0, 0)), "MR").map(lambda d: d - d.min())
    recon = noisy(reference, 2.0)
    result = evaluate(recon, reference)
    assert result["data_range"] == float(reference.data.max())
    assert result["psnr_db"] == pytest.approx(
        float(psnr(recon.data.reshape(1, -1, 20), reference.data.reshape(1, -1, 20), float(reference.data.max())))
    )
    expected = (recon.data - reference.data).double().square().sum() / reference.data.double().square().sum()
    assert result["nmse"] == pytest.approx(float(expected), rel=1e-9)
    assert len(result["slices"]) == 4 and "windows" not in result
    # A wrong scale is an error, and stays one; complex images are compared by magnitude.
    assert evaluate(reference.map(lambda d: d * 2), reference)["nmse"] == pytest.approx(1.0)
    turned = reference.map(lambda d: d * torch.exp(torch.tensor(1.3j)))
    assert evaluate(turned, reference)["nmse"] < 1e-12


@pytest.mark.parametrize(
    ("shape", "grid"),
    [
        ((14, 60, 70), affine((0.7, 0.8, 2.0), (-16, -18, -12))),
        ((5, 20, 20), affine((2.0, 2.0, 5.0), (-15, -17, -11))),
        ((14, 60, 70), affine((-0.7, 0.8, 2.0), (30, -18, -12))),  # left-handed
        ((60, 60, 60), oblique()),
        ((26, 110, 130), affine((0.35, 0.4, 1.0), (-16, -18, -12))),  # finer: averaged
    ],
    ids=["shifted", "coarser", "left-handed", "oblique", "finer"],
)
def test_another_grid_is_put_in_place(shape: tuple[int, int, int], grid: Tensor) -> None:
    """A function linear in mm must come out with no error wherever it is covered, whatever the grid."""
    result = evaluate(field(shape, grid), REFERENCE)
    assert result["grid"]["resampled"] and result["grid"]["covered"] == 1.0
    assert result["rmse"] < 1e-3
    # A misplacement of one millimetre is seen: the field has 5 HU a mm along z.
    moved = grid.clone()
    moved[2, 3] += 1.0
    shifted = Volume(field(shape, grid).data, moved, "HU", "CT")
    assert evaluate(shifted, REFERENCE)["bias"] == pytest.approx(-5.0, abs=0.5)


def test_a_finer_reconstruction_is_averaged_over_the_voxel() -> None:
    """27 voxels of a checkerboard of +-1 in every reference voxel have the mean +-1/27; a point sample has +-1."""
    coarse = Volume(torch.zeros(4, 8, 8), affine((3, 3, 3), (0, 0, 0)), "a.u.", "MR")
    z, y, x = torch.meshgrid(*(torch.arange(n) for n in (12, 24, 24)), indexing="ij")
    board = Volume(1.0 - 2.0 * ((x + y + z) % 2), affine((1, 1, 1), (-1, -1, -1)), "a.u.", "MR")
    matched = resample_to(board, coarse)
    assert bool(matched.mask.all())
    assert torch.allclose(matched.data.abs(), torch.tensor(1 / 27), atol=1e-6)


def test_slices_outside_the_reconstruction_are_left_out_and_reported() -> None:
    result = evaluate(REFERENCE.slices(2, 5), REFERENCE)
    assert result["grid"]["slices_left_out"] == [0, 1, 5]
    assert [row["index"] for row in result["slices"]] == [2, 3, 4]
    assert result["rmse"] == 0.0 and result["psnr_db"] is None  # no error: an infinite PSNR is not JSON
    json.dumps(result, allow_nan=False)


def test_voxels_outside_the_reconstruction_do_not_count() -> None:
    """The reconstruction covers the left 20 of 30 columns; the other columns must not enter any figure."""
    part = Volume(REFERENCE.data[..., :20], REFERENCE.affine, "HU", "CT")
    result = evaluate(part, REFERENCE)
    assert result["grid"]["covered"] == pytest.approx(20 / 30, abs=1e-5)
    assert result["rmse"] < 1e-4 and math.isclose(result["ssim"], 1.0)


def test_mismatches_are_refused() -> None:
    far = Volume(REFERENCE.data, affine((0.8, 0.9, 3.0), (500, 0, 0)), "HU", "CT")
    with pytest.raises(ValueError, match=r"do not overlap: the reconstruction spans \[500, 523\]"):
        evaluate(far, REFERENCE)
    mu = Volume(REFERENCE.data, REFERENCE.affine, "1/mm", "CT")
    with pytest.raises(ValueError, match="units '1/mm', the reference 'HU'"):
        evaluate(mu, REFERENCE)
    with pytest.raises(ValueError, match="modality 'MR', the reference 'CT'"):
        evaluate(Volume(REFERENCE.data, REFERENCE.affine, "a.u.", "MR"), REFERENCE)
    hole = REFERENCE.map(lambda d: torch.where(d > 0, d, torch.nan))
    with pytest.raises(ValueError, match="the reconstruction has NaN"):
        evaluate(hole, REFERENCE)
    empty = Volume(torch.zeros(2, 8, 8), torch.eye(4, dtype=torch.float64), "a.u.", "MR")
    with pytest.raises(ValueError, match="no positive value"):
        evaluate(empty, empty)


@pytest.mark.parametrize(
    ("shape", "grid"),
    [
        ((2, 8, 9), affine((2.0, 2.0, 5.0), (-8, -10, -5))),  # coarser than the reference, which is averaged
        ((7, 20, 20), affine((-0.7, 0.8, 2.0), (8, -10, -7))),
    ],
    ids=["coarser", "left-handed"],
)
def test_on_the_grid_of_the_reconstruction_its_own_voxels_are_compared(
    shape: tuple[int, int, int], grid: Tensor
) -> None:
    recon = field(shape, grid)
    result = evaluate(recon, REFERENCE, grid="recon")
    assert result["grid"]["of"] == "recon" and result["grid"]["shape"] == list(shape)
    assert result["grid"]["covered"] == 1 and result["rmse"] < 1e-3
    assert evaluate(recon.map(lambda d: d + 7), REFERENCE, grid="recon")["bias"] == pytest.approx(7.0, abs=1e-3)
    with pytest.raises(ValueError, match="expected 'reference' or 'recon', got 'finer'"):
        evaluate(recon, REFERENCE, grid="finer")  # type: ignore[arg-type]


def test_detail_that_voxels_cannot_hold_is_an_error_on_the_references_grid_only() -> None:
    """The means of 2 x 2 voxels are the best a coarse image can be."""
    fine = Volume(
        torch.rand((2, 32, 32), generator=torch.Generator().manual_seed(0)), torch.eye(4).double(), "a.u.", "MR"
    )
    coarse = affine((2, 2, 1), (0.5, 0.5, 0))
    means = Volume(fine.data.reshape(2, 16, 2, 16, 2).mean((2, 4)), coarse, "a.u.", "MR")
    inner = evaluate(means, fine, grid="recon")
    assert inner["rmse"] < 1e-6 and inner["data_range"] == pytest.approx(float(means.data.max()))
    assert evaluate(means, fine)["rmse"] > 0.2


def test_attenuation_is_not_judged_by_windows_of_hu() -> None:
    """4095 HU are no range of values about 0.02 / mm: an error of a half had 117 dB."""
    truth = Volume(0.02 * REFERENCE.data.sigmoid(), REFERENCE.affine, "1/mm", "CT")
    result = evaluate(truth.map(lambda d: d * 1.5), truth)
    assert "windows" not in result and result["data_range"] == float(truth.data.max())
    assert result["nmse"] == pytest.approx(0.25) and result["psnr_db"] < 15
