"""Centred Fourier transforms: SigPy's, inverse of each other, unitary, along any axes; cropping about n // 2."""

import pytest
import sigpy
import torch

from medrecon.numerics.fourier import centred_fft, centred_ifft, crop_or_pad

SHAPES = [(6, 5), (7, 8), (1, 4), (9, 3)]
AXES = [(-2, -1), (0,), (-1,), (0, 1, 2)]


def gaussian(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("shape", SHAPES)
def test_transforms_are_sigpys_and_invert_each_other(shape: tuple[int, int], axes: tuple[int, ...]) -> None:
    x = gaussian((3, *shape))
    for ours, theirs, inverse in ((centred_fft, sigpy.fft, centred_ifft), (centred_ifft, sigpy.ifft, centred_fft)):
        y = ours(x, axes)
        torch.testing.assert_close(y, torch.from_numpy(theirs(x.numpy(), axes=axes)), rtol=0, atol=1e-13)
        torch.testing.assert_close(inverse(y, axes), x, rtol=0, atol=1e-13)
        torch.testing.assert_close(y.norm(), x.norm(), rtol=1e-13, atol=0)
        if len(axes) == 1:
            assert torch.equal(ours(x, axes[0]), y)
    assert torch.equal(centred_fft(x), centred_fft(x, (-2, -1)))


@pytest.mark.parametrize("n", [6, 7])
def test_a_point_at_the_centre_is_flat_and_a_constant_is_zero_frequency(n: int) -> None:
    point = torch.zeros(n, dtype=torch.float64)
    point[n // 2] = 1
    flat = torch.full((n,), n**-0.5, dtype=torch.complex128)
    torch.testing.assert_close(centred_fft(point, 0), flat)
    torch.testing.assert_close(centred_fft(flat, 0), point.to(torch.complex128))


@pytest.mark.parametrize("target", [(6, 5), (5, 6), (9, 8), (3, 11), (1, 1)])
@pytest.mark.parametrize("shape", SHAPES)
def test_crop_or_pad_is_sigpys_resize(shape: tuple[int, int], target: tuple[int, int]) -> None:
    x = gaussian((2, *shape))
    result = crop_or_pad(x, target)
    assert torch.equal(result, torch.from_numpy(sigpy.resize(x.numpy(), (2, *target))))
    wide = tuple(max(n, m) for n, m in zip(shape, target, strict=True))
    assert torch.equal(crop_or_pad(crop_or_pad(x, wide), shape), x)
    assert torch.equal(crop_or_pad(x, target[-1:])[0], crop_or_pad(x[0], target[-1:]))
