"""Coil maps: birdcage, Walsh and JSENSE against the truth; combination, smooth phase."""

import numpy as np
import pytest
import torch
from coil_phantom import overlap, phantom, scan
from torch import Tensor

from medrecon.coils.combine import acs_images, birdcage_maps, combine, rss, smooth_phase
from medrecon.coils.maps.espirit import espirit
from medrecon.coils.maps.jsense import jsense_maps
from medrecon.coils.maps.walsh import walsh_maps
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.sampling.lines import centre, random_mask

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("shape", [(16, 16), (15, 22)])
@pytest.mark.parametrize("coils", [1, 6])
def test_birdcage_maps_are_normalised_smooth_and_seeded(coils: int, shape: tuple[int, int]) -> None:
    first, again, other = (birdcage_maps(coils, shape, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert first.shape == (coils, *shape)
    assert float((first.abs().square().sum(0) - 1).abs().max()) < 1e-5
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(first.diff(dim=-1).abs().max()) < 0.5


def coil_images(kspace: Tensor) -> Tensor:
    """Inverse FFT, by numpy."""
    axes = (-2, -1)
    ordered = np.fft.ifft2(np.fft.ifftshift(kspace.numpy(), axes=axes), norm="ortho")
    return torch.from_numpy(np.fft.fftshift(ordered, axes=axes)).to(torch.complex64)


def test_combinations_of_coil_images() -> None:
    maps, x = birdcage_maps(5, (20, 17), torch.Generator().manual_seed(0)), phantom((20, 17))
    assert torch.allclose(combine(maps * x, maps), x, atol=1e-5)
    assert torch.allclose(combine(maps * x, 3 * maps), x / 3, atol=1e-5)
    assert torch.allclose(rss(maps * x), x.abs(), atol=1e-5)
    # The least-squares image: a pseudo-inverse at each pixel; no maps, no image.
    data = torch.randn(2, 5, 20, 17, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    image = combine(data, maps * (x != 0))
    assert image.shape == (2, 20, 17) and not bool(image[:, x == 0].any())
    row, column = 8, 9
    solved = torch.linalg.lstsq(maps[:, row, column, None], data[1, :, row, column, None]).solution
    assert torch.allclose(image[1, row, column], solved[0, 0], atol=1e-5)
    with pytest.raises(ValueError, match="do not fit"):
        combine(data, maps[:4])


@pytest.mark.parametrize("shape", [(64, 64), (51, 66)])
def test_walsh_maps_are_the_true_ones(shape: tuple[int, int]) -> None:
    kspace, truth, support = scan(6, shape, sigma=0.005)
    maps = walsh_maps(coil_images(kspace), threshold=0.1)
    assert bool((maps.abs().sum(0) > 0)[support].all()) and not bool(maps[:, :4, :4].any())
    assert float(overlap(maps, truth)[support].median()) > 0.9999
    assert float(overlap(maps, truth)[support].quantile(0.02)) > 0.99
    assert float((maps.abs().square().sum(0)[support] - 1).abs().max()) < 1e-4
    assert float(maps[0].imag.abs().max()) < 1e-6
    reference = truth * torch.sgn(truth[:1]).conj()
    assert float((maps - reference).abs().amax(0)[support].median()) < 0.02
    # More noise is averaged away by a larger window.
    noisy = coil_images(scan(6, shape, sigma=0.15)[0])
    small, large = (float(overlap(walsh_maps(noisy, window=w), truth)[support].median()) for w in (1, 7))
    assert 1 - large < 0.2 * (1 - small)


def test_walsh_maps_of_undersampled_data_batches_tiles_and_scale() -> None:
    kspace, truth, support = scan(6, (48, 40), sigma=0.005)
    low = acs_images(kspace * random_mask((48, 40), 2, 16, torch.Generator().manual_seed(0)))
    maps = walsh_maps(low)
    assert float(overlap(maps, truth)[support].median()) > 0.999
    assert torch.allclose(walsh_maps(low, tile=5), maps, atol=1e-4)
    assert torch.allclose(walsh_maps(1e-12 * low), maps, atol=1e-4)
    assert torch.equal(walsh_maps(torch.stack([low, low.flip(0)]))[0], maps)


def test_acs_images_of_the_middle_sample_alone_are_flat() -> None:
    """One sample is a centre too: its image has the same value everywhere; without it there is none."""
    kspace = torch.zeros(2, 6, 8, dtype=torch.complex64)
    kspace[:, 3, 4] = torch.tensor([3.0, 2.0j])
    flat = torch.tensor([3.0, 2.0j])[:, None, None].expand(2, 6, 8) / 48**0.5
    torch.testing.assert_close(acs_images(kspace), flat)
    torch.testing.assert_close(acs_images(torch.ones_like(kspace), width=1), torch.full_like(kspace, 48**-0.5))
    with pytest.raises(ValueError, match="zero frequency was not acquired"):
        acs_images(kspace.roll(1, -1))


def test_walsh_maps_of_bad_images() -> None:
    images = torch.ones(3, 8, 8, dtype=torch.complex64)
    for bad, message in (
        (images.real, "complex"),
        (images[0], "complex"),
        (images * torch.nan, "NaN"),
        (images * 0, "no signal"),
    ):
        with pytest.raises(ValueError, match=message):
            walsh_maps(bad)
    with pytest.raises(ValueError, match="odd"):
        walsh_maps(images, window=4)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_jsense_maps_need_no_full_centre() -> None:
    kspace, truth, support = scan(6, (48, 48), sigma=0.005)
    sparse = torch.zeros(48, 48)
    sparse[:, ::2] = 1
    sparse[:, centre(48, 6)] = 1
    with pytest.raises(ValueError, match="ACS"):
        espirit(kspace * sparse)
    with pytest.raises(ValueError, match="diverged"):
        jsense_maps(kspace * sparse, weight=0, kernel=8)
    maps = jsense_maps(torch.stack([kspace * sparse, kspace]), kernel=8)
    assert maps.shape == (2, 6, 48, 48) and maps.dtype == torch.complex64
    for found in maps:
        assert float(overlap(found, truth)[support].median()) > 0.999
        assert float((found.abs().square().sum(0) - 1).abs().max()) < 1e-4
        assert float(found[0].imag.abs().max()) < 1e-6
    assert float(overlap(maps[1], truth.roll(6, -1))[support].median()) < 0.99


def test_jsense_of_bad_kspace() -> None:
    kspace, *_ = scan(2, (24, 24))
    for bad, message in (
        (kspace.real, "complex"),
        (kspace[0], "complex"),
        (kspace * torch.nan, "NaN"),
        (kspace * 0, "no samples"),
    ):
        with pytest.raises(ValueError, match=message):
            jsense_maps(bad)


def test_smooth_phase_is_that_of_the_object(generator: torch.Generator) -> None:
    maps, x = birdcage_maps(4, (64, 64), generator), phantom((64, 64))
    kspace = CartesianMRI(maps, random_mask((64, 64), 3, 16, generator))(x)
    phase = smooth_phase(kspace, maps)
    assert float((phase.abs() - 1).abs().max()) < 1e-5
    inside = x.abs() > 0.3
    assert float((phase * x.conj() / x.abs().clamp_min(1e-6))[inside].angle().abs().median()) < 0.05
    assert torch.equal(smooth_phase(torch.stack([kspace, 2j * kspace]), maps)[0], phase)
    assert bool((smooth_phase(kspace * 0, maps, width=8) == 1).all())
    with pytest.raises(ValueError, match="zero frequency"):
        smooth_phase(kspace * 0, maps)
