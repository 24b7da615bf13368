"""k-space handed over in any layout is one scan; what the array cannot tell is asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medrecon import from_kspace
from medrecon.acquisition.arrays.order import Norm, Order
from medrecon.acquisition.options import RawOptions
from medrecon.core.noise import MRINoise
from medrecon.formats import read_raw
from medrecon.geometry import Trajectory
from medrecon.numerics.fourier import centred_fft
from medrecon.pipeline import reconstruct

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPES = pytest.mark.parametrize("shape", [(24, 32), (25, 33), (24, 33)])
untyped: Callable[..., Any] = from_kspace


def image(shape: tuple[int, int]) -> np.ndarray:
    """A disc with an insert to one side: no symmetry that hides a flip."""
    y, x = (np.arange(n) - n // 2 for n in shape)
    r = min(shape)
    disc = (x[None] ** 2 + y[:, None] ** 2) < (0.35 * r) ** 2
    return disc + 0.5 * ((x[None] - 4) ** 2 + (y[:, None] + 2) ** 2 < 9)


def truth(shape: tuple[int, int]) -> torch.Tensor:
    return centred_fft(torch.from_numpy(image(shape)).to(torch.complex128)).to(torch.complex64)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=2e-6 * float(b.abs().max()))


def coils(count: int, shape: tuple[int, int], slices: int = 1) -> np.ndarray:
    """(Z, C, H, W), every coil and slice another."""
    parts = [[image(shape) * (1 + c + 1j * z) for c in range(count)] for z in range(slices)]
    return centred_fft(torch.tensor(np.array(parts))).numpy()


@SHAPES
@pytest.mark.parametrize("norm", ["ortho", "backward", "forward", None])
def test_every_order_and_norm_of_numpy_is_the_same_scan(shape: tuple[int, int], norm: Norm | None) -> None:
    x, fft = image(shape), np.fft
    made: dict[Order, np.ndarray] = {
        "centred": fft.fftshift(fft.fft2(fft.ifftshift(x), norm=norm or "ortho")),
        "fft2": fft.fft2(x, norm=norm),
        "fftshift(fft2)": fft.fftshift(fft.fft2(x, norm=norm)),
    }
    for order, kspace in made.items():
        close(from_kspace(kspace, order=order, norm=norm, spacing=1.0).data[0, 0], truth(shape))


@SHAPES
def test_an_order_that_nobody_said_is_refused_by_what_it_looks_like(shape: tuple[int, int]) -> None:
    plain = np.fft.fft2(image(shape))
    assert from_kspace(truth(shape), spacing=1.0).provenance["order"] == "centred"
    with pytest.raises(ValueError, match=r"energy is at the corners.*order=.fft2."):
        from_kspace(plain)
    with pytest.raises(ValueError, match=r"lies around the edges.*order=.fftshift\(fft2\)."):
        from_kspace(np.fft.fftshift(plain))
    with pytest.raises(ValueError, match="energy is along rows at the end"):
        from_kspace(np.fft.fftshift(plain, 1))
    with pytest.raises(ValueError, match="neither in the middle nor at the corners"):
        from_kspace(np.roll(truth(shape).numpy(), (0, shape[1] // 4), (0, 1)))


def test_an_undersampled_scan_is_looked_at_too_and_keeps_its_zeros() -> None:
    shape = (32, 48)
    plain = np.fft.fft2(image(shape))
    plain[:, 5:44:3] = 0
    plain[:, 6:44:3] = 0
    with pytest.raises(ValueError, match="lies around the edges"):
        from_kspace(np.fft.fftshift(plain, (0, 1)))
    scan = from_kspace(plain, order="fft2", spacing=1.0)
    assert scan.mask is not None
    assert np.array_equal(scan.mask.numpy(), np.fft.fftshift(plain != 0))
    close(scan.data[0, 0], truth(shape) * scan.mask)


@pytest.mark.parametrize(
    "axes", ["slice coil row column", "coil slice row column", "row column coil slice", "column, row, slice, coil"]
)
def test_axes_in_any_order(axes: str) -> None:
    stack = coils(3, (24, 33), 2)
    words = axes.replace(",", "").split()
    given = stack.transpose([("slice", "coil", "row", "column").index(word) for word in words])
    scan = from_kspace(given, axes=axes, spacing=1.0, slice_spacing=2.0)
    assert np.array_equal(scan.data.numpy(), stack.astype(np.complex64))
    assert scan.provenance["axes"] == " ".join(words)


def test_three_axes_are_coils_or_slices_as_the_user_says() -> None:
    stack = coils(1, (24, 33), 3)[:, 0]
    assert from_kspace(stack, axes="coil row column", spacing=1.0).data.shape == (1, 3, 24, 33)
    assert from_kspace(stack, axes=("slice", "row", "column"), spacing=1, slice_spacing=4).data.shape == (3, 1, 24, 33)
    with pytest.raises(ValueError, match=r'axes="coil row column" or axes="slice row column"'):
        from_kspace(stack)
    with pytest.raises(ValueError, match=r'axes="slice coil row column"'):
        from_kspace(stack[None])


@pytest.mark.parametrize("dtype", ["<c8", ">c8", "<c16", ">c16"])
def test_numbers_of_any_kind_are_copied(dtype: str) -> None:
    k = truth((24, 32)).numpy().astype(dtype)
    for given in (k, np.asfortranarray(k), torch.from_numpy(k.astype(np.complex128)).conj().resolve_conj().conj()):
        scan = from_kspace(given, spacing=1.0)
        close(scan.data[0, 0], truth((24, 32)))
    k[:] = 0
    close(scan.data[0, 0], truth((24, 32)))


def test_as_the_reader_of_npy_files(tmp_path: Path) -> None:
    stack = coils(3, (24, 33), 2)
    np.save(tmp_path / "k.npy", stack)
    file = read_raw(tmp_path / "k.npy", RawOptions(pixel=1.5))
    scan = from_kspace(stack, axes="slice coil row column", field_of_view=(24 * 1.5, 33 * 1.5))
    assert torch.equal(scan.data, file.data) and torch.equal(scan.affine, file.affine)
    assert scan.mask is not None and file.mask is not None and torch.equal(scan.mask, file.mask)


def test_a_mask_leaves_samples_out_and_has_to_belong_to_them() -> None:
    stack = coils(2, (24, 32))[0]
    columns = np.arange(32) % 2 == 0
    scan = from_kspace(stack, axes="coil row column", mask=columns[None], spacing=1.0)
    assert torch.equal(scan.data[0] != 0, torch.from_numpy(stack * columns != 0))
    assert scan.mask is not None and scan.provenance["acceleration"] == 2
    stack[..., ~columns] = 0
    with pytest.raises(ValueError, match=r"mask: true for 384 samples of kspace that are exactly 0 in every coil"):
        from_kspace(stack, axes="coil row column", mask=~columns[None])
    with pytest.raises(ValueError, match=r"mask: .*got \(32,\); mask\[None, :\] samples columns"):
        from_kspace(stack, axes="coil row column", mask=columns)
    with pytest.raises(ValueError, match="mask: expected true and false"):
        from_kspace(stack, axes="coil row column", mask=0.5 * columns[None])
    # in the order of k-space, not in ours
    plain = np.fft.fft2(image((24, 32)))
    low = np.abs(np.fft.fftfreq(32, 1 / 32)) < 8
    moved = from_kspace(plain, order="fft2", mask=low[None], spacing=1.0).mask
    assert moved is not None and moved[0].nonzero().flatten().tolist() == list(range(9, 24))


def test_noise_follows_the_scale_of_the_samples() -> None:
    """Every way to give it is the noise of the unitary transform; E|n|^2, real and imaginary part together."""
    rng, shape = np.random.default_rng(0), (32, 32)
    clean = np.fft.fft2(np.stack([image(shape), 2 * image(shape)]))
    covariance = np.array([[4.0, 1 + 1j], [1 - 1j, 9.0]])
    factor = np.linalg.cholesky(covariance)
    white = rng.normal(size=(2, 4000, 2)) @ np.array([1, 1j]) / 2**0.5
    made: dict[str, Any] = {"axes": "coil row column", "order": "fft2", "spacing": 1.0}
    for given, rtol in (({"noise": covariance}, 1e-5), ({"noise_samples": factor @ white}, 0.1)):
        scan = from_kspace(clean, **made, **given)
        assert isinstance(scan.noise, MRINoise) and isinstance(scan.noise.covariance, torch.Tensor)
        wanted = torch.from_numpy(covariance) / (32 * 32)
        torch.testing.assert_close(scan.noise.covariance, wanted, rtol=rtol, atol=rtol * 4 / 1024)
    one = from_kspace(clean, **made, noise=3.0).noise
    assert isinstance(one, MRINoise) and one.covariance == pytest.approx(3 / 32)


def test_maps_of_unit_norm_or_as_the_user_says() -> None:
    shape = (24, 32)
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    maps = np.stack([1 + 0.5 * y + 0.2j * x, 0.6 - 0.3 * x + 0.3j]) * 3
    kspace = centred_fft(torch.from_numpy(maps * image(shape))).numpy()
    power = np.linalg.norm(maps, axis=0)
    with pytest.raises(ValueError, match=r"maps: their root sum of squares .*normalise_maps=True"):
        from_kspace(kspace, axes="coil row column", maps=maps)
    for normalise, wanted in ((True, power * image(shape)), (False, image(shape))):
        scan = from_kspace(kspace, axes="coil row column", maps=maps, normalise_maps=normalise, spacing=1.0, noise=1e-4)
        volume, _ = reconstruct(scan, "cg-sense")
        assert np.abs(volume.numpy()[0] - wanted).max() < 0.02 * wanted.max()


def direct(places: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The sum itself, over the pixels of the image."""
    y, x = (np.arange(n) - n // 2 for n in shape)
    a = np.exp(-2j * np.pi * places[..., 0, None] * y / shape[0])
    b = np.exp(-2j * np.pi * places[..., 1, None] * x / shape[1])
    return np.einsum("...y,yx,...x->...", a, image(shape), b) / np.prod(shape) ** 0.5


def spokes(shape: tuple[int, int], count: int = 40) -> np.ndarray:
    """(spokes, points, 2) row and column, cycles per field of view."""
    angle, radius = np.arange(count)[:, None] * np.pi / count, np.linspace(-0.5, 0.5, 48)[None]
    return np.stack([radius * np.sin(angle) * shape[0], radius * np.cos(angle) * shape[1]], -1)


def test_a_trajectory_in_any_layout_and_units() -> None:
    shape = (24, 32)
    places = spokes(shape)
    samples = direct(places, shape)
    stack = np.stack([samples, 2j * samples])
    per_pixel, size = places / shape, {"image_shape": shape, "spacing": 1.0}
    scans = [
        from_kspace(stack, axes="coil sample", coords=places, **size),
        from_kspace(np.moveaxis(stack, 0, -1), axes="sample coil", coords=places, **size),
        from_kspace(stack.reshape(2, -1), axes="coil sample", coords=places.reshape(-1, 2), **size),
        from_kspace(stack, axes="coil sample", coords=per_pixel, coords_units="cycles/pixel", **size),
        from_kspace(stack, axes="coil sample", coords=per_pixel * 2 * np.pi, coords_units="radians/pixel", **size),
        from_kspace(stack * 768**0.5, axes="coil sample", coords=places, norm="backward", **size),
    ]
    for scan in scans:
        assert isinstance(scan.geometry, Trajectory)
        close(scan.data, torch.from_numpy(stack).reshape(1, 2, -1).to(torch.complex64))
        torch.testing.assert_close(scan.geometry.samples, torch.from_numpy(places).reshape(-1, 2))
    alone = from_kspace(samples, coords=places, noise=1e-3, maps=np.ones((1, *shape), complex), **size)
    volume, _ = reconstruct(alone, "cg-sense")
    found, turned = volume.numpy()[0], np.roll(image(shape)[::-1, ::-1], 1, (0, 1))
    assert 1.4 * np.abs(found - image(shape)).mean() < np.abs(found - turned).mean()


def test_coordinates_that_do_not_belong_are_refused() -> None:
    shape = (24, 32)
    places = spokes(shape)
    samples = direct(places, shape)

    def refused(match: str, kspace: Any = samples, coords: Any = places, **more: Any) -> None:
        with pytest.raises(ValueError, match=match):
            untyped(kspace, **{"coords": coords, "image_shape": shape, **more})

    refused(r"coords: reach \[.*say coords_units='cycles/pixel'", coords=places / shape)
    refused(r"coords: reach .*say coords_units='radians/pixel'", coords=places / shape * 2 * np.pi)
    refused("coords: reach .*scale them, or give", coords=places * 20)
    refused("coords: reach 32 times as far", coords=places, coords_units="cycles/pixel", image_shape=24)
    refused("coords: the samples near the middle of k-space are weaker", kspace=np.roll(samples, 24, 1))
    refused(r"coords: of samples \(40, 48\), and kspace is \(48, 40\)", kspace=samples.T)
    refused(r"coords: expected \(..., 2\).*of three dimensions", coords=np.ones((40, 48, 3)))
    refused("image_shape: needed with coords", image_shape=None)
    refused("order: not with coords", order="fft2")
    refused("mask: not with coords", mask=np.ones(shape))
    refused(r'axes="coil sample" or axes="slice sample"', kspace=samples[None])
    refused(r"density: expected \(40, 48\) as coords", density=np.ones(3))


BASE = truth((24, 32)).numpy()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kspace": np.abs(BASE)}, r"kspace: expected complex numbers, got torch.float32.*magnitudes"),
        ({"kspace": np.stack([BASE.real, BASE.imag], -1)}, "real and imaginary parts"),
        ({"kspace": np.ma.masked_equal(BASE, 0)}, "kspace: a masked array"),
        ({"kspace": "k.npy"}, "kspace: expected an array of numbers, got str"),
        ({"kspace": [[1j], [1j, 2j]]}, "kspace: expected an array, got list"),
        ({"kspace": BASE[:0]}, "kspace: no samples"),
        ({"kspace": np.where(BASE == BASE.max(), np.nan, BASE)}, "kspace: 1 NaN or infinite samples in slice 0"),
        ({"kspace": 0 * BASE}, "kspace: slice 0 is 0 everywhere"),
        ({"kspace": 1e20 * BASE}, "kspace: slice 0: the largest sample is"),
        ({"axes": "coil row column"}, r"axes: coil row column are 3, and kspace has 2"),
        ({"axes": "x y"}, "axes: expected row and column"),
        ({"axes": "row row"}, "axes: expected row and column"),
        ({"axes": 5}, "axes: expected words such as"),
        ({"noise": "loud"}, "noise: expected an array of numbers, got str"),
        ({"spacing": True}, "spacing: expected mm, a number or"),
        ({"order": "fft"}, "order: expected one of 'centred', 'fft2'"),
        ({"norm": "unitary"}, "norm: expected one of 'ortho', 'backward'"),
        ({"spacing": 1.0, "field_of_view": 24.0}, "spacing, field_of_view: give one"),
        ({"spacing": 0.0}, "spacing: expected mm > 0"),
        ({"spacing": (1, 2, 3)}, "spacing: expected mm, a number or"),
        ({"image_shape": 24}, "image_shape: only with coords"),
        ({"noise": -1.0}, "noise/sigma: expected a number > 0"),
        ({"noise": 1e9}, "noise/sigma: noise of 1e"),
        ({"noise": np.eye(3)}, r"noise: expected a number, or a covariance \(1, 1\)"),
        ({"noise": 1.0, "noise_samples": BASE}, "noise, noise_samples: give one"),
        ({"noise_samples": BASE}, r"noise_samples: expected \(1, samples\)"),
        ({"maps": np.ones((2, 24, 32), complex)}, r"maps: expected \(coil, row, column\) = \(1, 24, 32\)"),
        ({"maps": np.zeros((1, 24, 32), complex)}, "maps: 0 everywhere"),
        ({"maps": np.full((1, 24, 32), np.nan + 0j)}, "maps: 768 NaN"),
    ],
)
def test_errors_name_the_argument(given: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        untyped(**{"kspace": BASE, **given})


def test_what_was_not_said_is_told(caplog: pytest.LogCaptureFixture) -> None:
    scan = from_kspace(coils(1, (24, 32), 2), axes="slice coil row column")
    assert "a pixel counts as 1 mm" in caplog.text and "no slice_spacing" in caplog.text
    assert scan.provenance["pixel_from"] == "not given: taken as 1 mm"
