"""The complex prior: global phases, simulated phases, exact posteriors, training to a file, multi-coil MRI."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from PIL import Image

from medrecon.core.measurement import Measurement
from medrecon.core.volume import Volume
from medrecon.diffusion.latent import LatentSpace
from medrecon.diffusion.trust import PixelError
from medrecon.geometry import ImageGrid, ParallelGeometry
from medrecon.models.exact.gaussian import IdentityAutoencoder, smooth_gaussian
from medrecon.models.networks.kl_autoencoder import KLAutoencoder, block_components
from medrecon.models.networks.wiener_unet import ExpertConfig, WienerUNet
from medrecon.models.prior import Prior
from medrecon.models.store import load_prior
from medrecon.models.values import Linear
from medrecon.operators.algebra import Diagonal
from medrecon.operators.ct.operator import CTOperator
from medrecon.pipeline import reconstruct
from medrecon.simulate import simulate_mri
from medrecon.solvers.diffusion.proximal.dds import DDS
from medrecon.solvers.diffusion.proximal.dds_paper import DDSPaper
from medrecon.solvers.diffusion.resample.fast import ReSample
from medrecon.solvers.diffusion.resample.paper import ReSamplePaper
from medrecon.solvers.diffusion.resample.reference import ReSampleReference
from medrecon.training.config import TrainConfig
from medrecon.training.images.phases import Phases
from medrecon.training.images.slices import Slices
from medrecon.training.run import assemble, load_data, train_autoencoder, train_diffusion

SCALE = Linear(-1.0, 1.0)


def ellipses(count: int, side: int, generator: torch.Generator) -> torch.Tensor:
    """Magnitudes (count, side, side) of order 1: three ellipses each on nothing."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="ij")
    image = torch.zeros(count, side, side)
    for size in (0.9, 0.5, 0.3):
        a, b, cx, cy, level = (torch.rand(5, count, 1, 1, generator=generator) - 0.5).unbind(0)
        inside = ((x - 0.4 * cx) / (size + 0.2 * a)) ** 2 + ((y - 0.4 * cy) / (size + 0.2 * b)) ** 2 < 1
        image = torch.where(inside, 0.6 + 0.7 * level, image)
    return image


