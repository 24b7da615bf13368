"""Non-Cartesian MRI: laws, SigPy, Toeplitz, gridding reconstruction, calibration, simulation, errors."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from medrecon.coils.combine import birdcage_maps
from medrecon.coils.maps.espirit import espirit
from medrecon.core.volume import Volume
from medrecon.formats.measurement_file import load_scan, save_scan
from medrecon.numerics.linalg import cg
from medrecon.operators.check import adjoint_error
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.operators.mri.noncartesian import NonCartesianMRI, calibration_kspace
from medrecon.operators.mri.nufft.density import radial_density
from medrecon.sampling.radial import golden_angles, radial
from medrecon.simulate.mri_noncartesian import simulate_noncartesian

pytestmark = pytest.mark.usefixtures("one_thread")


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex64) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def relative(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


def spokes(shape: tuple[int, int], count: int = 30) -> Tensor:
    return radial(golden_angles(count), 2 * max(shape), shape)


@pytest.mark.parametrize("shape", [(24, 20), (17, 23)])
def test_equals_sigpy_sense(shape: tuple[int, int], generator: torch.Generator) -> None:
    import sigpy.mri

    maps, k = birdcage_maps(3, shape, generator), spokes(shape)
    A = NonCartesianMRI(k, shape, maps)
    # SigPy's Sense has no parameter for the kernel: its accuracy is 0.7 %.
    reference = sigpy.mri.linop.Sense(maps.numpy(), coord=k.numpy())
    x, y = randn(*shape), randn(3, len(k), seed=1)
    assert relative(A(x), torch.from_numpy(reference * x.numpy())) < 1e-2
    assert relative(A.adjoint(y), torch.from_numpy(reference.H * y.numpy())) < 1e-2
    F = sigpy.linop.NUFFT(shape, k.numpy(), oversamp=2, width=6)
    wide = torch.stack([torch.from_numpy(F * (m * x).numpy()) for m in maps])
    assert relative(A(x), wide) < 2e-5


def test_on_a_grid_it_is_the_cartesian_operator(generator: torch.Generator) -> None:
    shape = (12, 9)
    maps = birdcage_maps(4, shape, generator)
    k = torch.cartesian_prod(*(torch.arange(n) - n // 2 for n in shape))
    phase = torch.polar(torch.ones(shape), torch.rand(shape, generator=generator))
    A, B = NonCartesianMRI(k, shape, maps, phase=phase), CartesianMRI(maps, torch.ones(shape))
    x = randn(2, *shape)
    assert relative(A(x), B(phase * x).flatten(-2)) < 1e-5
    assert relative(A.with_phase(None)(x), B(x).flatten(-2)) < 1e-5
    assert relative(A.gram(x), phase.conj() * B.gram(phase * x)) < 1e-5
    assert A.with_phase(None).nufft.toeplitz is A.nufft.toeplitz
    # Every weight is 1 there: the gridding reconstruction is exact.
    full = NonCartesianMRI(k, shape, maps, torch.full((len(k),), 3.7), phase=phase)
    assert relative(full.gridding(full(x)), x) < 0.05


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_exact_pair_in_both_precisions(dtype: torch.dtype, generator: torch.Generator) -> None:
    shape = (13, 10)
    A = NonCartesianMRI(spokes(shape), shape, birdcage_maps(5, shape, generator).to(dtype))
    x, y = randn(3, *shape, dtype=dtype), randn(3, *A.out_shape, seed=1, dtype=dtype)
    left, right = (A(x).conj() * y).sum(), (x.conj() * A.adjoint(y)).sum()
    assert abs(left - right) < (1e-12 if dtype == torch.complex128 else 1e-5) * abs(left)
    assert adjoint_error(A) < 1e-6


def test_eps_makes_gram_and_both_passes_agree(generator: torch.Generator) -> None:
    shape = (15, 12)
    maps = birdcage_maps(3, shape, generator).to(torch.complex128)
    x = randn(2, *shape, dtype=torch.complex128)
    for eps in (1e-4, 2e-6, 1e-12):
        A = NonCartesianMRI(spokes(shape), shape, maps, eps=eps)
        assert relative(A.gram(x), A.adjoint(A(x))) < 3 * eps


def test_items_have_their_own_maps_and_layouts_do_not_matter(generator: torch.Generator) -> None:
    shape, k = (11, 8), spokes((11, 8))
    maps = torch.stack([birdcage_maps(3, shape, generator) for _ in range(2)])
    A, x = NonCartesianMRI(k, shape, maps), randn(2, *shape)
    y = A(x)
    for i in range(2):
        assert relative(y[i], NonCartesianMRI(k, shape, maps[i])(x[i])) < 1e-6
    assert torch.equal(A(x.conj()), A(x.conj().resolve_conj()))
    turned = x.mT.contiguous().mT
    assert not turned.is_contiguous() and relative(A(turned), y) < 1e-6
    conjugated = NonCartesianMRI(k, shape, maps.conj())
    assert torch.equal(conjugated(x), NonCartesianMRI(k, shape, maps.conj().resolve_conj())(x))
    with pytest.raises(ValueError, match=r"2 items, but the batch has 3"):
        A(randn(3, *shape))


def test_gridding_keeps_the_intensity(generator: torch.Generator) -> None:
    """A smooth object, densely sampled: within 1 % for any scale of the weights, given or found."""
    shape = (40, 36)
    r = [torch.arange(n) - n // 2 for n in shape]
    x = torch.exp(-(r[0][:, None].square() / 2 + r[1].square()) / 20.0).to(torch.complex64)
    angles = golden_angles(90)
    k, density = radial(angles, 80, shape), radial_density(angles, 80, shape)
    for weights in (density, 1e-3 * density, None):
        A = NonCartesianMRI(k, shape, birdcage_maps(4, shape, generator), weights)
        assert relative(A.gridding(A(x)), x) < 0.02
        assert float((A.gridding(A(x)) * x).real.sum() / x.abs().square().sum()) == pytest.approx(1, abs=0.01)
    flat = NonCartesianMRI(k, shape, birdcage_maps(4, shape, generator), torch.ones(len(k)))
    assert relative(flat.gridding(flat(x)), x) > 0.1  # negative control: no compensation


def test_espirit_finds_the_maps_from_gridded_samples(generator: torch.Generator) -> None:
    shape = (48, 40)
    maps = birdcage_maps(4, shape, generator)
    r = [(torch.arange(n) - n // 2) / n for n in shape]
    x = ((r[0][:, None].square() + r[1].square()) < 0.16).to(torch.complex64)
    angles = golden_angles(75)
    k, density = radial(angles, 96, shape), radial_density(angles, 96, shape)
    y = NonCartesianMRI(k, shape, maps)(x)

    for weights in (density, None):
        found = espirit(calibration_kspace(y, k, shape, weights))
        inside = (x.abs() > 0) & (found.abs().sum(0) > 0)
        overlap = (found.conj() * maps).sum(0).abs()[inside]
        assert float(inside.float().mean()) > 0.4
        assert float(overlap.median()) > 0.998 and float(overlap.quantile(0.05)) > 0.98


@pytest.mark.parametrize(("pattern", "readouts"), [("golden", 75), ("uniform", 60), ("spiral", 8)])
def test_simulated_scan_comes_back(
    pattern: str, readouts: int, disc_volume: Callable[..., Volume], tmp_path, generator: torch.Generator
) -> None:
    """No inverse crime: phase and coils of a finer grid. The error is what the edges' ringing and noise leave."""
    volume = disc_volume("MR", 48, 2)
    scan = simulate_noncartesian(volume, pattern=pattern, readouts=readouts, coils=5, generator=generator)  # type: ignore[arg-type]
    assert scan.noncartesian and scan.data.shape[:2] == (2, 5) and not scan.provenance["inverse_crime"]
    scan = load_scan(save_scan(scan, tmp_path / "scan.h5"))
    assert scan.maps is not None
    geometry = scan.geometry
    A = NonCartesianMRI(geometry.samples, scan.image_shape, scan.maps, geometry.density)
    truth, seen = volume.data, scan.maps.abs().sum(1) > 0
    solved = cg(A.gram, A.adjoint(scan.data), ndim=2, iterations=12).x
    for image, bound in ((A.gridding(scan.data).abs(), 0.15), (solved.abs(), 0.08)):
        assert relative(image[seen], truth[seen]) < bound
        assert float((image * truth)[seen].sum() / truth[seen].square().sum()) == pytest.approx(1, abs=0.04)
    # Noise as stated: beyond what any image of this size explains, chi^2 per sample is 1.
    misfit = (scan.data - A(solved)).abs().square().mean() / scan.noise.covariance**2
    assert 0.8 < float(misfit) < 1.6


