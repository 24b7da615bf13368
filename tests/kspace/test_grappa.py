"""GRAPPA: exact where k-space obeys a kernel, for every kind of mask; quality; what was acquired is kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kspace_phantoms import exact_kspace, relative, scan
from torch import Tensor

from medrecon.coils.maps.espirit import espirit
from medrecon.core.measurement import Measurement
from medrecon.kspace.calibration import Calibration
from medrecon.kspace.grappa import KSpaceInterpolation
from medrecon.operators.algebra import Diagonal
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.sampling.lines import equispaced_mask, random_mask
from medrecon.solvers.mri.cg_sense import CGSense
from medrecon.solvers.mri.grappa import GRAPPA
from medrecon.solvers.mri.spirit import SPIRiT
from medrecon.solvers.mri.zero_filled import ZeroFilled

pytestmark = pytest.mark.usefixtures("one_thread")


def lines(shape: tuple[int, int] = (48, 49)) -> Tensor:
    """R = 2 with both outer columns, and an ACS."""
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[:, ::2] = True
    mask[:, 16:33] = True
    return mask


def scattered(shape: tuple[int, int] = (48, 49)) -> Tensor:
    """Two thirds of the samples, the border, and an ACS."""
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.67
    mask[12:36, 12:36] = True
    mask[:3] = mask[-3:] = mask[:, :3] = mask[:, -3:] = True
    return mask


def solve(solver: Any, A: CartesianMRI, y: Measurement) -> Tensor:
    image: Tensor = solver(A, y, generator=torch.Generator().manual_seed(0)).image[0]
    return image


@pytest.mark.parametrize("mask", [lines(), lines().T[:, :48].contiguous(), scattered()], ids=["columns", "rows", "2D"])
def test_exact_where_a_kernel_exists(mask: Tensor) -> None:
    k = exact_kspace(shape=(mask.shape[0], mask.shape[1]))
    fill = KSpaceInterpolation(lines=4, tikhonov=0.0, neighbours=16)
    filled = fill(torch.where(mask, k, 0), mask)
    missing = ~mask
    # Readout ends see half a kernel: there the samples are not determined.
    missing[:3] = missing[-3:] = False
    missing[:, :3] = missing[:, -3:] = False
    assert int(missing.sum()) > 200
    assert relative(filled[:, missing], k[:, missing]) < 1e-5
    assert torch.equal(filled[:, mask], k[:, mask])
    # Negative control: weights of sources one sample further.
    shifted = fill(torch.where(mask, k, 0).roll(1, -2), mask)
    assert relative(shifted[:, missing], k[:, missing]) > 0.5


def test_calibration_is_the_gram_of_all_patches() -> None:
    acs = torch.randn(2, 9, 7, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    found = Calibration(acs, 3).gram([-1, 0, 2])
    places = [(r, c) for r in range(7) for c in range(1, 5)]
    rows = [acs[:, r : r + 3][:, :, [c - 1, c, c + 2]].permute(2, 1, 0).flatten() for r, c in places]
    weights = [acs[:, r : r + 3].abs().square().mean() ** -0.25 for r, _ in places]
    patches = torch.stack([row * w for row, w in zip(rows, weights, strict=True)])
    assert relative(found, patches.mH @ patches) < 1e-12


@pytest.mark.parametrize(("make", "limit", "ratio"), [(equispaced_mask, 0.4, 1.1), (random_mask, 0.8, 1.8)])
def test_quality(make: Callable[..., Tensor], limit: float, ratio: float) -> None:
    """Against the fully sampled image, R = 2, data from a finer grid; uneven lines suit kernels less."""
    mask = make((96, 96), 2, 20, torch.Generator().manual_seed(0))
    A, y, truth = scan(mask)
    zero, grappa, spirit, sense = (
        relative(solve(s, A, y), truth) for s in (ZeroFilled(), GRAPPA(), SPIRiT(), CGSense())
    )
    assert grappa < limit * zero
    assert spirit < 0.7 * zero
    assert grappa < ratio * sense


def test_noise_is_weighed_against_the_signal() -> None:
    mask = equispaced_mask((96, 96), 3, 20, torch.Generator().manual_seed(0))
    A, y, truth = scan(mask, sigma=0.1)
    wiener, plain = (relative(solve(GRAPPA(noise=n), A, y), truth) for n in (1.0, 0.0))
    assert wiener < 0.9 * plain


def test_errors_are_clear() -> None:
    mask = lines()
    mask[:, 24] = False
    with pytest.raises(ValueError, match="zero frequency"):
        KSpaceInterpolation()(exact_kspace(), mask)
    thin = torch.zeros(48, 49, dtype=torch.bool)
    thin[23:26, 23:26] = thin[::3, ::5] = True
    with pytest.raises(ValueError, match="does not fit in an ACS"):
        KSpaceInterpolation(window=7)(exact_kspace(), thin)
    for wrong in ({"window": 4}, {"readout": 2}, {"lines": 0}, {"neighbours": 0}, {"readout": -1}, {"tikhonov": -1e-9}):
        with pytest.raises(ValueError, match="odd"):
            KSpaceInterpolation(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="odd"):
        GRAPPA(window=4)
    data = torch.ones(1, 4, 4, dtype=torch.complex64)
    with pytest.raises(ValueError, match="CartesianMRI"):
        GRAPPA()(Diagonal(data[0]), Measurement(data, data.abs()), generator=torch.Generator())
    whole = torch.ones_like(mask)
    assert torch.equal(KSpaceInterpolation()(exact_kspace(), whole), exact_kspace())


def test_real_brain(corpus: Path) -> None:
    """12.4 % of a Poisson-like mask: less energy outside of the head than zero-filled, and the image of CG-SENSE."""
    samples = np.load(corpus / "raw" / "raw_mri_brain8ch" / "cartesian_ksp.npy").astype(np.complex64)
    k = torch.from_numpy(samples)[None]
    k = k / k.abs().max()
    mask = (k.abs().sum(1) > 0)[0]
    # Maps without support: background is background, not zero because the maps are.
    A = CartesianMRI(espirit(k, acs=24, crop=0.0), mask)
    far = k[..., :40, :][..., mask[:40]].abs().median()
    y = Measurement(k, (mask / far**2).float().expand(1, *A.out_shape))
    head = espirit(k, acs=24)[0].abs().sum(0) > 0
    zero, sense, grappa, spirit = (solve(s, A, y).abs() for s in (ZeroFilled(), CGSense(), GRAPPA(), SPIRiT()))
    outside = [float(x[~head].square().sum() / x.square().sum()) for x in (zero, sense, grappa, spirit)]
    likeness = [float(torch.corrcoef(torch.stack([x[head], sense[head]]))[0, 1]) for x in (zero, grappa, spirit)]
    assert max(outside[2:]) < 0.7 * outside[0], outside
    assert min(likeness[1:]) > max(0.9, likeness[0]), likeness
