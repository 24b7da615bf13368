"""Coil compression: frames, energies, SVD against geometric, and reconstructions from compressed data."""

import pytest
import torch
from coil_phantom import phantom, scan
from torch import Tensor

from medrecon.coils.combine import birdcage_maps, rss
from medrecon.coils.compression import CoilCompression, _aligned, compress, compress_geometric
from medrecon.numerics.linalg import cg
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.sampling.lines import random_mask

pytestmark = pytest.mark.usefixtures("one_thread")
BOTH = pytest.mark.parametrize("method", [compress, compress_geometric])


def redundant(coils: int, inner: int, shape: tuple[int, int]) -> Tensor:
    """Maps (C, H, W) of `coils` elements that are mixtures of `inner` ones: nothing is lost with `inner` coils."""
    g = torch.Generator().manual_seed(5)
    mix = torch.randn(coils, inner, dtype=torch.complex64, generator=g)
    maps = torch.einsum("ij,jhw->ihw", mix, birdcage_maps(inner, shape, g))
    return maps / rss(maps)


def solve(maps: Tensor, mask: Tensor, data: Tensor) -> Tensor:
    A = CartesianMRI(maps, mask)
    return cg(A.gram, A.adjoint(data), ndim=2, iterations=400, tolerance=1e-9).x


@BOTH
def test_rows_are_orthonormal_and_energy_is_counted(method: type) -> None:
    kspace, *_ = scan(8, (40, 31))
    data, found = method(kspace, 3)
    assert data.shape == (3, 40, 31) and data.dtype == kspace.dtype
    eye = found.matrix @ found.matrix.mH
    assert torch.allclose(eye, torch.eye(3).to(eye).expand_as(eye), atol=1e-5)
    energy = data.abs().square().sum((1, 2)) / kspace.abs().square().sum()
    assert torch.allclose(energy.double(), found.energy, rtol=1e-4)
    assert found.retained == pytest.approx(float(energy.sum()), rel=1e-4)
    whole, all_coils = method(kspace, 8)
    assert all_coils.retained == pytest.approx(1)
    assert float(rss(whole).square().sum()) == pytest.approx(float(rss(kspace).square().sum()), rel=1e-5)
    assert torch.allclose(found.covariance(torch.eye(8).to(eye)), torch.eye(3).to(eye), atol=1e-5)


def test_svd_orders_energies_and_no_other_frame_keeps_more(generator: torch.Generator) -> None:
    kspace, *_ = scan(8, (40, 31))
    _, found = compress(kspace, 8)
    assert bool((found.energy.diff() <= 0).all())
    _, four = compress(kspace, 4)
    assert torch.allclose(four.matrix, found.matrix[:4])
    for _ in range(20):
        frame = torch.linalg.qr(torch.randn(8, 4, dtype=torch.complex64, generator=generator)).Q.mH
        kept = CoilCompression(frame, four.energy).kspace(kspace).abs().square().sum() / kspace.abs().square().sum()
        assert float(kept) < four.retained


@pytest.mark.parametrize("coils", [2, 3, 5])
def test_geometric_keeps_more_than_svd(coils: int) -> None:
    kspace, *_ = scan(12, (48, 37), sigma=0.002)
    _, svd = compress(kspace, coils)
    _, geometric = compress_geometric(kspace, coils)
    assert 1 - geometric.retained < 0.8 * (1 - svd.retained)
    _, steady = compress_geometric(kspace, coils, window=5)
    assert svd.retained < steady.retained <= geometric.retained + 1e-9


def test_alignment_makes_virtual_coils_smooth_along_the_readout() -> None:
    kspace, truth, support = scan(8, (64, 48), sigma=0.001)
    _, found = compress_geometric(kspace, 4)
    inner, outer = found.matrix[32:-1], found.matrix[33:]
    # Nearest of all frames of the same space: sum |a - b|^2 = sum 2 (1 - cos of the angle between the spaces).
    cosines = torch.linalg.svdvals(inner @ outer.mH)
    assert torch.allclose((inner - outer).abs().square().sum((1, 2)), 2 * (1 - cosines).sum(1), atol=1e-4)
    hybrid = torch.fft.fftshift(torch.fft.ifft(torch.fft.ifftshift(kspace, dim=-2), dim=-2), dim=-2).movedim(-2, 0)
    plain = torch.linalg.svd(hybrid, full_matrices=False).U[..., :4].mH
    seen = (support.sum(1) > 16)[1:]
    smooth, rough = (m.diff(dim=0).abs().square().sum((1, 2))[seen] for m in (found.matrix, plain))
    assert float(smooth.mean()) < 0.1 * float(rough.mean())
    jumps = found.images(truth).diff(dim=-2).abs().amax(0)[support[1:] & support[:-1]]
    assert float(jumps.quantile(0.99)) < 0.2


