"""Simulated measurements: geometry, statistics, and that they are no inverse crime."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from ct_phantoms import Ellipse

from medrecon.core.units import MU_WATER, hu_to_mu
from medrecon.core.volume import Volume
from medrecon.geometry import ImageGrid
from medrecon.numerics.fourier import centred_fft
from medrecon.operators.ct.operator import CTOperator
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.pipeline.ct_problem import CTProblem
from medrecon.sampling.lines import acceleration
from medrecon.sampling.pattern import draw
from medrecon.simulate import simulate_ct, simulate_mri
from medrecon.simulate.ct import reconstruction_grid, resize
from medrecon.simulate.ct_rays import Kind
from medrecon.simulate.mri import Scanner, free_axis, mean_signal

Make = Callable[..., Volume]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("geometry", ["fan", "parallel"])
def test_line_integrals_of_a_water_disc(disc_volume: Make, geometry: str) -> None:
    plain = disc_volume("CT", slices=1)
    axis = (torch.arange(64) - 31.5) * 2.0
    disc = ((axis[:, None].square() + axis[None].square()).sqrt() < 40).float()
    volume = plain.map(lambda _: 1000 * (disc[None] - 1))
    scan = simulate_ct(volume, geometry=geometry, views=5, i0=1e9, sigma_e=0.0, generator=seeded())
    middle = scan.data[0][:, scan.data.shape[-1] // 2 - 1]
    torch.testing.assert_close(middle, torch.full_like(middle, 80 * MU_WATER), rtol=0.03, atol=0)
    full = 2 * math.pi if geometry == "fan" else math.pi
    assert scan.geometry.angles == pytest.approx([full * i / 5 for i in range(5)])


@pytest.mark.parametrize("geometry", ["fan", "parallel"])
@pytest.mark.parametrize(
    ("shape", "spacing", "size"),
    [
        ((64, 100), (1.6, 0.7), None),
        ((100, 48), (0.7, 1.6), 50),
        ((64, 64), (0.703125, 0.703126), None),
        ((64, 40), (1.0, 1.0), 27),
    ],
)
def test_pixels_that_are_not_square(
    geometry: Kind, shape: tuple[int, int], spacing: tuple[float, float], size: int | None
) -> None:
    """Line integrals of an ellipse off the middle are those of the closed form, whatever the pixels."""
    affine = torch.diag(torch.tensor([spacing[1], spacing[0], 1.0, 1.0], dtype=torch.float64))
    ellipse = Ellipse(4.0, -3.0, 14.0, 9.0, 0.4, MU_WATER)
    hu = 1000 * (ellipse.image(ImageGrid(shape, spacing), 8) / MU_WATER - 1)
    volume = Volume(hu[None].float(), affine, "HU", "CT")
    scan = simulate_ct(volume, geometry=geometry, views=7, i0=1e9, sigma_e=0.0, size=size, generator=seeded())
    fine = replace(scan.rays, det_count=8 * scan.rays.det_count, det_spacing=scan.rays.det_spacing / 8)
    truth = ellipse.sinogram(fine).float().unflatten(-1, (-1, 8)).mean(-1)  # over the width of an element
    assert float((scan.data[0] - truth).norm() / truth.norm()) < 0.05  # edges blur by a pixel
    torch.testing.assert_close(scan.data[0].sum(-1), truth.sum(-1), rtol=0.01, atol=0)
    place = torch.arange(scan.data.shape[-1], dtype=torch.float32)
    centroid = (scan.data[0] * place).sum(-1) / scan.data[0].sum(-1) - (truth * place).sum(-1) / truth.sum(-1)
    assert float(centroid.abs().max()) < 0.03


def test_the_detector_sees_the_corners(disc_volume: Make) -> None:
    volume = disc_volume("CT", slices=1).map(torch.zeros_like)  # water up to the corners
    for geometry in ("fan", "parallel"):
        scan = simulate_ct(volume, geometry=geometry, views=8, i0=1e9, sigma_e=0.0, size=32, generator=seeded())
        assert float(scan.data[..., 0].abs().max()) < 1e-3
        assert float(scan.data[..., -1].abs().max()) < 1e-3
        mass = scan.data.sum(-1) * scan.geometry.det_spacing
        if geometry == "parallel":
            torch.testing.assert_close(mass, torch.full_like(mass, MU_WATER * 128**2), rtol=2e-3, atol=0)


def test_the_grid_keeps_the_field_of_view(disc_volume: Make) -> None:
    volume = disc_volume("CT")
    grid, affine = reconstruction_grid(volume, 16)
    assert grid.shape == (16, 16)
    for corner, fine in (((-0.5, -0.5), (-0.5, -0.5)), ((15.5, 15.5), (63.5, 63.5))):
        there = affine @ torch.tensor([*corner, 1.0, 1.0], dtype=torch.float64)
        here = volume.affine @ torch.tensor([*fine, 1.0, 1.0], dtype=torch.float64)
        torch.testing.assert_close(there, here)


def test_it_is_no_inverse_crime_unless_asked(disc_volume: Make) -> None:
    volume = disc_volume("CT", slices=1)
    options = {"views": 12, "i0": 1e12, "sigma_e": 0.0, "size": 32}
    fair = simulate_ct(volume, **options, generator=seeded())
    crime = simulate_ct(volume, **options, matched=True, generator=seeded())
    A = CTOperator(fair.rays, fair.grid)
    projection = A(resize(hu_to_mu(volume.data), (32, 32)))
    assert fair.provenance["inverse_crime"] is False
    assert crime.provenance["inverse_crime"] is True
    assert float((crime.data - projection).abs().max()) < 1e-3
    assert float((fair.data - projection).abs().max()) > 0.02
    # The fair one: area-weighted strips through a grid twice as fine.
    strips = CTOperator(fair.rays, ImageGrid((64, 64), (2.0, 2.0)), model="strip")
    torch.testing.assert_close(fair.data, strips(hu_to_mu(volume.data)), rtol=0, atol=1e-3)


def test_ct_noise_is_what_the_file_says(disc_volume: Make) -> None:
    volume = disc_volume("CT", slices=2)
    quiet = simulate_ct(volume, views=40, i0=1e12, sigma_e=0.0, generator=seeded())
    noisy = simulate_ct(volume, views=40, i0=1e4, sigma_e=20.0, generator=seeded())
    counts = noisy.noise.i0 * torch.exp(-quiet.data.double())
    variance = (counts + noisy.noise.sigma_e**2) / counts.square()
    chi2 = ((noisy.data - quiet.data).double().square() / variance).mean()
    assert float(chi2) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("kind", ["sinusoidal", "attenuation"])
def test_tube_current_changes_with_the_view(disc_volume: Make, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same mean, more photons where the patient is thicker; the noise of every ray is what the file says."""
    monkeypatch.setattr("medrecon.simulate.ct.CHUNK", 2)
    axis = (torch.arange(64) - 31.5) / 32
    wide = (axis[:, None].square() / 0.2 + axis.square() / 0.8 < 1).float()  # twice as wide as it is thick
    volume = disc_volume("CT").map(lambda x: torch.stack([1000 * (wide * s - 1) for s in (0.5, 1.0, 1.5)]))
    quiet = simulate_ct(volume, views=40, i0=1e12, sigma_e=0.0, generator=seeded())
    scan = simulate_ct(volume, views=40, i0=2e4, sigma_e=10.0, tube_current=kind, generator=seeded())  # type: ignore[arg-type]
    i0 = scan.noise.i0
    assert tuple(i0.shape) == ((1, 40, 1) if kind == "sinusoidal" else (3, 40, 1))
    assert float(i0.mean()) == pytest.approx(2e4) and float(i0.max() / i0.min()) > 2
    assert bool((i0[:, 10] > i0[:, 0]).all())  # t = 90 degrees: lateral
    if kind == "attenuation":
        assert bool((i0[2] > i0[0]).all())  # the denser slice
    counts = i0 * torch.exp(-quiet.data.double())
    chi2 = (scan.data - quiet.data).double().square() * counts.square() / (counts + 100)
    assert bool(((chi2.mean((0, 2)) - 1).abs() < 0.3).all()) and float(chi2.mean()) == pytest.approx(1, abs=0.03)
    part = CTProblem(scan, "cpu").measurement(slice(1, 3))
    assert torch.equal(part.precision, scan.noise.precision(scan.data)[1:3])


