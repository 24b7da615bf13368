"""NLINV: true maps and images of a phantom, real k-space beside ESPIRiT and BART, units, batches, bad input."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from medrecon.coils.combine import birdcage_maps
from medrecon.coils.maps.espirit import espirit
from medrecon.coils.maps.nlinv import JointModel, SmoothMaps, nlinv, nlinv_maps, normalised
from medrecon.core.measurement import Measurement
from medrecon.numerics.linalg import dot
from medrecon.operators.algebra import Diagonal
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.sampling.lines import centre, random_mask
from medrecon.solvers.mri.cg_sense import CGSense
from medrecon.solvers.mri.nlinv import NLINV

pytestmark = pytest.mark.usefixtures("one_thread")


def phantom(shape: tuple[int, int]) -> Tensor:
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij")
    disc = (x**2 + y**2 < 0.7) + 0.5 * ((x - 0.3) ** 2 + y**2 < 0.05) - 0.4 * (x**2 + (y + 0.4) ** 2 < 0.04)
    return torch.polar(disc, 0.8 * x + 0.5 * y)


def scan(shape: tuple[int, int], accel: float, acs: int, sigma: float = 0.005) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """k-space of six coils, mask, true maps and image."""
    g = torch.Generator().manual_seed(0)
    maps, x, mask = birdcage_maps(6, shape, g), phantom(shape), random_mask(shape, accel, acs, g)
    noise = torch.randn((6, *shape), dtype=torch.complex64, generator=g)
    return (CartesianMRI(maps, mask)(x) + sigma * noise) * mask, mask, maps, x


def overlap(a: Tensor, b: Tensor, support: Tensor) -> Tensor:
    """|<a, b>| / (|a| |b|) over the coils, in the support."""
    size = a.abs().square().sum(0).sqrt() * b.abs().square().sum(0).sqrt()
    return ((a.conj() * b).sum(0).abs() / size.clamp_min(1e-20))[support]


def error(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


@pytest.mark.parametrize("shape", [(64, 64), (63, 78)])
def test_full_sampling_gives_the_coil_images_and_maps(shape: tuple[int, int]) -> None:
    kspace, _, maps, x = scan(shape, 1, 0)
    support = x.abs() > 0.1
    image, found = nlinv(kspace, steps=12)
    assert error((found * image)[:, support], (maps * x)[:, support]) < 0.02
    assert float(overlap(found, maps, support).quantile(0.05)) > 0.9995
    assert float(overlap(found, maps.flip(0), support).median()) < 0.9
    assert error(image.abs()[support], x.abs()[support]) < 0.02


def test_without_an_acs_the_maps_are_found() -> None:
    kspace, mask, maps, x = scan((96, 96), 3, 4)
    with pytest.raises(ValueError, match="ACS"):
        espirit(kspace)
    support = x.abs() > 0.1
    found = nlinv_maps(kspace)
    assert float(overlap(found, maps, support).median()) > 0.9993
    assert float(overlap(found, maps, support).quantile(0.05)) > 0.996
    # Good enough for SENSE: near the image from the true maps.
    y = Measurement(kspace[None], (mask / 0.005**2).expand(1, *kspace.shape))
    own, true = (
        s * CGSense(iterations=40)(CartesianMRI(s, mask), y, generator=torch.Generator()).image for s in (found, maps)
    )
    reference = (maps * x)[:, support]
    assert error(own[:, support], reference) < 0.2
    assert error(true[:, support], reference) < error(own[:, support], reference)
    assert error((maps * nlinv(kspace, steps=1)[0])[:, support], reference) > 0.4


def test_maps_are_normalised_and_relative_to_the_first_coil() -> None:
    kspace, _, _, _ = scan((48, 40), 2, 8)
    image, maps = nlinv(kspace)
    assert float((maps.abs().square().sum(0) - 1).abs().max()) < 1e-4
    assert float(maps[0].imag.abs().max()) < 1e-5
    assert float(maps[0].real.min()) >= 0
    again = normalised(3j * image, maps / 3j)
    assert error(again[0], image) < 1e-5
    assert error(again[1], maps) < 1e-5


def test_the_normal_operator_of_a_step_is_the_derivative() -> None:
    """Smooth maps: exact adjoint. A step solves the linearised problem: dense, in double precision."""
    g = torch.Generator().manual_seed(1)
    kspace, mask, _, _ = scan((10, 9), 2, 4)
    kspace = kspace.to(torch.complex128)
    basis = SmoothMaps((10, 9), kspace)
    c = torch.randn(basis.weight.shape, dtype=torch.complex128, generator=g)
    s = torch.randn((10, 9), dtype=torch.complex128, generator=g)
    assert float(dot(basis.forward(c), s, 2)) == pytest.approx(float(dot(c, basis.adjoint(s), 2)), rel=1e-10)
    model = JointModel(kspace[None], mask[None, None].double())
    x = model.start + 0.3 * torch.randn(model.start.shape, dtype=torch.complex128, generator=g)

    def residual(x: Tensor) -> Tensor:
        rho, maps = model.parts(x)
        return model.root * torch.fft.fft2(rho * maps, norm="ortho")

    basis_vectors = torch.eye(x.shape[1], dtype=torch.complex128)
    J = torch.stack([torch.autograd.functional.jvp(residual, x, e[None])[1].flatten() for e in basis_vectors], 1)
    alpha = 0.1
    right = J.mH @ (model.data - residual(x)).flatten() + alpha * (model.start - x)[0]
    exact = torch.linalg.solve(J.mH @ J + alpha * torch.eye(len(right)), right)
    assert error(model.step(x, alpha, 500, 1e-10)[0] - x[0], exact) < 1e-7


def test_units_batches_and_masks() -> None:
    kspace, mask, _, _ = scan((48, 40), 2, 6)
    image, maps = nlinv(kspace)
    scaled, same = nlinv(1e-6 * kspace)
    assert error(scaled * 1e6, image) < 1e-3
    assert error(same, maps) < 1e-3
    for given in (mask, mask[0], mask.float()):
        assert torch.equal(nlinv(kspace, given)[0], image)
    batch, both = nlinv(torch.stack([kspace, 7 * kspace.flip(-2)])[None])
    assert batch.shape == (1, 2, 48, 40)
    assert both.shape == (1, 2, 6, 48, 40)
    assert error(batch[0, 0], image) < 2e-3
    beside, found = nlinv(torch.stack([kspace, torch.zeros_like(kspace)]))  # a slice that was not measured
    assert error(beside[0], image) < 2e-3 and not bool(beside[1].any()) and bool(torch.isfinite(found.abs()).all())


def test_bad_input_is_refused() -> None:
    kspace, mask, maps, _ = scan((16, 16), 2, 4)
    for bad, match in (
        (kspace.real, "complex"),
        (kspace[0], "complex"),
        (kspace * 0, "no sample"),
        (kspace * float("nan"), "NaN"),
    ):
        with pytest.raises(ValueError, match=match):
            nlinv(bad, mask)
    with pytest.raises(ValueError, match="mask of shape"):
        nlinv(kspace, mask[:, :-1])
    with pytest.raises(ValueError, match="steps"):
        NLINV(steps=0)
    y = Measurement(maps[None], torch.ones(1, 1, 1, 1))
    with pytest.raises(ValueError, match="Cartesian"):
        NLINV()(Diagonal(maps), y, generator=torch.Generator())


def test_wrong_maps_do_not_alias_the_image() -> None:
    """CG-SENSE with maps of wrong phases aliases; NLINV estimates its own and only combines with them."""
    kspace, mask, maps, x = scan((64, 64), 2, 12)
    g = torch.Generator().manual_seed(5)
    turned = maps * torch.polar(torch.ones(6, 1, 1), 0.5 * torch.randn(6, 1, 1, generator=g))
    y = Measurement(kspace[None], (mask / 0.005**2).expand(1, *kspace.shape))
    expected = (turned.conj() * maps * x).sum(0)
    A, A_true = CartesianMRI(turned, mask), CartesianMRI(maps, mask)
    assert error(NLINV()(A_true, y, generator=g).image[0], x) < 0.15
    joint, sense = (error(s(A, y, generator=g).image[0], expected) for s in (NLINV(), CGSense()))
    assert joint < 0.15
    assert joint < 0.8 * sense


def brain(corpus: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Real k-space (8, 230, 180), 12.4 % acquired; samples kept, and a tenth outside the centre held out."""
    path = corpus / "raw" / "raw_mri_brain8ch" / "cartesian_ksp.npy"
    kspace = torch.from_numpy(np.load(path).astype(np.complex64))
    mask = kspace.abs().sum(0) > 0
    hold = mask & (torch.rand(mask.shape, generator=torch.Generator().manual_seed(0)) < 0.1)
    hold[centre(230, 24), centre(180, 24)] = False
    return kspace, mask & ~hold, hold


