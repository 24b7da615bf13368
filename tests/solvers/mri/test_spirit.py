"""SPIRiT: the kernel against a dense regression, k-space it must leave alone, and what it fills in."""

import pytest
import torch
from kspace_phantoms import exact_kspace, relative, scan

from medrecon.operators.mri.self_consistency import SelfConsistency, self_consistency, spirit_kernel
from medrecon.sampling.lines import equispaced_mask
from medrecon.solvers.mri.cg_sense import CGSense
from medrecon.solvers.mri.spirit import SPIRiT

pytestmark = pytest.mark.usefixtures("one_thread")


def test_kernel_leaves_consistent_kspace_alone() -> None:
    k = exact_kspace()
    kernel = spirit_kernel(k, 5, 0.0)
    coils = torch.arange(8)
    assert float(kernel[coils, coils, 2, 2].abs().max()) == 0
    inside = (slice(None), slice(3, -3), slice(3, -3))  # the convolution is periodic, this k-space is not
    change = SelfConsistency(kernel, (48, 49))(k)
    assert float(change[inside].norm() / k[inside].norm()) < 1e-5
    wrong = SelfConsistency(kernel.roll(1, -1), (48, 49))(k)
    assert float(wrong[inside].norm() / k[inside].norm()) > 0.5
    assert float(SelfConsistency(kernel, (48, 49))(exact_kspace(seed=1))[inside].norm() / k[inside].norm()) > 0.1


def test_operator_is_the_convolution() -> None:
    g = torch.Generator().manual_seed(0)
    kernel = torch.randn(2, 2, 3, 3, dtype=torch.complex64, generator=g)
    k = torch.randn(2, 6, 7, dtype=torch.complex64, generator=g)
    expected = -k
    for i in range(3):
        for j in range(3):
            expected = expected + torch.einsum("ab,bhw->ahw", kernel[:, :, i, j], k.roll((1 - i, 1 - j), (1, 2)))
    assert relative(SelfConsistency(kernel, (6, 7))(k), expected) < 1e-5


def test_acquired_samples_are_kept_and_methods_agree() -> None:
    mask = equispaced_mask((96, 96), 2, 20, torch.Generator().manual_seed(0))
    A, y, truth = scan(mask)
    hard = SPIRiT(consistency=0.0)._solve(y.data[0], mask).x
    assert torch.equal(hard[:, mask], y.data[0][:, mask])
    assert float(hard[:, ~mask].abs().sum()) > 0
    spirit, sense = (s(A, y, generator=torch.Generator()).image[0] for s in (SPIRiT(iterations=60), CGSense()))
    assert relative(spirit, sense) < 0.03


def test_errors_are_clear() -> None:
    mask = torch.ones(48, 49, dtype=torch.bool)
    mask[24, 24] = False
    with pytest.raises(ValueError, match="zero frequency"):
        self_consistency(exact_kspace(), mask)
    with pytest.raises(ValueError, match="odd"):
        spirit_kernel(exact_kspace(), 4)
    with pytest.raises(ValueError, match="does not fit"):
        spirit_kernel(exact_kspace()[:, :4, :4])
    with pytest.raises(ValueError, match="expected complex"):
        SelfConsistency(torch.ones(2, 2, 3, 3), (4, 4))
    with pytest.raises(ValueError, match="odd kernel"):
        SPIRiT(kernel=4)
