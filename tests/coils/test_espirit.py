"""ESPIRiT: SigPy's maps and eigenvalues, the definition by dense SVD, the truth, BART's subspace, real k-space."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from bart_tool import bart, from_bart, to_bart
from coil_phantom import overlap, scan
from torch import Tensor

from medrecon.coils.maps.espirit import espirit, espirit_eigenvalues
from medrecon.numerics.dominant import dominant_eigenvector
from medrecon.sampling.lines import centre, random_mask

pytestmark = pytest.mark.usefixtures("one_thread")


def sigpy_espirit(kspace: Tensor, width: int, kernel: int = 6, threshold: float = 0.02) -> tuple[Tensor, Tensor]:
    """SigPy's maps without a crop, and eigenvalues."""
    import sigpy.mri.app

    maps, values = sigpy.mri.app.EspiritCalib(
        kspace.numpy(),
        calib_width=width,
        thresh=threshold,
        kernel_width=kernel,
        crop=0,
        show_pbar=False,
        output_eigenvalue=True,
    ).run()
    return torch.from_numpy(maps), torch.from_numpy(values)[0]


def dense_espirit(kspace: Tensor, region: tuple[int, int], kernel: int) -> tuple[Tensor, Tensor]:
    """The definition: SVD of all blocks, an image of each kernel, eigh of each pixel; threshold 0.02."""
    coils, height, width = kspace.shape
    data = kspace.to(torch.complex128)[:, centre(height, region[0]), centre(width, region[1])]
    blocks = [
        data[:, r : r + kernel, c : c + kernel].flatten()
        for r in range(region[0] - kernel + 1)
        for c in range(region[1] - kernel + 1)
    ]
    _, s, vh = torch.linalg.svd(torch.stack(blocks), full_matrices=False)
    padded = torch.zeros(int((s > 0.02 * s[0]).sum()), coils, height, width, dtype=torch.complex128)
    padded[..., centre(height, kernel), centre(width, kernel)] = vh[s > 0.02 * s[0]].reshape(-1, coils, kernel, kernel)
    axes = (-2, -1)
    images = torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(padded, dim=axes)), dim=axes) * (height * width)
    values, vectors = torch.linalg.eigh(torch.einsum("kihw,kjhw->hwij", images, images.conj()) / kernel**2)
    maps = vectors[..., -1].permute(2, 0, 1)
    return maps * torch.sgn(maps[:1]).conj(), values[..., -1]


@pytest.mark.parametrize(("coils", "shape"), [(1, (48, 48)), (6, (80, 80)), (5, (63, 82)), (12, (64, 51))])
def test_equals_sigpy(coils: int, shape: tuple[int, int]) -> None:
    kspace, _, support = scan(coils, shape)
    theirs, values = sigpy_espirit(kspace, 24)
    maps, ours = espirit_eigenvalues(kspace)
    seen = values > 0.95
    assert float(overlap(maps, theirs)[seen].median()) > 1 - 1e-6
    # SigPy's 100 iterations from a fixed start are not enough where two eigenvalues are near each other.
    assert float((ours - values).abs().median()) < 1e-6
    assert float((values - ours).max()) < 1e-5
    assert float((ours - values).max()) < 0.02
    assert int(((ours > 0.95) != seen).sum()) <= 3
    settled = seen & (overlap(maps, theirs) > 1 - 1e-5)
    assert float(settled.sum() / seen.sum()) > 0.99
    assert float((maps - theirs).abs().amax(0)[settled].max()) < 0.01
    assert float((maps - theirs).abs().amax(0)[seen].median()) < 1e-6
    assert float((seen & support).sum() / support.sum()) > 0.95


