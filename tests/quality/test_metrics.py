"""Metrics against scikit-image, closed forms and their own conventions."""

import math

import numpy as np
import pytest
import torch
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from medrecon.quality.metrics import CT_WINDOWS, Window, mse, nmse, psnr, rmse, ssim


def pair(shape: tuple[int, ...] = (3, 31, 40), offset: float = 0.0) -> tuple[Tensor, Tensor]:
    """A smooth image, and the same with noise that grows from slice to slice."""
    g = torch.Generator().manual_seed(3)
    reference = torch.nn.functional.avg_pool2d(torch.randn(shape, generator=g) * 300, 5, 1, 2) + offset
    level = torch.arange(1, shape[0] + 1)[:, None, None] * 5.0
    return reference + level * torch.randn(shape, generator=g), reference


@pytest.mark.parametrize("offset", [0.0, 1000.0, -3000.0])
@pytest.mark.parametrize("data_range", [255.0, 4095.0])
def test_equal_to_scikit_image(offset: float, data_range: float) -> None:
    x, reference = pair(offset=offset)
    for i, (a, b) in enumerate(zip(x.double().numpy(), reference.double().numpy(), strict=True)):
        expected = structural_similarity(b, a, data_range=data_range)
        assert float(ssim(x, reference, data_range)[i]) == pytest.approx(expected, abs=1e-9)
        expected = peak_signal_noise_ratio(b, a, data_range=data_range)
        assert float(psnr(x, reference, data_range)[i]) == pytest.approx(expected, abs=1e-9)
        assert float(mse(x, reference)[i]) == pytest.approx(mean_squared_error(b, a), rel=1e-12)


def test_closed_forms() -> None:
    reference = torch.full((2, 9, 9), 10.0)
    x = reference + torch.tensor([1.0, 2.0])[:, None, None]
    assert rmse(x, reference).tolist() == [1.0, 2.0]
    assert psnr(x, reference, 100.0).tolist() == pytest.approx([40.0, 40 - 20 * math.log10(2)])
    assert nmse(x, reference).tolist() == pytest.approx([0.01, 0.04])
    # Constant images have no variance: SSIM is the luminance term alone.
    c1 = (0.01 * 100.0) ** 2
    assert ssim(x, reference, 100.0).tolist() == pytest.approx([(220 + c1) / (221 + c1), (240 + c1) / (244 + c1)])
    assert psnr(x, x, 1.0).tolist() == [math.inf, math.inf]
    assert ssim(x, x, 1.0).tolist() == [1.0, 1.0]


def test_a_scale_or_offset_is_an_error_and_not_fitted_away() -> None:
    _, reference = pair()
    assert float(nmse(reference * 1.1, reference)[0]) == pytest.approx(0.01, rel=1e-5)
    assert float(rmse(reference + 7, reference)[0]) == pytest.approx(7.0, rel=1e-6)


@settings(max_examples=examples(20), deadline=None)
@given(st.floats(0.1, 100.0), st.integers(0, 2**31 - 1))
def test_units_do_not_matter_when_the_range_goes_along(scale: float, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    x, reference = torch.randn(2, 1, 12, 15, generator=g).double()
    for metric in (psnr, ssim):
        assert float(metric(x * scale, reference * scale, 4 * scale)) == pytest.approx(float(metric(x, reference, 4.0)))


def test_a_batch_is_its_slices_and_data_range_may_differ() -> None:
    x, reference = pair()
    ranges = torch.tensor([100.0, 200.0, 400.0])
    for metric in (psnr, ssim):
        together = metric(x, reference, ranges)
        single = [float(metric(x[i : i + 1], reference[i : i + 1], float(ranges[i]))) for i in range(3)]
        assert together.tolist() == pytest.approx(single, rel=1e-12)


def test_what_is_masked_does_not_count() -> None:
    x, reference = pair()
    mask = torch.zeros_like(x, dtype=torch.bool)
    mask[:, 4:20, 3:30] = True
    broken = torch.where(mask, x, torch.full_like(x, 1e4))
    inner = (slice(None), slice(4, 20), slice(3, 30))
    for metric in (mse, rmse, nmse):
        assert metric(broken, reference, mask).tolist() == pytest.approx(metric(x[inner], reference[inner]).tolist())
    for ranged in (psnr, ssim):
        whole, part = ranged(broken, reference, 500.0, mask), ranged(x[inner], reference[inner], 500.0)
        assert whole.tolist() == pytest.approx(part.tolist())


def test_windows_clip_both_ends() -> None:
    assert {n: (w.low, w.high) for n, w in CT_WINDOWS.items()} == {
        "full": (-1024, 3071),
        "soft": (-160, 240),
        "lung": (-1350, 150),
        "bone": (-450, 1050),
    }
    assert CT_WINDOWS["full"].width == 4095
    assert Window(-160, 240).clip(torch.tensor([-1000.0, 0.0, 3000.0])).tolist() == [-160, 0, 240]


def test_bad_input_is_refused() -> None:
    x, reference = pair()
    with pytest.raises(ValueError, match="one shape"):
        psnr(x[0], reference[0], 1.0)
    with pytest.raises(ValueError, match="one shape"):
        mse(x[:1], reference)
    with pytest.raises(TypeError, match="complex"):
        mse(x.to(torch.complex64), reference)
    with pytest.raises(ValueError, match="data_range"):
        psnr(x, reference, 0.0)
    with pytest.raises(ValueError, match="smaller than the 7x7 window"):
        ssim(x[:, :6], reference[:, :6], 1.0)
    x[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        mse(x, reference)
