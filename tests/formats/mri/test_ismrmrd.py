"""ISMRMRD: files of the library with known phantom, noise and ghosts; every place in the room; every mistake named."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from blobs import images, places
from mri_raw_maker import AXES, COILS, PHASE, READ, Plane, Protocol, header, line, lines, mrd

from medrecon.acquisition.options import OptionError, RawOptions
from medrecon.cli import main
from medrecon.core.noise import MRINoise
from medrecon.core.scan import Scan
from medrecon.corrections.ramp_sampling import Trapezoid
from medrecon.formats.ismrmrd.write import write_ismrmrd
from medrecon.formats.measurement_file import load_scan, save_scan
from medrecon.formats.raw_data import read_raw
from medrecon.geometry import Cartesian
from medrecon.pipeline import reconstruct

pytest.importorskip("ismrmrd")
pytestmark = pytest.mark.usefixtures("one_thread")
CENTRE = np.array([12.0, -34.0, 56.0])
PLANE = Plane(CENTRE)
P = Protocol()
REVERSE, NAVIGATOR, NOISE, CALIBRATION, BOTH = 22, 24, 19, 20, 21


def difference(scan: Scan, protocol: Protocol = P, plane: Plane = PLANE, sign: float = -1) -> float:
    """Of the first slice to the closed form, where it was sampled."""
    truth = COILS[:, None, None] * protocol.grid(plane, sign)
    mask = (scan.mask if scan.mask.ndim == 2 else scan.mask[0]).numpy()
    return float(np.abs((scan.data[0].numpy() - truth) * mask).max() / np.abs(truth).max())


@pytest.mark.parametrize(
    "protocol",
    [
        P,
        Protocol((98, 41, 1), (245.0, 123.0, 5.0), (49, 41, 1)),
        Protocol((64, 57, 1), (192.0, 171.0, 5.0), (64, 57, 1)),
    ],
)
def test_an_oblique_stack_lies_where_it_was(protocol: Protocol, tmp_path: Path) -> None:
    """Counted from top to bottom in another order; each slice has a blob of its own that the others have not."""
    planes = {
        c: Plane(CENTRE + 7.5 * z * AXES[2], blobs=((1.0, 20.0 - 9 * z, 5 + 8.0 * z), (0.4, -20.0, -30.0)))
        for z, c in enumerate((2, 0, 1))
    }
    made = [a for c in (0, 1, 2) for a in lines(protocol, planes[c], slice=c)]
    scan = read_raw(mrd(tmp_path / "scan.h5", header(protocol), made))
    assert scan.data.shape == (3, 3, protocol.image[0], protocol.image[1]) and scan.crop is None
    assert scan.provenance["format"] == "ismrmrd" and scan.noise is None
    for z, counter in enumerate((2, 0, 1)):
        found = places(scan, images(scan)[z], z, 2)
        assert np.allclose(found, [planes[counter].room(b) for b in (0, 1)], atol=0.02)
    assert difference(scan, protocol, planes[2]) < 1e-5
    part = read_raw(tmp_path / "scan.h5", RawOptions(slices=(1, 3)))
    assert torch.equal(part.data, scan.data[1:]) and torch.allclose(part.affine, scan.slices(1, 3).affine, atol=1e-4)
    save_scan(scan, tmp_path / "measured.h5")
    assert torch.equal(load_scan(tmp_path / "measured.h5").data, scan.data)


def test_siemens_directions_are_for_the_forward_transform(tmp_path: Path) -> None:
    """Their signal turns the other way; told by the vendor, or a blob lands mirrored (negative control)."""
    made = list(lines(P, PLANE, sign=+1))
    scan = read_raw(mrd(tmp_path / "siemens.h5", header(P, vendor="SIEMENS"), made))
    truth = [PLANE.room(b) for b in range(3)]
    assert np.allclose(places(scan, images(scan)[0], 0), truth, atol=0.02)
    assert difference(scan, sign=+1) < 1e-5
    other = read_raw(mrd(tmp_path / "other.h5", header(P), made))
    assert not np.allclose(places(other, images(other)[0], 0), truth, atol=10)


def test_phase_oversampling_is_cropped_after_reconstruction(tmp_path: Path) -> None:
    wide = Protocol((96, 40, 1), (240.0, 160.0, 5.0), (48, 30, 1))
    scan = read_raw(mrd(tmp_path / "wide.h5", header(wide), lines(wide, PLANE)))
    assert scan.data.shape == (1, 3, 48, 40) and scan.geometry.crop == (48, 30)
    volume, _ = reconstruct(scan, "zero-filled")
    assert volume.data.shape == (1, 48, 30)
    where = places(Scan("mri", scan.data[..., :30].contiguous(), (48, 30), volume.affine, "a.u."), volume.data[0], 0)
    assert np.allclose(where[:2], [PLANE.room(b) for b in (0, 1)], atol=0.1)


def test_partial_fourier_in_both_directions(tmp_path: Path) -> None:
    """24 of 40 lines, echo at a quarter of the readout: everything at its place, the rest 0."""
    protocol = Protocol((48, 40, 1), (120.0, 120.0, 5.0), (48, 40, 1))
    made = [a for a in lines(protocol, PLANE) if a.idx.kspace_encode_step_1 >= 16]
    short = [line(a.data[:, 12:], PLANE, centre=12, step1=a.idx.kspace_encode_step_1 - 16) for a in made]
    scan = read_raw(mrd(tmp_path / "partial.h5", header(protocol, centre=(4, 0)), short))
    expected = torch.zeros(48, 40, dtype=torch.bool)
    expected[12:, 16:] = True
    assert torch.equal(scan.mask, expected) and not scan.data[..., ~expected].any()
    assert difference(scan, protocol) < 1e-5
    assert scan.provenance["acceleration"]["true"] == pytest.approx(48 * 40 / 36 / 24)


def test_an_asymmetric_echo_with_oversampling(tmp_path: Path) -> None:
    """The transform that removes oversampling sees the missing part as zeros: an error at the edge, small inside."""
    made = [line(a.data[:, 30:], PLANE, centre=18, step1=a.idx.kspace_encode_step_1) for a in lines(P, PLANE)]
    scan = read_raw(mrd(tmp_path / "echo.h5", header(P), made))
    assert torch.equal(scan.mask.any(1), torch.arange(48) >= 15) and not scan.data[0, :, :15].any()
    assert difference(scan) < 0.05
    inside = (scan.data[0, 0, 22:].numpy() - COILS[0] * P.grid(PLANE)[22:]) / np.abs(P.grid(PLANE)).max()
    assert np.abs(inside).max() < 0.01
    discarded = [line(a.data, PLANE, step1=a.idx.kspace_encode_step_1) for a in lines(P, PLANE)]
    for a in discarded:
        a.discard_pre = 30
    again = read_raw(mrd(tmp_path / "discard.h5", header(P), discarded))
    assert torch.equal(again.data, scan.data) and torch.equal(again.mask, scan.mask)


def test_averages_and_the_noise_of_their_mean(tmp_path: Path) -> None:
    """Noise readouts at a quarter of the bandwidth, known covariance: the scan's own noise has what it says."""
    rng = np.random.default_rng(3)
    true = np.array([[2.0, 0.6 - 0.4j, 0.1j], [0.6 + 0.4j, 1.0, 0.2], [-0.1j, 0.2, 0.5]])

    def sample(count: int, scale: float) -> np.ndarray:
        white = (rng.standard_normal((3, count)) + 1j * rng.standard_normal((3, count))) / math.sqrt(2)
        return scale * np.linalg.cholesky(true) @ white

    noise = [line(sample(512, math.sqrt(0.8 / 4)), flags=(NOISE,), dwell=20.0) for _ in range(40)]
    made = [line(sample(96, 1.0), PLANE, step1=s, average=a) for a in range(3) for s in range(40)]
    scan = read_raw(mrd(tmp_path / "noise.h5", header(P, bandwidth=0.8), noise + made))
    assert scan.provenance["averages"]["usual"] == 3 and "dwell time ratio 4" in scan.provenance["noise"]
    said = scan.noise.covariance.numpy()
    assert np.allclose(said, true / 3, atol=0.03 * 2 / 3)
    samples = scan.data[0].flatten(1).numpy()
    assert np.allclose(samples @ samples.conj().T / samples.shape[1], said, atol=0.1 * 2 / 3)
    volume, report = reconstruct(scan, "zero-filled")
    assert volume.data.shape == (1, 48, 40)