@pytest.mark.parametrize(("shape", "lines", "kernel"), [((48, 40), 14, 6), ((41, 37), 9, 5), ((30, 44), 11, 4)])
def test_a_narrow_region_equals_the_definition(shape: tuple[int, int], lines: int, kernel: int) -> None:
    """Few phase-encoding lines, the whole readout: 24 rows of it are used."""
    kspace, *_ = scan(5, shape)
    mask = torch.zeros(shape)
    mask[:, centre(shape[1], lines)] = 1
    maps, values = espirit_eigenvalues(kspace * mask, kernel=kernel)
    truth, exact = dense_espirit(kspace, (24, lines), kernel)
    assert float((values - exact).abs().max()) < 2e-6
    assert float(overlap(maps, truth.to(maps.dtype))[exact > 0.9].min()) > 1 - 1e-5
    assert float((maps - truth).abs().amax(0)[exact > 0.9].median()) < 1e-5
    assert torch.equal(maps, espirit_eigenvalues(kspace, (24, lines), kernel=kernel)[0])
    assert not torch.allclose(maps, espirit_eigenvalues(kspace, lines, kernel=kernel)[0], atol=1e-4)


def test_finds_the_true_maps() -> None:
    kspace, truth, object_ = scan(6, (64, 64))
    mask = random_mask((64, 64), 2, 20, torch.Generator().manual_seed(1))
    found = espirit(kspace * mask)
    support = object_ & (found.abs().sum(0) > 0)
    assert float(overlap(found, truth)[support].median()) > 0.999
    assert float(overlap(found, truth)[support].quantile(0.05)) > 0.98
    assert float(support.sum() / object_.sum()) > 0.95
    assert float((found.abs().square().sum(0)[support] - 1).abs().max()) < 1e-4
    assert float(found[0].imag.abs().max()) < 1e-6 and float(found[0].real.min()) > -1e-6
    for wrong in (truth.roll(1, 0), truth.conj(), truth.roll(5, -1)):  # coils in another order, conjugate, elsewhere
        assert float(overlap(found, wrong)[support].median()) < 0.998


def test_a_batch_is_its_slices_and_any_scale_gives_the_same() -> None:
    kspace = torch.stack([scan(4, (40, 36), seed=s)[0] for s in (1, 2)])
    batch = espirit(kspace)
    assert batch.shape == kspace.shape and batch.dtype == torch.complex64
    assert torch.equal(batch[1], espirit(kspace[1]))
    assert torch.allclose(espirit(1e-7 * kspace[0]), batch[0], atol=1e-4)
    assert torch.allclose(espirit(kspace[0].mT.contiguous()).mT, batch[0], atol=1e-4)
    assert torch.equal(espirit(kspace[0].to(torch.complex128)), batch[0])
    assert torch.equal(espirit(kspace[0].conj().resolve_conj().conj()), batch[0])


@pytest.mark.parametrize("tile", [1, 7, 40])
def test_tiles_do_not_change_the_result(tile: int) -> None:
    kspace, *_ = scan(7, (40, 33))
    maps, values = espirit_eigenvalues(kspace)
    tiled, again = espirit_eigenvalues(kspace, tile=tile)
    assert torch.allclose(again, values, atol=2e-6)
    clear = values > 0.9
    assert float((tiled - maps).abs().amax(0)[clear].max()) < 1e-4
    assert float((tiled - maps).abs().median()) < 1e-6


def test_crops() -> None:
    kspace, *_ = scan(6, (48, 48))
    maps, values = espirit_eigenvalues(kspace)
    hard, soft = espirit(kspace, crop=0.9), espirit(kspace, crop=0.9, soft=True)
    assert torch.equal(hard, maps * (values > 0.9))
    assert torch.equal(soft[:, values > 0.9], maps[:, values > 0.9])
    assert not bool(soft[:, values < 0.8].any())
    size = soft.abs().square().sum(0).sqrt()
    margin = (values > 0.8) & (values < 0.9)
    assert bool(margin.any()) and bool(((size > 0) & (size < 1))[margin].all())
    order = values[margin].argsort()
    assert bool((size[margin][order].diff() >= -1e-5).all())


