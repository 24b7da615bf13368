"""Crops: exact copies, mirrored and turned; zoomed, rotated and deformed on images whose geometry is known."""

import math
from collections import Counter

import pytest
import torch
from torch import nn

from medrecon.training.images.augment import Augment, crops, diffeomorphism, sampled
from medrecon.training.images.slices import Slices

pytestmark = pytest.mark.usefixtures("one_thread")
STILL = {"mirror": 0, "turns": 0, "plain": 0, "zoom": 1}
RIPPLE = 8e-3
"""of the slope of a ramp: the cubic weights of torch (a = -0.75) miss a linear function by up to 0.024 pixels"""
ROWS, COLUMNS = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")


def one(image):
    """A slice (64, 64) of whole numbers."""
    return Slices(image.to(torch.int16)[None], ("a",))


def drawn(image, size, count, augment, seed=0):
    return crops(one(image), size, count, augment, torch.Generator().manual_seed(seed))


def places(size, count, augment, seed=0):
    """Source row and column of every pixel of the crops (count, size, size): crops of two linear ramps."""
    return drawn(ROWS, size, count, augment, seed), drawn(COLUMNS, size, count, augment, seed)


def slopes(ramp):
    """Derivatives down and across of crops of a linear ramp by least squares, each (count,)."""
    axes = [torch.arange(n) - (n - 1) / 2 for n in ramp.shape[1:]]
    down, across = (ramp.mean(2), axes[0]), (ramp.mean(1), axes[1])
    return tuple((line * axis).sum(1) / axis.square().sum() for line, axis in (down, across))


def test_plain_crops_are_exact_copies_from_everywhere():
    rows, columns = places(24, 400, Augment(mirror=0, turns=0, plain=1, zoom=2, rotate=45, deform=0.05))
    top, left = rows[:, :1, :1], columns[:, :1, :1]
    assert torch.equal(rows, top + torch.arange(24.0)[:, None].expand(24, 24))
    assert torch.equal(columns, left + torch.arange(24.0).expand(24, 24))
    for first in (top, left):
        assert set(first.flatten().int().tolist()) == set(range(64 - 24 + 1))


def test_a_shifted_plain_crop_repeats_the_edge():
    rows, columns = places(64, 100, Augment(mirror=0, turns=0, plain=1, shift=0.25))
    beyond = set()
    for r in rows[:, :, 0]:
        offset = int(r[32]) - 32
        assert torch.equal(r, (torch.arange(64.0) + offset).clamp(0, 63))
        beyond.add(offset)
    assert max(beyond) == 16
    assert min(beyond) == -16
    assert (columns[:, 0] >= 0).all()


def test_mirrored_and_turned_crops_are_copies_in_the_eight_orientations():
    rows, columns = places(16, 300, Augment(mirror=0.5, turns=0.75, plain=1))
    seen = Counter()
    for r, c in zip(rows, columns, strict=True):
        jacobian = tuple(int(v) for v in (r[1, 0] - r[0, 0], r[0, 1] - r[0, 0], c[1, 0] - c[0, 0], c[0, 1] - c[0, 0]))
        i, j = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
        assert torch.equal(r, r[0, 0] + jacobian[0] * i + jacobian[1] * j)
        assert torch.equal(c, c[0, 0] + jacobian[2] * i + jacobian[3] * j)
        seen[jacobian] += 1
    assert len(seen) == 8  # four turns, mirrored or not
    assert all(18 <= count <= 60 for count in seen.values())  # 300 / 8 = 37.5


def test_mirror_and_turns_alone():
    down = {}
    for mirror, turns in ((0, 0), (1, 0), (0, 1)):
        rows, columns = places(16, 60, Augment(mirror=mirror, turns=turns, plain=1))
        pairs = zip(slopes(rows)[0].round().tolist(), slopes(columns)[1].round().tolist(), strict=True)
        down[mirror, turns] = set(pairs)
    assert down[0, 0] == {(1.0, 1.0)}
    assert down[1, 0] == {(1.0, -1.0)}
    assert down[0, 1] == {(-1.0, -1.0), (0.0, 0.0)}  # by 180; by 90 or 270: never as it was


