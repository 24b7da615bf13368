"""Trajectories and their density compensation, by law."""

import math

import pytest
import torch
from torch import Tensor

from medrecon.operators.mri.nufft.density import as_area, pipe_menon, radial_density, voronoi
from medrecon.operators.mri.nufft.transform import NUFFT
from medrecon.sampling.radial import GOLDEN_ANGLE, golden_angles, radial, stack_of_stars, uniform_angles
from medrecon.sampling.spiral import GAMMA, spiral

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = (48, 40)
DISC = math.pi / 4 * math.prod(SHAPE)


def test_golden_angle() -> None:
    assert math.degrees(GOLDEN_ANGLE) == pytest.approx(111.246117975)
    angles = golden_angles(50, start=0.3)
    assert torch.allclose(angles.diff(), torch.full((49,), GOLDEN_ANGLE, dtype=torch.float64))
    assert float(angles[0]) == 0.3
    assert math.degrees(float(golden_angles(2, tiny=7)[1])) == pytest.approx(23.628, abs=1e-3)


@pytest.mark.parametrize(("spokes", "count"), [(8, 2), (13, 2), (34, 2), (10, 3), (30, 3)])
def test_golden_spokes_leave_gaps_of_few_sizes(spokes: int, count: int) -> None:
    """Three sizes of gap for any number of spokes, two for a Fibonacci number (three-distance theorem)."""
    gaps = torch.remainder(golden_angles(spokes), math.pi).sort().values
    gaps = torch.cat([gaps, gaps[:1] + math.pi]).diff()
    sizes = torch.unique((gaps * 1e9).round())
    assert len(sizes) == count
    assert float(gaps.max() / gaps.min()) < 2.7


