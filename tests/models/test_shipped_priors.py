"""Every prior that comes with the package: its card, its recipe, its round trip and its denoiser on a real scan."""

import pytest
import torch

from medrecon.cli.training import load_config
from medrecon.demo import CASES
from medrecon.models.store import SHIPPED, load_prior, shipped
from medrecon.solvers.diffusion.resample.fast import ReSample

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=shipped())
def prior(request):
    return load_prior(request.param)


def scan(prior):
    """A slice (1, H, W) that no prior was trained on, of pydicom's wheel, in the units of the prior."""
    case = next(c for c in CASES if c.name == ("ct_head" if prior.modality == "CT" else "mr_abdomen"))
    x = case.reference(case.load()).data[:1].float()
    return x.clamp(-1024, 3071) if prior.modality == "CT" else x / x.quantile(0.999)


def psnr(error, prior):
    return float(20 * torch.log10((4095.0 if prior.modality == "CT" else 1.0) / error.square().mean().sqrt()))


def test_altogether_below_sixty_megabytes():
    assert sum(path.stat().st_size for path in SHIPPED.glob("*.safetensors")) < 60e6


def test_the_card_says_what_a_user_must_know(prior):
    card = prior.card
    assert card["data"] and all(source["licence"] and source["origin"] for source in card["data"]["sources"])
    assert "RESEARCH USE ONLY" in card["use"]
    experts = set(card["diffusion"]["experts"])
    assert experts == set(card["validation"]["denoising_mse"]) and experts <= set(card["history"])
    for facts in card["history"].values():
        assert facts["steps"] > 0 and facts["minutes"] > 0 and facts["hardware"] and facts["optimizer"]
    assert "/" not in card["started_from"], "a path of the machine it was trained on"


def test_the_recipe_beside_it_makes_the_same_networks(prior):
    recipe, card = load_config(SHIPPED / f"{prior.name}.yaml", None), prior.card
    solver = ReSample(prior)
    assert (recipe.start, recipe.end) == solver.span() == (card["start"], card["end"])
    assert (recipe.steps, recipe.pairs) == (solver.count(), solver.trajectories()) == (card["steps"], card["pairs"])
    assert recipe.search == solver.searching() == card.get("search", 0)
    assert not recipe.search or recipe.search_level == solver.searcher().high == card["search_level"]
    assert recipe.search_below == card.get("search_below")
    assert recipe.autoencoder.model_dump(mode="json") == card["autoencoder"]
    experts = {name: e.model_dump(mode="json") for name, e in recipe.diffusion.experts.items()}
    assert experts == card["diffusion"]["experts"]
    assert recipe.diffusion.spectrum in (None, prior.denoiser.wiener.grid)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_can_be_read(path):
    """Those whose weights are not shipped too."""
    assert load_config(path, None).diffusion.experts


def test_round_trip_of_a_real_scan_of_any_size(prior):
    whole = scan(prior)
    for x in (whole, whole[:, 30:151, 50:183]):
        with torch.no_grad():
            back = prior.decode(prior.encode(x), tuple(x.shape))
        assert back.shape == x.shape
        assert psnr(back - x, prior) > (42 if prior.modality == "CT" else 34)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 2.0, 6.0])
def test_the_denoiser_knows_more_than_its_gaussian(prior, sigma, generator):
    with torch.no_grad():
        z0 = prior.encode(scan(prior))
        z = z0 + sigma * torch.randn(z0.shape, generator=generator)
        network = prior.denoiser(z, torch.tensor(sigma)) - z0
        gaussian = prior.denoiser.wiener(z, torch.full((1,), sigma))[0] - z0
    assert float(network.square().mean()) < 0.9 * float(gaussian.square().mean())


def test_an_image_that_moves_takes_its_latent_along(prior, generator):
    """`change` is nearly what the encoder says of a blurred scan that becomes sharp, in its own place and mirrored; the
    way back has the other sign."""
    sharp = scan(prior)
    blurred = torch.nn.functional.avg_pool2d(sharp[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
    for seen in (prior, prior.mirrored()):
        expected = seen.encode(sharp) - seen.encode(blurred)
        found = seen.change(blurred, sharp)
        assert float((found - expected).norm() / expected.norm()) < 0.06
        torch.testing.assert_close(seen.change(sharp, blurred), -found, atol=1e-4, rtol=1e-4)
    assert float((prior.change(blurred, sharp) - expected).norm() / expected.norm()) > 0.5  # in the mirror