def test_virtual_coils_are_whitened_and_keep_the_signal(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    white = (rng.standard_normal((3, 4096)) + 1j * rng.standard_normal((3, 4096))) / math.sqrt(2)
    noise = line(np.array([2.0, 1.0, 0.5])[:, None] * white, flags=(NOISE,))
    path = mrd(tmp_path / "coils.h5", header(P, bandwidth=1.0), [noise, *lines(P, PLANE)])
    scan = read_raw(path, RawOptions(coils=1))
    sigma = math.sqrt((2.0**2 + 1.0**2 + 0.5**2) / 3)  # of the mean coil
    assert scan.data.shape[1] == 1 and scan.noise.covariance == pytest.approx(sigma, rel=0.02)
    expected = sigma * np.linalg.norm(COILS / [2.0, 1.0, 0.5]) * np.abs(P.grid(PLANE))  # uniform coils: rank one
    assert np.allclose(scan.data[0, 0].abs().numpy(), expected, atol=0.05 * expected.max())
    assert scan.provenance["virtual_coils"]["energy_kept"] == pytest.approx(1, abs=1e-4)
    with pytest.raises(OptionError, match="coils 4: the file has 3"):
        read_raw(path, RawOptions(coils=4))


@pytest.mark.parametrize("flag", [23, 26, 27, 28, 29, 30, 31])
def test_readouts_that_are_no_image_are_left_out(flag: int, tmp_path: Path) -> None:
    """Navigation, feedback, dummies and the like, by the numbers of ismrmrd.h."""
    made = list(lines(P, PLANE))
    plain = read_raw(mrd(tmp_path / "plain.h5", header(P), made)).data
    other = line(5 * made[7].data, PLANE, step1=7, flags=(flag,))
    assert torch.equal(read_raw(mrd(tmp_path / "more.h5", header(P), [*made, other])).data, plain)


def test_one_contrast_repetition_and_set_is_read(tmp_path: Path) -> None:
    made = []
    for echo, repetition in ((0, 0), (1, 0), (0, 1), (1, 1)):
        plane = Plane(CENTRE, blobs=((1.0 + echo + 2 * repetition, 10.0, 5.0),))
        made += list(lines(P, plane, contrast=echo, repetition=repetition))
    path = mrd(tmp_path / "echoes.h5", header(P), made)
    first, last = read_raw(path), read_raw(path, RawOptions(contrast=1, repetition=1))
    assert torch.allclose(last.data, 4 * first.data, atol=1e-4)
    assert first.provenance["contrast"].startswith("0 of 0, 1")
    assert last.provenance["repetition"].startswith("1 of 0, 1")
    with pytest.raises(OptionError, match=r"echoes.h5: contrast 2: the file has 0, 1"):
        read_raw(path, RawOptions(contrast=2))


def test_calibration_lines_belong_only_where_the_header_says_so(tmp_path: Path) -> None:
    made = [
        line(a.data, PLANE, step1=s, flags=[] if s % 2 == 0 else [CALIBRATION])
        for s, a in enumerate(lines(P, PLANE))
        if s % 2 == 0 or 14 <= s < 26
    ]
    embedded = read_raw(mrd(tmp_path / "in.h5", header(P, calibration="embedded"), made))
    separate = read_raw(mrd(tmp_path / "out.h5", header(P, calibration="separate"), made))
    assert int(embedded.mask.any(0).sum()) == 26 and int(separate.mask.any(0).sum()) == 20
    assert separate.provenance["calibration_lines_left_out"] == 6 and difference(embedded) < 1e-5


def epi(ghost: tuple[float, float], navigators: bool = True, repetition: int = 0) -> list[Any]:
    """Lines there and back; backward ones turned by an offset and a slope [rad per mm] of the readout."""
    offset, slope = ghost
    shift = slope / (2 * math.pi)
    made = []
    steps = ([20, 20, 20] if navigators else []) + list(range(40))
    for n, step in enumerate(steps):
        back, navigator = n % 2 == 0, navigators and n < 3
        k = P.k(0) - (shift if back else 0)
        samples = PLANE.signal(k, 0.0 if navigator else P.k(1)[step]) * P.scale(96) * np.exp(1j * offset * back)
        flags = [REVERSE] * back + [NAVIGATOR] * navigator
        samples = samples[::-1] if back else samples
        made.append(line(COILS[:, None] * samples, PLANE, step1=step, flags=flags, repetition=repetition))
    return made


def test_the_ghost_of_an_epi_is_removed(tmp_path: Path) -> None:
    def ghost(scan: Scan) -> float:
        image = images(scan)[0]
        i, j = divmod(int(image.argmax()), 40)
        return float(image[i, (j + 20) % 40] / image.max())

    clean = read_raw(mrd(tmp_path / "clean.h5", header(P, trajectory="epi"), epi((0, 0))))
    fixed = read_raw(mrd(tmp_path / "fixed.h5", header(P, trajectory="epi"), epi((0.5, 0.02))))
    left = read_raw(mrd(tmp_path / "left.h5", header(P, trajectory="epi"), epi((0.5, 0.02), False)))
    found = fixed.provenance["ghost_correction"]["0"]
    assert found["offset_rad"] == pytest.approx(0.5, abs=1e-3)
    assert found["slope_rad_per_pixel"] == pytest.approx(0.02 * 2.5, abs=1e-4)
    assert ghost(left) > 0.2 and ghost(fixed) < ghost(clean) + 1e-3 < 5e-3
    assert "not corrected" in left.provenance["ghost_correction"]
    both = mrd(tmp_path / "both.h5", header(P, trajectory="epi"), epi((0.5, 0.02)) + epi((-0.3, 0.01), repetition=1))
    later = read_raw(both, RawOptions(repetition=1))  # by its own navigators
    assert later.provenance["ghost_correction"]["0"]["offset_rad"] == pytest.approx(-0.3, abs=1e-3)


def test_ramp_samples_of_an_epi(tmp_path: Path) -> None:
    gradient = {
        "rampUpTime": 160,
        "flatTopTime": 240,
        "rampDownTime": 160,
        "acqDelayTime": 32,
        "numSamples": 120,
        "dwellTime": 496 / 120,
    }
    k = Trapezoid(160, 240, 160, 32, 496).frequencies(120, 96).numpy() / P.field_mm[0]
    made = [line(COILS[:, None] * PLANE.signal(k, ky) * P.scale(96), PLANE, step1=s) for s, ky in enumerate(P.k(1))]
    scan = read_raw(mrd(tmp_path / "ramp.h5", header(P, trajectory="epi", ramp=gradient), made))
    assert difference(scan) < 2e-4
    del gradient["flatTopTime"]
    with pytest.raises(ValueError, match="flatTopTime is missing"):
        read_raw(mrd(tmp_path / "bad.h5", header(P, trajectory="epi", ramp=gradient), made))


THICK = Protocol((48, 30, 12), (120.0, 90.0, 60.0), (48, 30, 8))
"""3D, oversampled along the partitions."""


def partitions(keep: Callable[[int, int], bool]) -> list[Any]:
    """Lines of one blob, 8 mm above the middle of the slab."""
    decay = np.exp(-2 * (math.pi * 4 * THICK.k(2)) ** 2 - 2j * math.pi * 8.0 * THICK.k(2))
    plane = Plane(CENTRE, blobs=((1.0, 20.0, -15.0),))
    return [
        line(COILS[:, None] * plane.signal(THICK.k(0), ky) * decay[q], plane, step1=s, step2=q)
        for q in range(12)
        for s, ky in enumerate(THICK.k(1))
        if keep(s, q)
    ]


def test_a_3d_scan_becomes_slices(tmp_path: Path) -> None:
    """Along the partitions, or, with these undersampled, along the readout: the blob stays where it is."""
    truth = np.array([-1.0, -1.0, 1.0]) * (CENTRE + 20 * READ - 15 * PHASE + 8 * AXES[2])
    full = read_raw(mrd(tmp_path / "full.h5", header(THICK), partitions(lambda s, q: s % 2 == 0 or 12 <= s < 18)))
    assert full.data.shape == (8, 3, 48, 30) and full.provenance["slices_along"] == "partitions"
    other = read_raw(mrd(tmp_path / "some.h5", header(THICK), partitions(lambda s, q: (s + q) % 9 != 3 or q == 6)))
    assert other.data.shape == (48, 3, 30, 12) and other.geometry.crop == (30, 8)
    assert other.provenance["slices_along"] == "readout"
    for scan in (full, other):
        power = images(scan).double().square()
        power = torch.where(power > 0.05 * power.max(), power, 0)
        z, i, j = (
            float((power.sum([d for d in range(3) if d != a]) * torch.arange(power.shape[a])).sum() / power.sum())
            for a in range(3)
        )
        assert np.allclose((scan.affine.numpy() @ [j, i, z, 1])[:3], truth, atol=1.5)
    part = read_raw(tmp_path / "full.h5", RawOptions(slices=(5, 7)))
    assert torch.equal(part.data, full.data[5:7]) and torch.allclose(part.affine, full.slices(5, 7).affine)


def radial(spokes: int = 60, *, unit: float = 1.0, density: bool = False, planes: int = 1) -> list[Any]:
    """Full spokes over 100 mm with 40 pixels; trajectory in cycles per pixel times `unit`."""
    made = []
    r = (np.arange(80) - 40) / 80
    for z in range(planes):
        plane = Plane(CENTRE + 5 * z * AXES[2])
        for s in range(spokes):
            k = np.stack([r * math.cos(math.pi * s / spokes), r * math.sin(math.pi * s / spokes)], axis=1)
            samples = COILS[:, None] * plane.signal(k[:, 0] / 2.5, k[:, 1] / 2.5) / 2.5**2 / 40
            columns = np.column_stack([k * unit, np.abs(r)]) if density else k * unit
            made.append(line(samples, plane, step1=s, slice=z, trajectory=columns.astype(np.float32)))
    return made


ROUND = Protocol((80, 40, 1), (200.0, 100.0, 5.0), (40, 40, 1))


@pytest.mark.parametrize("unit", [1.0, 40.0])
def test_radial_samples_along_their_trajectory(unit: float, tmp_path: Path) -> None:
    """Gridded by the plain adjoint sum, the blobs are where they belong; either unit of frequency is told."""
    made = radial(unit=unit, density=True, planes=2)
    scan = read_raw(mrd(tmp_path / "radial.h5", header(ROUND, trajectory="radial"), made))
    assert scan.noncartesian and scan.data.shape == (2, 3, 60 * 80) and scan.image_shape == (40, 40)
    k, weight = scan.geometry.samples, scan.geometry.density
    assert float(k.abs().max()) == pytest.approx(20) and float(weight.max()) == pytest.approx(0.5)
    x = torch.arange(40, dtype=torch.float64) - 20
    rows, columns = (torch.exp(2j * math.pi / 40 * x[:, None] * k[:, a]) for a in (0, 1))
    image = torch.einsum("is,js,cs->cij", rows, columns, scan.data[1] * weight).abs().square().sum(0).sqrt()
    assert np.allclose(places(scan, image, 1)[:2], [Plane(CENTRE + 5 * AXES[2]).room(b) for b in (0, 1)], atol=0.3)


def test_a_stack_of_stars_becomes_slices(tmp_path: Path) -> None:
    """A blob 5 mm above the middle of 4 partitions of 5 mm: in slice 3, and nowhere else."""
    made = []
    for q in range(4):
        for a in radial(spokes=20):
            a.idx.kspace_encode_step_2 = q
            a.data[:] *= np.exp(-2j * math.pi * (q - 2) * 5 / 20) / 2
            made.append(a)
    protocol = Protocol((80, 40, 4), (200.0, 100.0, 20.0), (40, 40, 4))
    path = mrd(tmp_path / "stack.h5", header(protocol, trajectory="radial"), made)
    scan, flat = read_raw(path), read_raw(mrd(tmp_path / "flat.h5", header(ROUND, trajectory="radial"), radial(20)))
    assert scan.data.shape == (4, 3, 20 * 80) and torch.allclose(scan.data[3], flat.data[0], atol=1e-4)
    assert float(scan.data[:3].abs().max()) < 1e-4
    assert np.allclose(scan.affine[:3, 3] + 2 * scan.affine[:3, 2], flat.affine[:3, 3], atol=1e-4)
    part = read_raw(path, RawOptions(slices=(3, 4)))
    assert torch.equal(part.data, scan.data[3:]) and torch.allclose(part.affine, scan.slices(3, 4).affine)


def test_trajectories_that_do_not_work(tmp_path: Path) -> None:
    xml = header(ROUND, trajectory="radial")
    with pytest.raises(ValueError, match=r"neither within 0\.5 cycles per pixel nor"):
        read_raw(mrd(tmp_path / "units.h5", xml, radial(unit=0.4 * 200)))
    turned = radial(planes=2)
    turned[70].traj[:] *= 0.5
    with pytest.raises(ValueError, match="slice 0 and 1 have different trajectories"):
        read_raw(mrd(tmp_path / "turned.h5", xml, turned))
    with pytest.raises(ValueError, match="radial measurement without trajectory"):
        read_raw(mrd(tmp_path / "without.h5", xml, lines(ROUND, PLANE)))


def test_a_trajectory_in_pixels_of_two_sizes_is_refused(tmp_path: Path) -> None:
    """The header's matrix counts 60 spokes: taken for columns, the image would be 1.5 times too narrow."""
    counted = header(Protocol((80, 60, 1), (200.0, 100.0, 5.0), (40, 60, 1)), trajectory="radial")
    with pytest.raises(ValueError, match=r"r\.h5: trajectory: in cycles per pixel, .* 2\.5 x 1\.667 mm"):
        read_raw(mrd(tmp_path / "r.h5", counted, radial()))
    scan = read_raw(mrd(tmp_path / "field.h5", counted, radial(unit=40.0)))
    assert scan.geometry.samples.abs().amax(0).tolist() == pytest.approx([20.0, 20.0])


def test_noise_readouts_of_several_bandwidths(tmp_path: Path) -> None:
    """Those nearest to the image's count; the variance goes with the bandwidth."""
    rng = np.random.default_rng(0)
    noise = [
        line(s * rng.standard_normal((3, 4096)), flags=(NOISE,), centre=0, dwell=d)
        for s, d in ((9.0, 40.0), (1.0, 10.0))
    ]
    path = mrd(tmp_path / "scan.h5", header(P, bandwidth=1.0), [*noise, *lines(P, PLANE)])  # 5 us
    scan = read_raw(path)
    assert torch.allclose(scan.noise.covariance.real.diag(), torch.full((3,), 2.0), rtol=0.1)
    assert "noise readouts of other dwell times left out: [40.0] us" in scan.provenance["noise"]


def test_an_image_of_several_dwell_times_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The covariance is that of most lines, whichever comes first."""
    made = list(lines(P, PLANE))
    made[0].sample_time_us = 20.0
    noise = line(np.random.default_rng(0).standard_normal((3, 4096)), flags=(NOISE,), centre=0, dwell=5.0)
    scan = read_raw(mrd(tmp_path / "scan.h5", header(P, bandwidth=1.0), [noise, *made]))
    assert torch.allclose(scan.noise.covariance.real.diag(), torch.full((3,), 1.0), rtol=0.1)
    assert "scan.h5: 1 of 40 readouts have another dwell time than 5 us" in caplog.text


def test_a_centre_that_was_not_written_with_samples_to_discard(tmp_path: Path) -> None:
    made = []
    for step, one in enumerate(lines(P, PLANE)):
        wide = line(np.pad(one.data, ((0, 0), (4, 2)), constant_values=9.0), PLANE, step1=step, centre=0)
        wide.discard_pre, wide.discard_post = 4, 2
        made.append(wide)
    assert difference(read_raw(mrd(tmp_path / "scan.h5", header(P), made))) < 1e-5


def test_a_round_trip_through_ismrmrd(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    mask = torch.zeros(2, 33, 20, dtype=torch.bool)
    mask[0, 5:, ::2] = True
    mask[1, :, 3:] = True
    data = torch.randn(2, 3, 33, 20, dtype=torch.complex64, generator=generator) * mask[:, None]
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = torch.from_numpy(AXES.T * [1.25, 2.5, 6.0])
    affine[:3, 3] = torch.tensor([-40.0, 12.0, 30.0])
    factor = torch.randn(3, 3, dtype=torch.complex64, generator=generator)
    covariance = factor @ factor.mH + torch.eye(3)
    scan = Scan(
        "mri", data, (33, 20), affine, "a.u.", geometry=Cartesian((33, 16)), mask=mask, noise=MRINoise(covariance)
    )
    path = write_ismrmrd(scan, tmp_path / "out.h5")
    again = read_raw(path)
    assert torch.equal(again.data, data) and torch.equal(again.mask, mask)
    assert torch.allclose(again.affine, affine, atol=2e-5)
    assert again.geometry.crop == (33, 16) and torch.allclose(again.noise.covariance, covariance, atol=1e-5)
    with pytest.raises(FileExistsError):
        write_ismrmrd(scan, path)
    import ismrmrd

    with ismrmrd.Dataset(str(path), create_if_needed=False) as dataset:  # the library reads it as well
        assert dataset.number_of_acquisitions() == 1 + 10 + 17
        first = dataset.read_acquisition(1)
        assert np.array_equal(first.data, data[0, :, 5:, 0].numpy()) and first.center_sample == 16 - 5
        encoding = ismrmrd.xsd.CreateFromDocument(dataset.read_xml_header()).encoding[0]
    assert encoding.encodedSpace.matrixSize.y == 20
    limits = encoding.encodingLimits
    steps = limits.kspace_encoding_step_0, limits.kspace_encoding_step_1, limits.kspace_encoding_step_2, limits.slice
    assert [(s.minimum, s.maximum, s.center) for s in steps] == [(0, 32, 16), (0, 19, 10), (0, 0, 0), (0, 1, 0)]


def test_what_ismrmrd_cannot_hold_is_not_written(tmp_path: Path) -> None:
    data = torch.ones(1, 1, 8, 8, dtype=torch.complex64)
    affine = torch.eye(4, dtype=torch.float64)
    pieces = torch.ones(8, 8, dtype=torch.bool)
    pieces[3, 2] = False
    with pytest.raises(ValueError, match="column 2 of slice 0 was measured in pieces"):
        write_ismrmrd(Scan("mri", data, (8, 8), affine, "a.u.", mask=pieces), tmp_path / "x.h5")
    with pytest.raises(ValueError, match="NaN"):
        write_ismrmrd(Scan("mri", data * float("nan"), (8, 8), affine, "a.u."), tmp_path / "x.h5")
    assert not list(tmp_path.iterdir())


def nan(made: list[Any]) -> list[Any]:
    made[7].data[1, 3] = np.nan
    return made


def fewer_coils(made: list[Any]) -> list[Any]:
    return [*made[:5], line(made[5].data[:2], PLANE, step1=5), *made[6:]]


def outside(made: list[Any]) -> list[Any]:
    made[9].idx.kspace_encode_step_1 = 99
    return made


def too_long(made: list[Any]) -> list[Any]:
    return [*made[:4], line(np.ones((3, 128)), PLANE, step1=4), *made[5:]]


def only_noise(made: list[Any]) -> list[Any]:
    return [line(made[0].data, flags=(NOISE,))]


def uneven(made: list[Any]) -> list[Any]:
    shifted = [list(lines(P, Plane(CENTRE + d * AXES[2]), slice=z)) for z, d in enumerate((0, 5, 17))]
    return [a for part in shifted for a in part]


def crossed(made: list[Any]) -> list[Any]:
    return made + list(lines(P, Plane(CENTRE, AXES[[1, 2, 0]]), slice=1))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (nan, "readout 7: NaN or infinite samples"),
        (fewer_coils, "readout 5: 2 coils, readout 0 has 3"),
        (outside, "readout 9: encode step 1 is 99"),
        (too_long, "readout 4: 128 samples .* do not fit"),
        (only_noise, "no readouts of an image among 1"),
        (uneven, "unevenly spaced"),
        (crossed, "slices 0 and 1 have different orientations"),
    ],
)
def test_bad_readouts_are_named(spoil: Callable[[list[Any]], list[Any]], message: str, tmp_path: Path) -> None:
    path = mrd(tmp_path / "bad.h5", header(P), spoil(list(lines(P, PLANE))))
    with pytest.raises(ValueError, match=r"bad.h5: .*" + message):
        read_raw(path)


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        (b"<html>", "dataset/xml: not an ISMRMRD header"),
        (b'<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"></ismrmrdHeader>', "dataset/xml: .*"),
    ],
)
def test_bad_headers(xml: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_raw(mrd(tmp_path / "bad.h5", xml, lines(P, PLANE)))


def test_damaged_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = mrd(tmp_path / "whole.h5", header(P), lines(P, PLANE))
    short = tmp_path / "short.h5"
    short.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    with pytest.raises(ValueError, match=r"short.h5: not HDF5, truncated or damaged"):
        read_raw(short, RawOptions(format="ismrmrd"))
    shutil.copy(whole, tmp_path / "rank.h5")
    with h5py.File(tmp_path / "rank.h5", "a") as h5:
        del h5["dataset/data"]
        h5["dataset/data"] = np.zeros((3, 4))
    with pytest.raises(ValueError, match=r"rank.h5: dataset/data: expected a list of acquisitions"):
        read_raw(tmp_path / "rank.h5")
    with h5py.File(tmp_path / "no_xml.h5", "w") as h5:
        h5["dataset/data"] = np.zeros(3)
    with pytest.raises(ValueError, match="no group with xml and data"):
        read_raw(tmp_path / "no_xml.h5", RawOptions(format="ismrmrd"))
    assert main(["import", str(whole), "-o", str(tmp_path / "scan.h5"), "--contrast", "3"]) == 2
    assert "contrast 3: the file has 0" in capsys.readouterr().err
    assert main(["import", str(whole), "-o", str(tmp_path / "scan.h5"), "--coils", "2"]) == 0
    assert load_scan(tmp_path / "scan.h5").data.shape == (1, 2, 48, 40)


def test_directions_that_are_missing_count_as_axial(tmp_path: Path) -> None:
    made = [line(a.data, step1=s) for s, a in enumerate(lines(P, PLANE))]
    scan = read_raw(mrd(tmp_path / "nowhere.h5", header(P), made))
    assert "taken as axial" in scan.provenance["orientation"]
    assert torch.allclose(scan.affine[:3, :3].diagonal(), torch.tensor([-3.0, -2.5, 5.0]).double())


def test_slices_excited_at_once_are_refused(tmp_path: Path) -> None:
    path = mrd(tmp_path / "sms.h5", header(P, bands=2), lines(P, PLANE))
    with pytest.raises(ValueError, match=r"sms.h5.*2 slices were excited at once"):
        read_raw(path)