def complex_images(count: int, side: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return Phases()(ellipses(count, side, g), side, g)


def nmse(x: torch.Tensor, truth: torch.Tensor) -> float:
    return float((x - truth).abs().square().sum() / truth.abs().square().sum())


# The autoencoder.


def fitted(channels: int = 16) -> KLAutoencoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = KLAutoencoder((16, 16), channels, 1, 2, complex=True)
    net.fit(complex_images(24, 64))
    return net.eval().requires_grad_(False)


def test_a_global_phase_of_the_image_is_one_of_the_latent():
    """Exactly, where the network is still at zero; a basis of real components (the control) does not do it."""
    net, u, phase = fitted(), complex_images(2, 32, 5), torch.polar(torch.tensor(1.0), torch.tensor(0.7))
    as_complex = lambda z: torch.complex(*z.chunk(2, 1))  # noqa: E731
    torch.testing.assert_close(as_complex(net.encode(phase * u)), phase * as_complex(net.encode(u)))
    once, turned = (net.decode(net.encode(v)) for v in (u, phase * u))
    torch.testing.assert_close(turned, phase * once)
    assert 0 < nmse(once, u) < 0.05
    real, _, _ = block_components(ellipses(24, 64, torch.Generator().manual_seed(0)), 4, 8)
    through = lambda v: v @ torch.block_diag(real @ real.T, torch.zeros(16, 16))  # noqa: E731
    v = torch.randn(5, 16, 2, generator=torch.Generator().manual_seed(0))
    rotation = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    flat = lambda w: w.movedim(-1, 1).flatten(1)  # noqa: E731
    control = through(flat(v @ rotation)) - flat((through(flat(v)).unflatten(1, (2, 16)).movedim(1, -1)) @ rotation)
    assert float(control.abs().max()) > 0.1


def test_complex_components_hold_what_real_ones_hold_of_the_magnitude():
    """Blocks of one phase each: C complex components leave the squared error of C real ones, in twice the channels."""
    g = torch.Generator().manual_seed(1)
    magnitude = ellipses(24, 64, g)
    turns = torch.rand(24, 16, 16, generator=g).repeat_interleave(4, 1).repeat_interleave(4, 2)
    u = magnitude * torch.polar(torch.ones_like(turns), 2 * math.pi * turns)
    basis, mean, _ = block_components(u, 4, 12)
    assert basis.shape == (32, 12) and float(mean.abs().max()) == 0
    torch.testing.assert_close(basis.T @ basis, torch.eye(12), atol=1e-5, rtol=0)
    parts = torch.nn.functional.pixel_unshuffle(torch.view_as_real(u).movedim(-1, 1), 4).movedim(1, -1)
    left = float((parts - parts @ basis @ basis.T).square().sum())
    blocks = torch.nn.functional.pixel_unshuffle(magnitude[:, None], 4).movedim(1, -1).flatten(0, -2).double()
    values = torch.linalg.svdvals(blocks).square()  # not centred, as circular blocks are not
    assert left == pytest.approx(float(values[6:].sum()), rel=1e-3)


def test_gradients_of_encoder_and_decoder():
    """The directional derivatives of autograd are those of finite differences."""
    net, g = fitted().double(), torch.Generator().manual_seed(0)
    for parameter in net.parameters():  # leave the network's zeros, so that it is not linear
        parameter.add_(0.02 * torch.randn(parameter.shape, generator=g, dtype=torch.float64))
    u = complex_images(1, 16).to(torch.complex128)
    for f, x in ((lambda v: net.encode(v).square().sum(), u), (lambda z: net.decode(z).abs().sum(), net.encode(u))):
        direction = torch.randn(x.shape, dtype=x.dtype, generator=g)
        leaf = x.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(f(leaf), leaf)
        expected = float((f(x + 1e-6 * direction) - f(x - 1e-6 * direction)) / 2e-6)
        assert float((gradient.conj() * direction).real.sum()) == pytest.approx(expected, rel=1e-5)


def test_an_odd_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="even number"):
        KLAutoencoder((16, 16), 3, 1, 2, complex=True)


# Training data.


def test_phases_keep_the_magnitude_and_prefer_no_angle():
    g = torch.Generator().manual_seed(0)
    m = ellipses(300, 32, g)
    x = Phases()(m, 32, g)
    torch.testing.assert_close(x.abs(), m)
    power = float(m.square().mean())
    for moment in (x.mean(0), x.square().mean(0)):  # circular: both vanish, by the law of large numbers
        assert float(moment.abs().square().mean()) < 5 * power / 300
    inside = m[:, 14:18, 14:18] > 0.1
    smooth = (x[:, 14:18, 15:18] * x[:, 14:18, 14:17].conj()).angle().abs()[inside[..., 1:] & inside[..., :-1]]
    assert 0 < float(smooth.median()) < 0.3
    faint = Phases()(torch.full((1, 32, 32), 0.02), 32, g).angle()  # only noise: no neighbour knows its neighbour
    assert float((faint.diff(dim=-1) * 1j).exp().mean().abs()) < 0.1


def test_held_out_images_are_always_the_same_and_training_adds_noise():
    data = (1000 * ellipses(5, 32, torch.Generator().manual_seed(0))).to(torch.int16)
    slices = Slices(data, tuple("abcde"), 1e-3, phases=Phases(noise=0.1))
    assert torch.equal(slices.images(slice(2, 4)), slices.images(slice(None))[2:4])
    assert not slices.images(slice(None))[0].isclose(slices.images(slice(None))[1]).all()
    g = torch.Generator().manual_seed(0)
    x = torch.zeros(2000, 8, 8, dtype=torch.complex64)
    level = slices.phases.noisy(x, g).abs().square().mean((1, 2)).sqrt()
    assert 0.005 < float(level.min()) and float(level.max()) < 0.14
    assert float(level.log().mean()) == pytest.approx(math.log(0.1 / 10**0.5), abs=0.05)