def test_without_the_couch_there_is_less_to_see(disc_volume: Make) -> None:
    volume = disc_volume("CT", slices=1)
    plate = volume.map(lambda x: torch.where(torch.arange(64)[:, None] == 62, 100.0, x))
    bare, with_couch, without = (
        simulate_ct(v, views=8, i0=1e12, sigma_e=0.0, couch=c, generator=seeded()).data
        for v, c in ((volume, True), (plate, True), (plate, False))
    )
    assert float((with_couch - bare).abs().max()) > 0.3
    torch.testing.assert_close(without, bare, rtol=0, atol=0.02)


def test_same_seed_same_bits_and_chunks_do_not_show(disc_volume: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = disc_volume("CT", size=32)
    one = simulate_ct(volume, views=6, generator=seeded(3))
    assert torch.equal(one.data, simulate_ct(volume, views=6, generator=seeded(3)).data)
    assert not torch.equal(one.data, simulate_ct(volume, views=6, generator=seeded(4)).data)
    calls: list[tuple[float, int]] = []
    monkeypatch.setattr("medrecon.simulate.ct.CHUNK", 2)
    simulate_ct(volume, views=6, generator=seeded(3), on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(2, 3), (3, 3)]


def test_wrong_sources_are_refused(disc_volume: Make) -> None:
    with pytest.raises(ValueError, match="HU"):
        simulate_ct(disc_volume("MR"), generator=seeded())
    with pytest.raises(ValueError, match="magnitude"):
        simulate_mri(disc_volume("CT"), generator=seeded())
    with pytest.raises(ValueError, match="size must be"):
        simulate_ct(disc_volume("CT"), size=65, generator=seeded())
    with pytest.raises(ValueError, match="no signal"):
        simulate_mri(disc_volume("MR").map(torch.zeros_like), generator=seeded())


@pytest.mark.parametrize("shape", [(12, 15), (9, 8)])
def test_the_fine_grid_gives_the_source_back_without_coils(shape: tuple[int, int]) -> None:
    image = torch.rand(shape, generator=seeded())
    fine = (2 * shape[0], 2 * shape[1])
    flat = Scanner(torch.ones(1, *fine, dtype=torch.complex64), torch.ones(fine, dtype=torch.complex64), 2)
    torch.testing.assert_close(flat.kspace(image)[0], centred_fft(image.to(torch.complex64)))


def test_mri_noise_has_the_declared_snr(disc_volume: Make) -> None:
    volume = disc_volume("MR", slices=1)
    options = {"accel": 2.0, "acs": 16, "coils": 4}
    quiet = simulate_mri(volume, **options, snr_db=200.0, generator=seeded())
    noisy = simulate_mri(volume, **options, snr_db=20.0, generator=seeded())
    difference = (noisy.data - quiet.data)[..., noisy.mask]
    sigma = float(difference.abs().square().mean().sqrt())
    assert sigma == pytest.approx(noisy.noise.covariance, rel=0.03)
    assert 20 * math.log10(mean_signal(volume.data) / sigma) == pytest.approx(20, abs=0.3)
    assert bool((noisy.data[..., ~noisy.mask] == 0).all())
    assert noisy.provenance["acceleration"] == pytest.approx(acceleration(noisy.mask))


def test_maps_come_from_the_undersampled_data(disc_volume: Make) -> None:
    volume = disc_volume("MR", slices=1)
    options = {"accel": 2.0, "acs": 16, "coils": 4, "snr_db": 40.0}
    scan = simulate_mri(volume, **options, generator=seeded())
    true = simulate_mri(volume, **options, matched=True, generator=seeded())
    assert (scan.provenance["coil_maps"], true.provenance["coil_maps"]) == ("ESPIRiT", "true")
    inside = volume.data[0] > 100
    likeness = (scan.maps[0].conj() * true.maps[0]).sum(0).abs()[inside]
    assert float(likeness.mean()) > 0.98
    assert not torch.allclose(scan.maps, true.maps, atol=1e-2)
    residual = true.data - CartesianMRI(true.maps, true.mask)(true.maps.new_zeros(1, 64, 64))
    assert bool(residual.isfinite().all())


def test_phase_encoding_avoids_the_axis_where_the_object_is_cut_off(disc_volume: Make) -> None:
    volume = disc_volume("MR", slices=1)
    assert free_axis(volume.data) == "horizontal"
    cut = volume.data[:, :, 14:50]
    assert free_axis(cut) == "vertical"
    assert free_axis(cut.mT) == "horizontal"
    upright = simulate_mri(volume, accel=2, acs=16, coils=2, phase_encoding="vertical", generator=seeded())
    assert bool((upright.mask == upright.mask[:, :1]).all())
    assert not bool((upright.mask == upright.mask[:1]).all())


@pytest.mark.parametrize("direction", ["horizontal", "vertical"])
def test_the_file_says_how_the_mask_was_drawn(direction: str, disc_volume: Make) -> None:
    volume = disc_volume("MR", slices=1)
    scan = simulate_mri(
        volume,
        accel=2,
        acs=16,
        coils=2,
        mask="equispaced",
        partial_fourier=0.75,
        phase_encoding=direction,
        matched=True,
        generator=seeded(),
    )  # type: ignore[arg-type]
    told = scan.provenance
    again = draw("equispaced", (64, 64), 2, 16, seed=told["mask_seed"]).partial_fourier(0.75)
    assert torch.equal(again.mask if direction == "horizontal" else again.mask.T, scan.mask)
    assert told["acceleration"] == pytest.approx(acceleration(scan.mask)) and told["acceleration"] > 2.3
    assert (told["acceleration_nominal"], told["acs"], told["partial_fourier"]) == (2, 16, 0.75)
    given = draw("equispaced", (64, 64), 2, 16, seed=0, offset=told["offset"]).partial_fourier(0.75)
    assert torch.equal(given.mask, again.mask)


def test_negative_values_of_mr_are_said(disc_volume: Make, caplog: pytest.LogCaptureFixture) -> None:
    volume = disc_volume("MR", 32)
    simulate_mri(volume, accel=2, acs=12, generator=torch.Generator().manual_seed(0))
    assert "below 0" not in caplog.text
    simulate_mri(volume.map(lambda x: x - 1.0), accel=2, acs=12, generator=torch.Generator().manual_seed(0))
    assert "voxels are below 0" in caplog.text