def test_zoom_is_log_uniform_between_its_limits():
    rows, columns = places(32, 300, Augment(**{**STILL, "zoom": 1.5}))
    step = slopes(rows)[0]
    assert torch.allclose(step, slopes(columns)[1], atol=RIPPLE)
    assert slopes(rows)[1].abs().max() < 1e-4
    log = step.log() / math.log(1.5)
    assert -1.02 <= float(log.min()) < -0.95
    assert 0.95 < float(log.max()) <= 1.02
    assert float(log.mean()) == pytest.approx(0, abs=0.1)
    assert float(log.var()) == pytest.approx(1 / 3, rel=0.15)


def test_rotation_turns_about_the_centre_of_the_crop():
    rows, columns = places(32, 100, Augment(**STILL, rotate=20))
    inner = (slice(None), slice(8, 24), slice(8, 24))  # corners may lie beyond the slice
    (a, b), (c, d) = slopes(rows[inner]), slopes(columns[inner])
    assert torch.allclose(a, d, atol=2 * RIPPLE)
    assert torch.allclose(b, -c, atol=2 * RIPPLE)
    assert torch.allclose(a.square() + b.square(), torch.ones(100), atol=2 * RIPPLE)
    angle = torch.atan2(c, a).rad2deg()
    assert 17 < float(angle.abs().max()) <= 20.5
    assert 0.3 < float((angle > 0).float().mean()) < 0.7
    for centre in (rows, columns):  # the crop's middle stays where a crop can be
        middle = centre[:, 15:17, 15:17].mean((1, 2))
        assert 15.4 <= float(middle.min()) < 18
        assert 45 < float(middle.max()) <= 47.6


def test_a_disc_keeps_its_centre_and_its_area_scales():
    """The map found on ramps predicts where a disc's centre and how large its area comes out."""
    augment = Augment(mirror=0.5, turns=0.5, plain=0, zoom=1.3, rotate=30)
    disc = (((ROWS - 30) ** 2 + (COLUMNS - 35) ** 2).float().sqrt() - 9.5).neg().clamp(0, 1) * 1000
    images = drawn(disc, 64, 30, augment) / 1000
    rows, columns = places(64, 30, augment)
    i, j = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    for x, r, c in zip(images, rows, columns, strict=True):
        near = ((r - 30) ** 2 + (c - 35) ** 2).flatten().argmin()
        mass = x.sum()
        assert float((x * i).sum() / mass - i.flatten()[near]) == pytest.approx(0, abs=0.8)
        assert float((x * j).sum() / mass - j.flatten()[near]) == pytest.approx(0, abs=0.8)
        inner = (slice(24, 40), slice(24, 40))
        jacobian = (r.diff(dim=0)[inner] * c.diff(dim=1)[inner] - r.diff(dim=1)[inner] * c.diff(dim=0)[inner]).mean()
        assert float(mass * jacobian.abs()) == pytest.approx(float(disc.sum()) / 1000, rel=0.01)


def test_a_crop_larger_than_the_slice_is_centred_on_it():
    rows, columns = places(64, 50, Augment(**{**STILL, "zoom": 1.3}))
    wide = slopes(rows[:, 24:40])[0] > 1.02
    assert wide.any()
    for ramp in (rows, columns):
        assert torch.allclose(ramp[wide][:, 31:33, 31:33].mean((1, 2)), torch.tensor(31.5), atol=1e-3)


@pytest.mark.parametrize(("period", "most"), [(12, 0.03), (24, 0.009)])
def test_interpolation_of_a_smooth_function(period, most):
    """Half a pixel away a sine keeps its height better than by linear interpolation; pixel centres are exact."""
    wave = lambda r, c: torch.sin(2 * math.pi * r / period) * torch.cos(2 * math.pi * c / period)  # noqa: E731
    image = wave(ROWS, COLUMNS)
    grid = torch.stack([ROWS, COLUMNS], -1)[8:56, 8:56].float()
    assert torch.allclose(sampled(image, grid), image[8:56, 8:56], atol=1e-5)
    half = grid + 0.5
    truth = wave(half[..., 0], half[..., 1])
    linear = nn.functional.avg_pool2d(image[None, None], 2, 1)[0, 0, 8:56, 8:56]
    error, worse = ((x - truth).abs().max() for x in (sampled(image, half), linear))
    assert float(error) < most
    assert float(error) < 0.6 * float(worse)