MANIFEST = """
name = "synthetic"
modality = "MR"
units = "a.u."
content = "ellipses"
licence = "none"
licence_checked = "made here"
kind = "sheets"
train = "train"
val = "val"
slope = 0.004
intercept = 0.0
"""


def settings(root, **changes) -> dict:
    loop = {"steps": 3, "warmup": 1, "validate_every": 3, "bf16": False}
    expert = {"up_to": 1.0, "channels": [16, 16], "crop": 8, "batch": 2, "views": 1, "loop": loop}
    return {
        "manifest": root / "m.toml", "modality": "MR", "size": 32, "values": {"type": "linear", "low": -1},
        "windows": {"full": {"low": 0, "high": 1}}, "phases": {},
        "autoencoder": {"channels": [16, 16], "latent_channels": 8, "crop": 16, "batch": 2, "complex": True},
        "autoencoder_loop": loop, "diffusion": {"sigma_min": 0.4, "experts": {"all": expert}}, **changes,
    }  # fmt: skip


def test_magnitudes_to_a_complex_prior_that_loads(tmp_path):
    for split, count in (("train", 12), ("val", 4)):
        (tmp_path / split).mkdir()
        sheet = (250 * ellipses(count, 32, torch.Generator().manual_seed(count))).clamp(0, 255).reshape(-1, 32)
        Image.fromarray(sheet.numpy().astype(np.uint8)).save(tmp_path / split / "s.png")
        rows = "".join(f"s.png\t{i}\te\t{split}{i}\tx\n" for i in range(count))
        (tmp_path / split / "index.tsv").write_text("sheet\tframe\tsource\tsubject\tdetail\n" + rows)
    (tmp_path / "m.toml").write_text(MANIFEST)
    config, silent = TrainConfig.model_validate(settings(tmp_path)), lambda *_: None
    scores = train_autoencoder(config, tmp_path / "run", silent)
    assert scores["psnr_magnitude_full"] > scores["psnr_full"] > 15
    train_diffusion(config, tmp_path / "run", silent)
    card = assemble(config, tmp_path / "run")
    prior = load_prior(str(tmp_path / "run" / "prior.safetensors"))
    assert prior.complex and prior.autoencoder.complex and card["autoencoder"]["complex"]
    x = load_data(config)[1].images(slice(None))[:, :30, :27]  # not a multiple of 4: padded and cropped
    z = prior.encode(x)
    assert z.shape == (4, 8, 8, 7) and not z.is_complex()
    assert prior.denoiser(z, torch.tensor(0.5)).shape == z.shape
    y = prior.decode(z, (30, 27))
    assert y.dtype == torch.complex64 and nmse(y, x) < 0.2
    assert prior.error == pytest.approx(10 ** (-scores["psnr_full"] / 20), rel=0.3)
    with pytest.raises(ValueError, match="complex images, got real"):
        prior.encode(x.abs())
    with pytest.raises(ValueError, match="needs no phase"):
        prior.with_phase(torch.ones(1, 30, 27, dtype=torch.complex64))


@pytest.mark.parametrize("wrong", [
    {"modality": "CT"}, {"values": {"type": "linear"}}, {"values": {"type": "asinh"}},
])  # fmt: skip
def test_a_complex_prior_needs_one_scale(tmp_path, wrong):
    with pytest.raises(ValueError, match="one scale"):
        TrainConfig.model_validate(settings(tmp_path, **wrong))


# Solvers.