def test_shared_maps_are_not_copied_for_slices(generator: torch.Generator) -> None:
    shape = (9, 8)
    A = NonCartesianMRI(spokes(shape), shape, birdcage_maps(2, shape, generator))
    x = randn(5, *shape)
    assert relative(A.gram(x)[3], A.gram(x[3])) < 1e-6


def test_bad_input_is_named(generator: torch.Generator) -> None:
    shape, k = (8, 6), spokes((8, 6))
    maps = birdcage_maps(2, shape, generator)
    broken = maps.clone()
    broken[0, 0, 0] = complex("nan")
    ones = torch.ones(shape, dtype=torch.complex64)
    for arguments, options, message in (
        ((k, (10, 8), maps), {}, "maps are complex"),
        ((k, shape, maps.real), {}, "maps are complex"),
        ((k, shape, maps[0]), {}, "maps are complex"),
        ((k, shape, broken), {}, "NaN"),
        ((2 * k, shape, maps), {}, "beyond N / 2"),
        ((k * math.nan, shape, maps), {}, "NaN or infinite at sample 0"),
        ((k, shape, maps, torch.ones(5)), {}, "density"),
        ((k, shape, maps, -torch.ones(len(k))), {}, "density"),
        ((k, shape, maps), {"phase": 2 * ones}, "modulus 1"),
        ((k, shape, maps), {"phase": ones.real}, "complex"),
        ((k, shape, maps), {"phase": ones[:, :5]}, "phase is complex"),
    ):
        with pytest.raises(ValueError, match=message):
            NonCartesianMRI(*arguments, **options)
    with pytest.raises(ValueError, match=r"expected shape.*\(2, 3, 6\)"):
        NonCartesianMRI(k, shape, maps)(torch.zeros(2, 3, 6, dtype=torch.complex64))