def test_values_stay_in_the_range_of_the_slice(generator):
    noise = torch.where(torch.rand(64, 64, generator=generator) < 0.5, -900, 1100)  # cubic weights overshoot edges
    x = drawn(noise, 32, 40, Augment(plain=0, zoom=1.5, rotate=180, shift=0.3, deform=0.05))
    assert float(x.min()) == -900
    assert float(x.max()) == 1100
    place = torch.stack([ROWS, COLUMNS], -1) + 0.3
    raw = nn.functional.grid_sample(
        noise[None, None].float(), ((place + 0.5) / 32 - 1).flip(-1)[None], mode="bicubic", align_corners=False
    )
    assert float(raw.max()) > 1110  # control: not clamped, it overshoots


def determinant(displacement):
    """Smallest Jacobian determinant of x + displacement(x) at the corners of the cells; (S, S, 2) in sides."""
    size = len(displacement)
    axis = torch.linspace(0, 1, size)
    place = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1) + displacement
    down, across = place.diff(dim=0) * (size - 1), place.diff(dim=1) * (size - 1)
    corners = [
        (d[..., 0] * a[..., 1] - d[..., 1] * a[..., 0])
        for d in (down[:, :-1], down[:, 1:])
        for a in (across[:-1], across[1:])
    ]
    return float(torch.stack(corners).min())


def velocity(size, deviation, generator):
    """What `diffeomorphism` integrates: its limit for small deviations, scaled."""
    return diffeomorphism(size, 1e-4, generator) * (deviation / 1e-4)


@pytest.mark.parametrize("deviation", [0.02, 0.05, 0.08])
def test_deformations_are_invertible(deviation, generator):
    assert min(determinant(diffeomorphism(64, deviation, generator)) for _ in range(100)) > 0


def test_without_integration_they_fold(generator):
    """Control: the velocity itself as displacement is not invertible where its flow is."""
    folded = [determinant(velocity(64, 0.08, generator)) < 0 for _ in range(100)]
    assert sum(folded) > 50


def test_a_deformation_that_could_fold_is_refused():
    with pytest.raises(ValueError, match="deform"):
        Augment(deform=0.1)


@pytest.mark.parametrize("deviation", [0.02, 0.05])
def test_deformations_are_as_large_as_asked_and_smooth(deviation, generator):
    draws = torch.stack([diffeomorphism(48, deviation, generator) for _ in range(100)])
    assert float(draws.square().sum(-1).mean().sqrt()) == pytest.approx(deviation, rel=0.05)
    assert draws.mean((0, 1, 2)).abs().max() < 0.25 * deviation
    power = torch.fft.fft2(draws, dim=(1, 2)).abs().square().mean((0, 3))
    frequency = torch.fft.fftfreq(48, 1 / 48)
    low = (frequency[:, None].abs() <= 4) & (frequency.abs() <= 4)
    assert float(power[low].sum() / power.sum()) > 0.9


def test_deformed_crops_move_as_the_deformation_says():
    """The source places of deformed crops are those of still ones, displaced by as much as was asked."""
    still, moved = (places(64, 40, Augment(**STILL, deform=d)) for d in (0.0, 0.02))
    inner = (slice(None), slice(8, 56), slice(8, 56))
    away = sum((m - s)[inner].square() for m, s in zip(moved, still, strict=True)).mean().sqrt() / 64
    assert float(away) == pytest.approx(0.02, rel=0.3)


def test_crops_are_reproducible():
    augment = Augment(zoom=1.2, rotate=10, shift=0.1, deform=0.03, scale_jitter=0.1)
    a, b, other = (drawn(ROWS * 3, 32, 10, augment, seed) for seed in (3, 3, 4))
    assert torch.equal(a, b)
    assert not torch.equal(a, other)


def test_intensity_jitter_scales_whole_crops():
    x = drawn(torch.full((64, 64), 1000), 16, 200, Augment(scale_jitter=0.2))
    assert torch.equal(x, x[:, :1, :1].expand_as(x))
    assert 800 <= float(x.min()) < 815
    assert 1185 < float(x.max()) <= 1200


def test_subjects_are_drawn_by_the_root_of_their_slices():
    """Nine slices of one subject are drawn three times as often as the only one of another."""
    values = torch.cat([torch.zeros(9, 8, 8), torch.ones(1, 8, 8)]).to(torch.int16)
    slices = Slices(values, ("a",) * 9 + ("b",))
    x = crops(slices, 4, 4000, Augment(plain=1), torch.Generator().manual_seed(0))
    assert float(x[:, 0, 0].mean()) == pytest.approx(1 / 4, abs=0.02)