def gaussian_case(size: int = 12, noise: float = 0.05):
    """Half the pixels of a complex Gaussian image, its exact posterior mean and standard deviation."""
    denoiser = smooth_gaussian((2, size, size))
    prior = Prior(IdentityAutoencoder(complex=True), denoiser, SCALE, "a.u.", "MR", 0.01, "example")
    g = torch.Generator().manual_seed(0)
    mask = (torch.rand(size, size, generator=g) < 0.5).float()
    truth = prior.decode(denoiser.sample(1, g), (size, size))
    y = mask * (truth + noise * torch.randn(truth.shape, dtype=truth.dtype, generator=g))
    seen = mask.flatten().bool().repeat(2)
    parts = torch.view_as_real(y).movedim(-1, 1).flatten()
    mean, cov = denoiser.posterior(torch.eye(2 * size**2)[seen], parts[seen], noise / 2**0.5)
    oracle = torch.complex(*mean.reshape(2, size, size).float())
    spread = cov.diag().reshape(2, size, size).sum(0).sqrt().float()
    return prior, Diagonal(mask.to(torch.complex64)), Measurement(y, (mask / noise**2)[None]), oracle, spread


def draws(solver, A, y, count):
    return torch.stack([solver(A, y, generator=torch.Generator().manual_seed(k)).image[0] for k in range(count)])


def test_the_fast_mode_samples_the_exact_complex_posterior():
    prior, A, y, mean, spread = gaussian_case()
    rms = lambda x: float(x.abs().square().mean().sqrt())  # noqa: E731
    end = prior.denoiser.sigma_min
    x = draws(ReSample(prior, start=100.0, end=end, steps=60, eta=1.0, antithetic=False, pairs=1), A, y, 12)
    blind = Measurement(y.data, y.precision * 1e-12)  # the control sees no data
    far = draws(ReSample(prior, start=100.0, end=end, steps=30, eta=1.0, antithetic=False, pairs=1), A, blind, 2)
    assert rms(x.mean(0) - mean) < 0.25 < 0.5 < rms(far.mean(0) - mean)
    assert 0.8 < rms(x.std(0)) / rms(spread) < 1.25


ADAM = {"steps": 40, "skip": 4, "pixel_lr": 0.1, "latent_lr": 0.1, "pixel_iterations": 40, "latent_iterations": 40}


@pytest.mark.parametrize(
    "make",
    [
        lambda p: ReSample(p, start=100.0, steps=20, pairs=1),
        lambda p: ReSamplePaper(p, **ADAM),
        lambda p: ReSampleReference(p, **ADAM),
        lambda p: DDS(p, start=100.0, steps=30),
        lambda p: DDSPaper(p, steps=30, gamma=20.0),
    ],
    ids=["resample", "resample-paper", "resample-reference", "dds", "dds-paper"],
)
def test_every_latent_solver_takes_complex_images(make):
    """Nearer the posterior mean than zero-filling, a batch of two being two runs."""
    prior, A, y, mean, _ = gaussian_case(8)
    solver = make(prior)
    both = Measurement(torch.cat([y.data, 0.5j * y.data]), y.precision)
    run = lambda m: solver(A, m, generator=torch.Generator().manual_seed(3)).image  # noqa: E731
    pair = run(both)
    assert pair.dtype == torch.complex64
    torch.testing.assert_close(pair, torch.cat([run(both[0:1]), run(both[1:2])]), rtol=1e-3, atol=1e-3)
    assert nmse(pair[0], mean) < 0.6 * nmse(y.data[0], mean)


def test_the_error_expected_of_a_pixel_counts_both_parts():
    """For the identity at noise s: floor^2 + 2 s^2 / (1 + s^2), E|n|^2 of a complex error, in image units."""
    prior, A, y, _, _ = gaussian_case(12)
    space = LatentSpace(prior.with_units(0.5), A, y)  # an error of 1 in the network's range is 2 in the image
    error = PixelError.around(space, space.encode(y.data), warm=False)(y.data, 0.5, None)
    assert not error.is_complex()
    expected = (0.01**2 + 2 * 0.5**2 / (1 + 0.5**2)) ** 0.5 * 2
    torch.testing.assert_close(error, torch.full_like(error, expected), rtol=1e-3, atol=0)