def unseen(coil_images: Tensor, kspace: Tensor, hold: Tensor) -> float:
    """Relative error of the k-space that was held out."""
    centred = torch.fft.ifftshift(coil_images, dim=(-2, -1))
    predicted = torch.fft.fftshift(torch.fft.fft2(centred, norm="ortho"), dim=(-2, -1))
    return error(predicted[:, hold], kspace[:, hold])


def test_real_brain(corpus: Path) -> None:
    """The same coil subspace as ESPIRiT, and samples that were held out are predicted."""
    kspace, keep, hold = brain(corpus)
    image, maps = nlinv(kspace * keep, keep)
    reference = espirit(kspace, acs=24)
    support = reference.abs().sum(0) > 0
    assert float(overlap(maps, reference, support).median()) > 0.9995
    assert float(overlap(maps, reference, support).quantile(0.05)) > 0.99
    assert unseen(maps * image, kspace, hold) < 0.35
    early = nlinv(kspace * keep, keep, steps=3)
    assert unseen(early[0] * early[1], kspace, hold) > 0.6


def bart_nlinv(kspace: Tensor, steps: int, folder: Path) -> tuple[Tensor, Tensor]:
    """Image and maps of the `bart` program."""
    columns = kspace.permute(1, 2, 0)[:, :, None].numpy()
    (folder / "k.hdr").write_text("# Dimensions\n" + " ".join(map(str, columns.shape)) + "\n")
    columns.ravel(order="F").tofile(folder / "k.cfl")
    subprocess.run(
        ["bart", "nlinv", "-i", str(steps), folder / "k", folder / "i", folder / "s"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    _, height, width = kspace.shape
    image, maps = (np.fromfile(folder / f"{n}.cfl", np.complex64).reshape(-1, width, height) for n in ("i", "s"))
    return torch.from_numpy(image[0].T.copy()), torch.from_numpy(maps.transpose(0, 2, 1).copy())


@pytest.mark.skipif(shutil.which("bart") is None, reason="the `bart` program is not installed")
def test_like_bart(tmp_path: Path) -> None:
    """Same subspace and image as `bart nlinv` up to its own scale, each at its best step, and nearer to the truth."""
    kspace, _, maps, x = scan((96, 96), 3, 4)
    support = x.abs() > 0.1
    image, found = nlinv(kspace, steps=10)
    theirs, reference = bart_nlinv(kspace, 12, tmp_path)
    assert float(overlap(found, reference, support).median()) > 0.999
    size = reference.abs().square().sum(0).sqrt().clamp_min(1e-20)
    mine, other, truth = ((m * i)[:, support] for m, i in ((found, image), (reference / size, theirs), (maps, x)))
    other = other * (torch.vdot(other.flatten(), truth.flatten()) / other.abs().square().sum())
    assert error(mine, truth) < error(other, truth)
    assert error(mine, other) < 0.25