@pytest.mark.parametrize("samples", [64, 65])
def test_radial_spokes(samples: int) -> None:
    angles = uniform_angles(7)
    k = radial(angles, samples, SHAPE).reshape(7, samples, 2)
    assert float(k[:, samples // 2].abs().max()) == 0  # every spoke measures the centre
    unit = k / torch.tensor(SHAPE)
    step = unit.diff(dim=1)
    assert torch.allclose(step.norm(dim=-1), torch.full((7, samples - 1), 1 / samples, dtype=torch.float64))
    direction = torch.atan2(step[:, 0, 0], step[:, 0, 1])
    assert torch.allclose(direction, angles)
    assert 0.49 < float(unit.norm(dim=-1).max()) <= 0.5
    NUFFT(k.flatten(0, 1), SHAPE)  # within N / 2


def test_stack_of_stars() -> None:
    angles = golden_angles(3)
    k = stack_of_stars(angles, 16, (5, 12, 10)).reshape(5, -1, 3)
    assert k[:, 0, 0].tolist() == [-2, -1, 0, 1, 2]
    for partition in k:
        assert torch.equal(partition[:, 1:], radial(angles, 16, (12, 10)))


@pytest.mark.parametrize(("interleaves", "gradient", "slew"), [(8, 40.0, 150.0), (1, 22.0, 120.0), (24, 80.0, 200.0)])
def test_spiral_keeps_the_limits_and_uses_them(interleaves: int, gradient: float, slew: float) -> None:
    shape, fov, dwell = (96, 64), 240.0, 4e-6
    path = spiral(shape, fov, interleaves, dwell=dwell, max_gradient=gradient, max_slew=slew)
    pixel = fov / max(shape)
    k = path.trajectory[: path.samples] / (torch.tensor(shape) * pixel)  # cycles / mm
    g = torch.cat([torch.zeros(1, 2), k.diff(dim=0)]) / dwell / (GAMMA * 1e-6)  # mT / m, from rest
    rate = g.diff(dim=0).norm(dim=1) / dwell * 1e-3  # T / m / s
    assert float(g.norm(dim=1).max()) < 1.001 * gradient and float(rate.max()) < 1.001 * slew
    # Time-optimal: always at one of the limits.
    used = torch.maximum(rate[3:] / slew, g[4:].norm(dim=1) / gradient)
    assert float(used.min()) > 0.97
    assert torch.allclose(path.times[: path.samples].diff(), torch.tensor(dwell, dtype=torch.float64))
    reach = (path.trajectory / torch.tensor(shape)).norm(dim=1)
    assert 0.49 < float(reach.max()) <= 0.5
    # Turns are interleaves / fov apart, so that all together are 1 / fov apart.
    radius, angle = k.norm(dim=1), torch.atan2(k[:, 0], k[:, 1])
    turns = float((angle.diff() % (2 * math.pi)).sum()) / (2 * math.pi)
    assert float(radius[-1] - radius[1]) / turns == pytest.approx(interleaves / fov, rel=0.02)
    start = path.trajectory.reshape(interleaves, path.samples, 2)
    assert float(start[:, 0].abs().max()) == 0


def test_more_undersampling_is_a_shorter_spiral() -> None:
    whole, half = (spiral((64, 64), 200.0, 4, undersampling=u).samples for u in (1.0, 2.0))
    assert 0.45 < half / whole < 0.75


def trajectories() -> dict[str, tuple[Tensor, Tensor]]:
    """Trajectory and the weights known for it."""
    golden, even, path = golden_angles(89), uniform_angles(80), spiral(SHAPE, 240.0, 6)
    doubled = torch.cat([even, even[::2] + math.pi])
    return {
        "golden": (radial(golden, 96, SHAPE), radial_density(golden, 96, SHAPE)),
        "uniform, odd": (radial(even, 95, SHAPE), radial_density(even, 95, SHAPE)),
        "spokes repeated": (radial(doubled, 96, SHAPE), radial_density(doubled, 96, SHAPE)),
        "spiral": (path.trajectory, path.density),
    }


@pytest.mark.parametrize("name", list(trajectories()))
def test_weights_add_up_to_the_area_covered(name: str) -> None:
    k, weights = trajectories()[name]
    assert float(weights.sum()) == pytest.approx(DISC, rel=0.01)
    assert float(weights.min()) >= 0
    assert float(as_area(37 * weights, k).sum()) == pytest.approx(DISC, rel=0.01)


def amplitude(k: Tensor, weights: Tensor) -> float:
    """Gridding of an off-centre Gaussian from its analytic k-space, over the Gaussian, within 3 sigma."""
    sigma, centre = 2.5, torch.tensor([4.0, -3.0], dtype=torch.float64)
    nu = k / torch.tensor(SHAPE)
    y = 2 * math.pi * sigma**2 * torch.exp(-2 * (math.pi * sigma) ** 2 * nu.square().sum(1))
    y = y / math.sqrt(math.prod(SHAPE)) * torch.exp(-2j * math.pi * (nu @ centre))
    image = NUFFT(k, SHAPE).adjoint((weights * y).to(torch.complex128))
    r = [torch.arange(n, dtype=torch.float64) - n // 2 - c for n, c in zip(SHAPE, centre, strict=True)]
    truth = torch.exp(-(r[0][:, None].square() + r[1].square()) / (2 * sigma**2))
    inside = truth > math.exp(-4.5)
    assert float(image.imag.abs().max()) < 0.03
    return float((image.real * truth)[inside].sum() / truth[inside].square().sum())


@pytest.mark.parametrize("name", list(trajectories()))
def test_gaussian_comes_back_with_its_amplitude(name: str) -> None:
    k, weights = trajectories()[name]
    assert amplitude(k, weights) == pytest.approx(1, abs=0.01)
    assert amplitude(k, pipe_menon(k, SHAPE)) == pytest.approx(1, abs=0.01)
    assert amplitude(k, voronoi(k, SHAPE)) == pytest.approx(1, abs=0.015)


def test_centre_of_the_ramp() -> None:
    """The classical |k| ramp is 0 there; and negative control: weights 5 % off are seen."""
    angles = uniform_angles(80)
    k, weights = radial(angles, 48, SHAPE), radial_density(angles, 48, SHAPE)
    naive = math.pi / 80 / 48 * (k / torch.tensor(SHAPE)).norm(dim=1) * math.prod(SHAPE)
    centre = k.norm(dim=1) < 1e-9
    assert float(naive[centre].abs().max()) == 0 < float(weights[centre].min())
    assert torch.allclose(naive[~centre], weights[~centre])
    # The centre's cell: of a circle of half a sample's step, shared by all spokes.
    assert float(weights[centre].sum()) == pytest.approx(math.pi / 4 * math.prod(SHAPE) / 48**2)
    assert amplitude(k, weights) == pytest.approx(1, abs=0.01)
    assert amplitude(k, naive * 1.05) != pytest.approx(1, abs=0.01)


def test_pipe_menon_equals_sigpy() -> None:
    """But for the edge, where SigPy lets opposite ends of k-space touch."""
    import sigpy.mri

    k, _ = trajectories()["golden"]
    reference = as_area(torch.from_numpy(sigpy.mri.pipe_menon_dcf(k.numpy(), img_shape=SHAPE, show_pbar=False)), k)
    inner = (k / torch.tensor(SHAPE)).norm(dim=1) < 0.35
    ratio = (pipe_menon(k, SHAPE) / reference)[inner]
    assert float(ratio.median()) == pytest.approx(1, abs=0.01)
    assert float((ratio - 1).abs().quantile(0.95)) < 0.03


def test_voronoi_is_the_ramp_on_spokes() -> None:
    k, weights = trajectories()["uniform, odd"]
    ratio = (voronoi(k, SHAPE) / weights)[weights > 0]
    assert float((ratio - 1).abs().quantile(0.9)) < 0.01


def test_bad_input_is_named() -> None:
    for call, message in (
        (lambda: golden_angles(0), "at least one spoke"),
        (lambda: golden_angles(3, tiny=0), "tiny"),
        (lambda: uniform_angles(0), "at least one"),
        (lambda: radial(torch.tensor([math.nan]), 8, SHAPE), "finite"),
        (lambda: radial(torch.zeros(3), 1, SHAPE), "2 samples"),
        (lambda: spiral(SHAPE, -1.0, 4), "fov"),
        (lambda: spiral(SHAPE, 240.0, 4, max_slew=0.0), "max_slew"),
        (lambda: pipe_menon(torch.full((4, 2), 99.0), SHAPE), "beyond"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