@BOTH
def test_compressed_data_and_maps_give_the_same_image(method: type) -> None:
    """Ten coils that are mixtures of five: five virtual ones lose nothing."""
    shape, x = (32, 29), phantom((32, 29)).to(torch.complex128) + 0.5
    maps = redundant(10, 5, shape).to(torch.complex128)
    mask = random_mask(shape, 2, 9, torch.Generator().manual_seed(2))
    data = CartesianMRI(maps, mask)(x)
    few, found = method(data, 5)
    assert found.retained == pytest.approx(1, abs=1e-6)
    assert torch.equal(few != 0, mask.expand_as(few)) or method is compress_geometric
    virtual = found.images(maps)
    assert torch.allclose(CartesianMRI(virtual, mask)(x), few, atol=1e-5)
    full, small = solve(maps, mask, data), solve(virtual, mask, few)
    assert float((full - small).norm() / full.norm()) < 2e-5
    assert float((full - x).norm() / x.norm()) < 0.1
    lossy, two = method(data, 2)
    assert float((solve(two.images(maps), mask, lossy) - full).norm() / full.norm()) > 1e-3


@BOTH
def test_coils_are_counted_by_energy_and_batches_share_one_matrix(method: type) -> None:
    kspace = torch.stack([scan(8, (32, 30), seed=s)[0] for s in (3, 4)])
    data, found = method(kspace, energy=0.95)
    count = data.shape[1]
    assert found.retained >= 0.95 - 1e-9 and 1 < count < 8
    assert method(kspace, count - 1)[1].retained < 0.95
    assert torch.allclose(found.kspace(kspace[1]), data[1], atol=1e-5)
    assert found.matrix.shape[-2:] == (count, 8)


def test_noise_covariance_follows_the_coils(generator: torch.Generator) -> None:
    kspace, *_ = scan(6, (24, 20))
    _, found = compress_geometric(kspace, 3)
    root = torch.randn(6, 6, dtype=torch.complex64, generator=generator)
    white = torch.randn(4000, 6, 24, 1, dtype=torch.complex64, generator=generator)
    noise = found.images(torch.einsum("ij,njhw->nihw", root, white))[..., 0]
    measured = torch.einsum("nih,njh->hij", noise, noise.conj()) / 4000
    exact = found.covariance(root @ root.mH)
    assert exact.shape == (24, 3, 3)
    assert float((measured - exact).abs().max() / exact.abs().max()) < 0.15


def test_bad_input(generator: torch.Generator) -> None:
    kspace, *_ = scan(4, (20, 22))
    for bad, coils, message in (
        (kspace.real, 2, "complex"),
        (kspace[0], 2, "complex"),
        (kspace, 0, "between 1 and 4"),
        (kspace, 5, "between 1 and 4"),
        (kspace * torch.nan, 2, "NaN"),
        (kspace * 0, 2, "no signal"),
    ):
        for method in (compress, compress_geometric):
            with pytest.raises(ValueError, match=message):
                method(bad, coils)
    with pytest.raises(ValueError, match="energy"):
        compress(kspace, energy=1.5)
    with pytest.raises(ValueError, match="odd"):
        compress_geometric(kspace, 2, window=2)
    mask = torch.rand(20, 22, generator=generator) < 0.5
    with pytest.raises(ValueError, match="readout"):
        compress_geometric(kspace * mask, 2)
    _, found = compress_geometric(kspace, 2)
    with pytest.raises(ValueError, match="20 rows"):
        found.images(kspace[:, 1:])
    with pytest.raises(ValueError, match="4 coils"):
        found.images(kspace[:3])


def test_frames_turn_no_more_than_they_have_to() -> None:
    """One subspace seen through unitary matrices of each place: aligned, all frames are that of the middle."""
    q, _ = torch.linalg.qr(torch.randn(9, 3, 3, dtype=torch.complex128, generator=torch.Generator().manual_seed(2)))
    frame = torch.linalg.qr(torch.randn(6, 3, dtype=torch.complex128, generator=torch.Generator().manual_seed(3)))[0].mH
    aligned = _aligned(q @ frame)
    torch.testing.assert_close(aligned, (q[4] @ frame).expand_as(aligned))
