"""Folded pixels as latents: orthogonal, noise stays white, and solvers do what they do on plain pixels."""

import json
from dataclasses import replace

import pytest
import torch

from medrecon.core.measurement import Measurement
from medrecon.diffusion.draw import Draw
from medrecon.geometry import ImageGrid, ParallelGeometry
from medrecon.models.exact.gaussian import GaussianPrior, IdentityAutoencoder, smooth_gaussian
from medrecon.models.networks.kl_autoencoder import KLAutoencoder
from medrecon.models.networks.pixel_space import PixelSpace
from medrecon.models.networks.wiener_unet import ExpertConfig, WienerUNet
from medrecon.models.prior import Prior
from medrecon.models.store import build_autoencoder, load_prior, save_prior
from medrecon.models.values import Linear
from medrecon.operators.ct.operator import CTOperator
from medrecon.solvers.diffusion.base import DiffusionSolver
from medrecon.solvers.diffusion.proximal.dds import DDS
from medrecon.solvers.diffusion.resample.fast import ReSample
from medrecon.solvers.diffusion.resample.paper import ReSamplePaper
from medrecon.training.images.latents import statistics


def normalised(mean: float, std: float) -> PixelSpace:
    space = PixelSpace(4)
    space.normalise(torch.full((16, 1, 1), mean), torch.full((16, 1, 1), std))
    return space


def test_folding_is_orthogonal():
    """As a matrix it is a permutation, decoded by its transpose."""
    columns = PixelSpace(4).encode(torch.eye(64).reshape(64, 8, 8)).flatten(1).T
    assert torch.equal(columns @ columns.T, torch.eye(64))
    assert torch.equal(PixelSpace(4).decode(columns.T.reshape(64, 16, 2, 2)), torch.eye(64).reshape(64, 8, 8))


def test_noise_on_the_latent_is_white_noise_on_the_pixels(generator):
    """Of s sigma on every pixel, uncorrelated; deviations of the channels one by one would not leave it white."""
    space, sigma = normalised(-0.3, 0.4), 0.7
    z = torch.randn(2000, 16, 2, 2, generator=generator)
    change = (space.decode(z + sigma * torch.randn(z.shape, generator=generator)) - space.decode(z)).flatten(1)
    wanted = (0.4 * sigma) ** 2 * torch.eye(64)
    assert float((torch.cov(change.T) - wanted).abs().max()) < 5 * wanted[0, 0] * (2 / 2000) ** 0.5
    uneven = torch.linspace(0.2, 0.6, 16)[:, None, None] * sigma * torch.randn(z.shape, generator=generator)
    unfair = torch.cov(PixelSpace(4).decode(uneven).flatten(1).T)
    assert float((unfair - wanted).abs().max()) > 5 * wanted[0, 0] * (2 / 2000) ** 0.5


def test_one_mean_and_one_deviation_of_all_pixels(generator):
    images = torch.randn(5, 12, 8, generator=generator) * torch.linspace(0.1, 2, 8) + torch.linspace(0, 1, 12)[:, None]
    space = PixelSpace(4)
    space.normalise(*statistics(space.posterior(images)[0]))
    assert space.latent_mean.numel() == space.latent_std.numel() == 1
    z = space.encode(images)
    assert float(z.mean()) == pytest.approx(0, abs=1e-6)
    assert float(z.std(correction=0)) == pytest.approx(1, rel=1e-5)
    assert torch.allclose(space.decode(z), images, atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 12), (30, 27)])