def test_dominant_eigenvectors_are_those_of_eigh(generator: torch.Generator) -> None:
    root = torch.randn(300, 9, 9, dtype=torch.complex128, generator=generator)
    matrices = (root @ torch.diag(1.3 ** -torch.arange(9.0)).to(root)).square()
    matrices = matrices @ matrices.mH
    values, vectors = torch.linalg.eigh(matrices)
    found, largest = dominant_eigenvector(matrices.to(torch.complex64))
    assert torch.allclose(largest.double(), values[:, -1], rtol=1e-5)
    clear = values[:, -2] < 0.9 * values[:, -1]
    assert int(clear.sum()) > 200
    assert float((found.conj() * vectors[..., -1]).sum(1).abs()[clear].min()) > 1 - 1e-6
    tie, value = dominant_eigenvector(torch.eye(3, dtype=torch.complex64)[None])
    assert math.isclose(float(value), 1, rel_tol=1e-6) and math.isclose(float(tie.norm()), 1, rel_tol=1e-6)
    zero, none = dominant_eigenvector(torch.zeros(2, 3, 3, dtype=torch.complex64))
    assert not bool(zero.any()) and not bool(none.any())


def test_bad_input_names_the_remedy(generator: torch.Generator) -> None:
    kspace = torch.randn(4, 32, 32, dtype=torch.complex64, generator=generator)
    with pytest.raises(ValueError, match=r"ACS.*found 24 x 4"):
        espirit(kspace * random_mask((32, 32), 8, 4, generator), acs=(32, 8))
    with pytest.raises(ValueError, match="ACS"):
        espirit(kspace * random_mask((32, 32), 8, 4, generator))
    with pytest.raises(ValueError, match=r"ACS.*40 x 40"):
        espirit(kspace, acs=40)
    with pytest.raises(ValueError, match=r"ACS.*found 0 x 0"):
        espirit(torch.zeros_like(kspace))
    with pytest.raises(ValueError, match="NaN"):
        espirit(kspace * float("nan"))
    with pytest.raises(ValueError, match="complex"):
        espirit(kspace.real)
    with pytest.raises(ValueError, match="complex"):
        espirit(kspace[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_same() -> None:
    kspace, *_ = scan(8, (80, 66))
    maps, values = espirit_eigenvalues(kspace)
    there, again = espirit_eigenvalues(kspace.cuda())
    assert float((again.cpu() - values).abs().max()) < 1e-5
    assert float((there.cpu() - maps).abs().amax(0)[values > 0.95].max()) < 1e-4


@pytest.mark.parametrize("coils", [8, 16])
def test_same_subspace_as_bart_on_a_phantom(coils: int) -> None:
    kspace, truth, support = scan(coils, (96, 96))
    (theirs,), _ = bart(["ecalib", "-m", "1", "-k", "6", "-r", "24", "-t", "0.02", "-c", "0.95"], to_bart(kspace))
    ours, theirs = espirit(kspace), from_bart(theirs)
    agreement(ours, theirs)
    # BART interpolates coarse maps: ours are nearer to the truth.
    both = (overlap(ours, theirs) > 0) & support
    assert float(1 - overlap(ours, truth)[both].median()) < 0.2 * float(1 - overlap(theirs, truth)[both].median())


def test_same_subspace_as_bart_on_a_real_brain(corpus: Path) -> None:
    kspace = torch.from_numpy(np.load(corpus / "raw" / "raw_mri_brain8ch" / "cartesian_ksp.npy"))
    (theirs,), _ = bart(["ecalib", "-m", "1", "-k", "6", "-r", "24", "-t", "0.02", "-c", "0.95"], to_bart(kspace))
    ours = espirit(kspace)
    agreement(ours, from_bart(theirs))
    reference, values = sigpy_espirit(kspace, 24)
    assert float(overlap(ours, reference)[values > 0.95].median()) > 1 - 1e-6


def agreement(ours: Tensor, theirs: Tensor) -> None:
    """Median overlap where both have maps, over a common support of some size; 4 pixels aside it is less."""
    both = overlap(ours, theirs)
    assert float((both > 0).float().mean()) > 0.4
    assert float(both[both > 0].median()) > 0.9997
    shifted = overlap(ours, theirs.roll(4, -1))
    assert float(shifted[shifted > 0].median()) < 0.999