def test_priors_that_do_not_fit_the_images_are_refused():
    prior, A, y, _, _ = gaussian_case(8)
    magnitudes = Prior(IdentityAutoencoder(), smooth_gaussian((1, 8, 8)), SCALE, "a.u.", "MR", 0.01, "mags")
    with pytest.raises(ValueError, match=r"mags is a magnitude prior: use prior\.with_phase"):
        LatentSpace(magnitudes, A, y)
    with pytest.raises(ValueError, match="mags is a prior of real images, got complex"):
        magnitudes.encode(y.data)
    ct = CTOperator(ParallelGeometry(torch.linspace(0, 3, 5).tolist(), 12, 1.0), ImageGrid((8, 8), (1.0, 1.0)))
    data = Measurement(torch.zeros(1, *ct.out_shape), torch.ones(1, 1, 1))
    with pytest.raises(ValueError, match="takes real images and example is a prior of complex ones"):
        LatentSpace(prior, ct, data)


# The pipeline.


@pytest.fixture(scope="module")
def tiny_prior() -> Prior:
    """The linear autoencoder and the Wiener filter of ellipses with phases: the untrained networks add nothing."""
    net, images = fitted(24), complex_images(60, 64, 3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = WienerUNet({"all": ExpertConfig(channels=(16, 16))}, 0.01, 24, 16).eval().requires_grad_(False)
    latents = net.encode(images)
    net.latent_mean.copy_(latents.mean((0, 2, 3))[:, None, None])
    net.latent_std.copy_(latents.std((0, 2, 3))[:, None, None])
    z = net.encode(images)
    denoiser.wiener.fit(z)
    assert torch.equal(denoiser(z[:2], torch.tensor(0.3)), denoiser.wiener(z[:2], torch.full((2,), 0.3))[0])
    return Prior(net, denoiser, SCALE, "a.u.", "MR", 0.02, "tiny")


def test_multi_coil_mri_with_a_complex_prior_and_no_phase(tiny_prior, monkeypatch):
    truth = ellipses(1, 64, torch.Generator().manual_seed(9))
    volume = Volume(900 * truth, torch.eye(4, dtype=torch.float64), "a.u.", "MR")
    scan = simulate_mri(volume, accel=4, acs=12, coils=4, snr_db=20, generator=torch.Generator().manual_seed(1))
    asked = []
    monkeypatch.setattr("medrecon.models.store.load_prior", lambda name, _: asked.append(name) or tiny_prior)

    def no_phase(*_):
        raise AssertionError("a complex prior needs no estimate of the phase")

    monkeypatch.setattr("medrecon.pipeline.mri_problem.smooth_phase", no_phase)
    filled, linear = (nmse(reconstruct(scan, solver)[0].data, volume.data) for solver in ("zero-filled", "cg-sense"))
    for solver, options in (("resample", {"steps": 4}), ("dds", {"steps": 8, "start": 0.25, "end": 0.01})):
        result, report = reconstruct(scan, solver, settings=options, prior="mri_complex")
        assert report["prior"]["name"] == "tiny"
        assert nmse(result.data, volume.data) < min(0.9 * filled, 0.7 * linear)
        assert report["chi2"] < 2
    assert asked == ["mri_complex", "mri_complex"]
    magnitudes = dataclasses.replace(tiny_prior, autoencoder=IdentityAutoencoder())
    monkeypatch.setattr("medrecon.models.store.load_prior", lambda *_: magnitudes)
    with pytest.raises(AssertionError, match="estimate of the phase"):  # the control: a magnitude prior asks for it
        reconstruct(scan, "resample")
