"""The figures of `evaluate` are those of the fastMRI challenge (Zbontar et al., arXiv:1811.08839, section 5): MSE, NMSE
and PSNR of the whole volume, SSIM slice by slice, the range being the maximum of the target volume throughout."""

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from medrecon.core.volume import Volume
from medrecon.quality.evaluate import evaluate

CLOSE = 1e-6


def public(target: np.ndarray, recon: np.ndarray) -> dict[str, float]:
    """The challenge's definitions, written with NumPy and scikit-image (7 x 7 windows, borders left out)."""
    target, recon = target.astype(np.float64), recon.astype(np.float64)
    peak, error = target.max(), target - recon
    similarity = [structural_similarity(t, r, data_range=peak) for t, r in zip(target, recon, strict=True)]
    return {
        "mse": float((error**2).mean()),
        "nmse": float(np.linalg.norm(error) ** 2 / np.linalg.norm(target) ** 2),
        "psnr_db": float(10 * np.log10(peak**2 / (error**2).mean())),
        "ssim": float(np.mean(similarity)),
    }


def crop(images: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The middle of the last two axes, from (n - m) // 2 on, as fastMRI crops to the size of the target."""
    rows, cols = ((n - m) // 2 for n, m in zip(images.shape[-2:], shape, strict=True))
    return images[..., rows : rows + shape[0], cols : cols + shape[1]]


def volume(images: np.ndarray, corner: tuple[int, int] = (0, 0)) -> Volume:
    """1 x 1 x 4 mm voxels; pixel `corner` (row, column) of every slice lies at the origin."""
    affine = torch.diag(torch.tensor([1.0, 1.0, 4.0, 1.0], dtype=torch.float64))
    affine[:2, 3] = -torch.tensor(corner[::-1], dtype=torch.float64)
    return Volume(torch.from_numpy(images.copy()), affine, "a.u.", "MR")


def same(ours: dict[str, float], theirs: dict[str, float]) -> None:
    found = {**ours, "mse": ours["rmse"] ** 2}
    for name, value in theirs.items():
        assert found[name] == pytest.approx(value, rel=CLOSE, abs=CLOSE if name == "ssim" else 0), name


def pair(shape: tuple[int, int, int] = (4, 40, 33), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Magnitudes that grow from slice to slice, and the same blurred and noisy, in fastMRI's tiny units."""
    rng = np.random.default_rng(seed)
    smooth = torch.nn.functional.avg_pool2d(torch.from_numpy(rng.normal(size=shape)), 5, 1, 2).abs().numpy()
    target = (1e-4 * smooth * np.arange(1, shape[0] + 1)[:, None, None]).astype(np.float32)
    recon = (target + 6e-6 * rng.normal(size=shape)).astype(np.float32)
    return target, recon


def test_figures_of_synthetic_volumes() -> None:
    for seed in range(5):
        target, recon = pair(seed=seed)
        same(evaluate(volume(recon), volume(target)), public(target, recon))


def test_the_range_is_that_of_the_volume() -> None:
    """Slices are far from equally bright: with the range of each slice the SSIM is another."""
    target, recon = pair()
    ours = evaluate(volume(recon), volume(target))["ssim"]
    alone = np.mean([structural_similarity(t, r, data_range=t.max()) for t, r in zip(target, recon, strict=True)])
    assert abs(ours - alone) > 1000 * CLOSE
    whole = structural_similarity(target[0], recon[0], data_range=target.max(), full=True)[1].mean()  # with the borders
    assert abs(evaluate(volume(recon), volume(target))["slices"][0]["ssim"] - whole) > 100 * CLOSE


@pytest.mark.parametrize(("full", "size"), [((52, 44), (40, 32)), ((51, 43), (40, 32)), ((52, 44), (39, 31))])
def test_a_larger_reconstruction_is_cropped_to_the_target(full: tuple[int, int], size: tuple[int, int]) -> None:
    """Grids know their place: what fastMRI crops, `evaluate` leaves out by position, to the same figures."""
    target, recon = pair((3, *full))
    corner = ((full[0] - size[0]) // 2, (full[1] - size[1]) // 2)
    inner = crop(target, size)
    result = evaluate(volume(recon, corner), volume(inner))
    assert result["grid"]["covered"] == 1.0
    same(result, public(inner, crop(recon, size)))
    wrong = evaluate(volume(recon, (corner[0] + 1, corner[1])), volume(inner))
    assert wrong["nmse"] > 2 * result["nmse"]  # a crop that is off by one pixel shows


def test_complex_reconstructions_are_compared_by_magnitude() -> None:
    target, recon = pair()
    phase = np.exp(1j * np.random.default_rng(1).normal(size=recon.shape)).astype(np.complex64)
    same(evaluate(volume(recon * phase), volume(target)), public(target, np.abs(recon * phase)))


def test_real_slices(corpus: Path) -> None:
    """A real brain volume, undersampled fourfold and zero-filled: a reconstruction as bad as they come."""
    from PIL import Image

    sheet = np.asarray(Image.open(sorted((corpus / "val" / "mri_256").glob("*.png"))[0]), dtype=np.float32)
    target = sheet.reshape(-1, 256, 256)[2:8]
    k = np.fft.fftshift(np.fft.fft2(target), axes=(-2, -1))
    kept = np.arange(256) % 4 == 1
    kept[118:138] = True
    recon = np.abs(np.fft.ifft2(np.fft.ifftshift(k * kept, axes=(-2, -1)))).astype(np.float32)
    theirs = public(target, recon)
    assert 0.3 < theirs["ssim"] < 0.95
    same(evaluate(volume(recon), volume(target)), theirs)
    inner, part = crop(target, (200, 180)), crop(recon, (200, 180))
    same(evaluate(volume(recon, (28, 38)), volume(inner)), public(inner, part))