def test_a_prior_of_pixels_loses_nothing_at_any_size(shape, generator):
    prior = Prior(normalised(0.1, 0.5), smooth_gaussian((16, 2, 2)), Linear(), "a.u.", "MR", error=0.0)
    x = torch.rand(2, *shape, generator=generator)
    z = prior.encode(x)
    assert z.shape == (2, 16, -(-shape[0] // 4), -(-shape[1] // 4))
    assert torch.allclose(prior.decode(z, shape), x, atol=1e-6)


def test_a_card_says_which_autoencoder(tmp_path, generator):
    """Through the store: two scalars and the denoiser; cards from before there were kinds are of KL autoencoders."""
    space = normalised(-0.2, 0.3)
    experts = {"all": ExpertConfig(channels=(16, 16))}
    denoiser = WienerUNet(experts, 0.01, 16, 4).eval()
    card = {
        "autoencoder": {"kind": "pixels", "factor": 4}, "values": {"type": "linear"}, "units": "a.u.",
        "modality": "MR", "error": 0.0,
        "diffusion": {"sigma_min": 0.01, "experts": {k: e.model_dump() for k, e in experts.items()}},
    }  # fmt: skip
    path = tmp_path / "twin.safetensors"
    save_prior(path, space, denoiser, card)
    prior = load_prior(str(path))
    x = torch.rand(1, 16, 16, generator=generator)
    assert isinstance(prior.autoencoder, PixelSpace)
    assert torch.equal(prior.autoencoder.encode(x), space.encode(x))
    z, sigma = torch.randn(1, 16, 4, 4, generator=generator), torch.tensor(0.5)
    with torch.no_grad():
        assert torch.allclose(prior.denoiser(z, sigma), denoiser(z, sigma), atol=2e-3)  # stored in float16
    old = {"channels": [16, 16], "latent_channels": 2, "res_blocks": 1, "patch": 2, "crop": 128, "batch": 4}
    assert isinstance(build_autoencoder(old), KLAutoencoder)
    card = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(card | {"autoencoder": {"kind": "wavelets"}}))
    with pytest.raises(ValueError, match="wavelets"):
        load_prior(str(path))


def twins() -> tuple[Prior, Prior]:
    """One Gaussian of 16 x 16 pixels: on the pixels themselves, and folded."""
    plain = smooth_gaussian((1, 16, 16))
    order = torch.nn.functional.pixel_unshuffle(torch.arange(256.0).view(1, 1, 16, 16), 4).flatten().long()
    folded = GaussianPrior(plain.mean[order], plain.covariance[order][:, order], (16, 4, 4))
    common = Linear(-1.0, 1.0), "a.u.", "CT"
    return (Prior(IdentityAutoencoder(), plain, *common, error=0.0),
            Prior(PixelSpace(4), folded, *common, error=0.0))  # fmt: skip


class SameNoise(Draw):
    """Noise drawn on the pixels, folded for the folded twin."""

    trajectories = 1

    def noise(self, shape: tuple[int, ...]) -> torch.Tensor:
        draw = torch.randn(1, 1, 16, 16, generator=self.generators[0])
        return torch.nn.functional.pixel_unshuffle(draw, 16 // shape[-1])


SMALL = {"steps": 12, "skip": 2, "travel": 2, "pixel_iterations": 5, "latent_iterations": 5}


@pytest.mark.parametrize(
    "make",
    [lambda p: DDS(p, steps=12, start=100.0), lambda p: ReSample(p, steps=6, pairs=1, antithetic=False),
     lambda p: ReSample(p, start=100.0, pairs=1, antithetic=False),
     lambda p: ReSamplePaper(p, **SMALL)],
    ids=["dds", "fast", "from noise", "paper"],
)  # fmt: skip
def test_solvers_on_folded_pixels_are_solvers_on_pixels(make, monkeypatch):
    """Both twins end at one image, though no round-trip error is expected; a Gaussian folded wrongly does not. Single
    trajectories: where the denoiser is unsure is a map over the latent's places, coarser when folded."""
    for cls in (DiffusionSolver, ReSample):
        monkeypatch.setattr(cls, "draw", lambda self, generator, shape: SameNoise(generator))
    plain, folded = twins()
    g = torch.Generator().manual_seed(3)
    truth = plain.denoiser.sample(1, g)[:, 0]
    A = CTOperator(ParallelGeometry(tuple(torch.arange(8) * torch.pi / 8), 25, 1.0), ImageGrid((16, 16), (1.0, 1.0)))
    clean = A(truth)
    y = Measurement(clean + 0.1 * torch.randn(clean.shape, generator=g), torch.full_like(clean, 100.0))
    one, two = (make(p)(A, y, generator=torch.Generator().manual_seed(5)).image for p in (plain, folded))
    assert bool(torch.isfinite(one).all())
    assert float((one - two).norm() / one.norm()) < 1e-3
    wrong = replace(folded, denoiser=GaussianPrior(plain.denoiser.mean, plain.denoiser.covariance, (16, 4, 4)))
    three = make(wrong)(A, y, generator=torch.Generator().manual_seed(5)).image  # the control: pixels in another order
    assert float((one - three).norm() / one.norm()) > 0.03
