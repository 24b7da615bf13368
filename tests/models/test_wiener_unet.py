"""The latent denoiser: parametrisations, experts by range of noise, folding, weights of the training loss."""

import math

import pytest
import torch
from torch import nn

from medrecon.models.networks.wiener_unet import Expert, ExpertConfig, WienerUNet, positions, skip_and_scale
from medrecon.training.diffusion import MARGIN, DiffusionConfig, DiffusionTask, ExpertTraining, weights
from medrecon.training.loop.config import LoopConfig

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = ("wiener", "v", "epsilon", "x0")
FINE = ExpertConfig(up_to=1.0, channels=(16, 16))
COARSE = ExpertConfig(up_to=80.0, channels=(16, 16, 16), fold=2, attention=1, parametrisation="v")


def denoiser(experts, channels=2, grid=16, seed=0):
    """Experts with random last layers, which MONAI leaves at zero, around the filter of coloured latents."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = WienerUNet(experts, 0.01, channels, grid)
        for name, parameter in net.named_parameters():
            if not parameter.any() and name.endswith("weight"):
                nn.init.normal_(parameter, std=0.1)
    net.wiener.fit(latents(200, channels, grid))
    return net.eval()


def latents(count, channels, grid, seed=1):
    noise = torch.randn(count, channels, grid, grid, generator=torch.Generator().manual_seed(seed))
    smooth = nn.functional.avg_pool2d(nn.functional.pad(noise, (1, 1, 1, 1), mode="circular"), 3, 1)
    return smooth / smooth.std()


class Perfect(nn.Module):
    """A network that knows the answer: F = (z0 - skip) / scale."""

    def __init__(self, kind, net, z0, z, sigma):
        super().__init__()
        self.config = ExpertConfig(parametrisation=kind)
        estimate, error = net.wiener(z, sigma)
        skip, scale = skip_and_scale(kind, z, sigma.view(-1, 1, 1, 1), estimate, error)
        self.target = (z0 - skip) / scale

    def forward(self, *_):
        return self.target


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_network_gives_the_latent_and_has_unit_variance(kind, generator):
    net, z0 = denoiser({"all": FINE}), latents(64, 2, 16, seed=5)
    sigma = torch.logspace(-2, 1.9, 64)
    z = z0 + sigma.view(-1, 1, 1, 1) * torch.randn(z0.shape, generator=generator)
    expert = Perfect(kind, net, z0, z, sigma)
    estimate, error = net.wiener(z, sigma)
    out = net.correct(expert, z, sigma, estimate, error, positions((16, 16), z))
    assert torch.allclose(out, z0, atol=1e-4)
    variance = expert.target.square().mean((1, 2, 3))
    assert float(variance.mean()) == pytest.approx(1.0, abs=0.1)
    assert 0.5 < float(variance.min())
    assert float(variance.max()) < 2.0


def test_targets_are_what_their_names_say(generator):
    z0, n = torch.randn(2, 3, 2, 8, 8, generator=generator)
    sigma = torch.tensor([0.1, 1.0, 10.0]).view(-1, 1, 1, 1)
    z = z0 + sigma * n
    target = {}
    for kind in KINDS[1:]:
        skip, scale = skip_and_scale(kind, z, sigma, z0, sigma)
        target[kind] = (z0 - skip) / scale
    v = (n - sigma * z0) / (1 + sigma**2).sqrt()  # alpha n - sigma' z0 of the variance-preserving z (arXiv 2202.00512)
    assert torch.allclose(target["epsilon"], -n, atol=1e-4)
    assert torch.allclose(target["x0"], z0)
    assert torch.allclose(target["v"], -v, atol=1e-4)


def test_v_is_the_wiener_parametrisation_of_white_latents(generator):
    net = WienerUNet({"all": FINE}, 0.01, 2, 8)  # not fitted: white, of unit variance
    z, sigma = torch.randn(3, 2, 8, 8, generator=generator), torch.tensor([0.05, 1.0, 30.0])
    estimate, error = net.wiener(z, sigma)
    noise = sigma.view(-1, 1, 1, 1)
    for a, b in zip(
        skip_and_scale("wiener", z, noise, estimate, error), skip_and_scale("v", z, noise, estimate, error), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-5)


def test_every_item_of_a_batch_goes_to_the_expert_of_its_noise(generator):
    net = denoiser({"fine": FINE, "coarse": COARSE})
    sigma = torch.tensor([30.0, 0.02, 1.0, 1.001, 80.0, 200.0, 0.005])
    owner = ["coarse", "fine", "fine", "coarse", "coarse", "coarse", "fine"]
    z = torch.randn(7, 2, 16, 16, generator=generator) * (1 + sigma.view(-1, 1, 1, 1))
    with torch.no_grad():
        together = net(z, sigma)
        for i, name in enumerate(owner):
            single, s = z[i : i + 1], sigma[i : i + 1]
            scale = float(single.abs().max())
            assert torch.allclose(together[i : i + 1], net(single, s[0]), atol=1e-5 * scale)
            expected = {
                k: net.correct(e, single, s, *net.wiener(single, s), positions((16, 16), z))
                for k, e in net.experts.items()
            }
            other = "fine" if name == "coarse" else "coarse"
            assert torch.allclose(together[i : i + 1], expected[name], atol=1e-5 * scale)
            assert not torch.allclose(together[i : i + 1], expected[other], atol=1e-3 * float(s))


def test_guidance_goes_on_from_the_wiener_filter_through_the_denoiser(generator):
    from medrecon.models.denoiser import Guidable

    net = denoiser({"fine": FINE, "coarse": COARSE})
    z, sigma = torch.randn(3, 2, 16, 16, generator=generator), torch.tensor([0.1, 0.7, 20.0])
    with torch.no_grad():
        estimate, plain, kept = net.wiener(z, sigma)[0], net(z, sigma), net.guided(1.5)
        assert torch.allclose(kept(z, sigma) - estimate, 1.5 * (plain - estimate), atol=1e-5)
        assert torch.allclose(kept(z[:1], sigma[0]), kept(z, sigma)[:1], atol=1e-5)
        assert torch.equal(net(z, sigma), plain) and torch.equal(net.guided(1.0)(z, sigma), plain)
    assert isinstance(net, Guidable) and isinstance(kept, Guidable)


def test_zero_networks_are_the_exact_gaussian_denoiser(generator):
    net = WienerUNet({"fine": FINE, "coarse": COARSE.model_copy(update={"parametrisation": "wiener"})}, 0.01, 2, 16)
    net.wiener.fit(latents(200, 2, 16))
    z, sigma = torch.randn(2, 2, 16, 16, generator=generator), torch.tensor([0.3, 7.0])
    with torch.no_grad():
        assert torch.equal(net(z, sigma), net.wiener(z, sigma)[0])


@pytest.mark.parametrize(("fold", "shape"), [(1, (13, 11)), (2, (13, 11)), (2, (16, 8)), (4, (18, 31))])
def test_odd_sizes_are_padded_by_their_edge_and_cropped(fold, shape, generator):
    config = ExpertConfig(channels=(16, 16), fold=fold)
    expert = denoiser({"all": config}).experts["all"]
    a, b = torch.randn(2, 2, 2, *shape, generator=generator)
    where, level = positions(shape, a), torch.tensor([100.0, 700.0])
    h, w = (-(-n // expert.multiple) * expert.multiple for n in shape)
    rows, columns = torch.arange(h).clamp(max=shape[0] - 1), torch.arange(w).clamp(max=shape[1] - 1)
    pad = lambda t: t[..., rows[:, None], columns]  # noqa: E731
    with torch.no_grad():
        out = expert(a, b, where, level)
        whole = expert(pad(a), pad(b), pad(where), level)
    assert out.shape == a.shape
    assert torch.allclose(out, whole[..., : shape[0], : shape[1]], atol=1e-5)


def test_folding_keeps_pixels_in_their_place(generator):
    """A network that only copies its first input gives it back through any fold."""
    expert = Expert(ExpertConfig(channels=(16, 16), fold=2), 2)
    expert.net = Copy()
    a, b = torch.randn(2, 1, 2, 9, 6, generator=generator)
    assert torch.equal(expert(a, b, positions((9, 6), a), torch.zeros(1)), a)


class Copy(nn.Module):
    def forward(self, x, level, class_labels):
        return x[:, :8]


@pytest.mark.parametrize("config", [FINE, COARSE])
def test_gradients_reach_every_weight_and_the_latent(config, generator):
    net = denoiser({"all": config}).train()
    z = torch.randn(2, 2, 14, 10, generator=generator, requires_grad=True)
    net(z, torch.tensor([0.3, 0.9])).square().sum().backward()
    assert torch.isfinite(z.grad).all()
    assert (z.grad.flatten(1).norm(dim=1) > 0).all()
    silent = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_positions_are_pixel_centres():
    rows, columns = positions((4, 2), torch.zeros(1))
    assert torch.allclose(rows[:, 0], torch.tensor([-0.75, -0.25, 0.25, 0.75]))
    assert torch.allclose(columns[0], torch.tensor([-0.5, 0.5]))


@pytest.mark.parametrize("bounds", [(), (2.0, 1.0), (1.0, 1.0), (0.005, 1.0), (0.01,)])
def test_experts_in_a_wrong_order_are_refused(bounds):
    experts = {f"e{i}": FINE.model_copy(update={"up_to": b}) for i, b in enumerate(bounds)}
    with pytest.raises(ValueError, match="up_to must rise"):
        WienerUNet(experts, 0.01, 2, 8)


def test_weights_in_closed_form():
    sigma = torch.tensor([0.05, 0.4, 5**-0.5, 0.5, 3.0, 80.0], dtype=torch.float64)
    white = sigma / (1 + sigma.square()).sqrt()
    assert torch.allclose(weights("error", sigma, white) * white.square(), torch.ones(6, dtype=torch.float64))
    assert torch.allclose(weights("edm", sigma, white), weights("error", sigma, white))  # the same if latents are white
    expected = torch.tensor([5.0, 5.0, 5.0, 4.0, 1 / 9, 1 / 6400], dtype=torch.float64)
    assert torch.allclose(weights("min-snr", sigma, white), expected)


LOOP = LoopConfig(bf16=False)


def task(name="fine", weighting="error"):
    experts = {
        "fine": ExpertTraining(up_to=1.0, channels=(16, 16), crop=8, batch=8, weighting=weighting, loop=LOOP),
        "coarse": ExpertTraining(up_to=80.0, channels=(16, 16), crop=16, batch=8, loop=LOOP),
    }
    net = DiffusionConfig(experts=experts).denoiser(2, 16)
    z = latents(200, 2, 16)
    net.wiener.fit(z)
    zero, one = torch.zeros(2, 1, 1), torch.ones(2, 1, 1)
    return DiffusionTask(net, name, experts[name], z, latents(40, 2, 16, seed=9), zero, one), net.experts[name]


def test_experts_are_trained_a_margin_beyond_their_range(generator):
    assert task("fine")[0].range == (0.01, MARGIN)
    coarse = task("coarse")[0]
    assert coarse.range == (1 / MARGIN, 80.0)
    log = coarse.sigmas(1000, generator).log()
    low, high = (math.log(s) for s in coarse.range)
    place = (log - low) / (high - low) * 1000  # one draw in each of 1000 equal steps of log sigma
    assert torch.equal(place.clamp(0, 999.99).floor().int(), torch.arange(1000, dtype=torch.int32))


def test_a_network_at_zero_scores_one_and_starts_at_the_gaussians_loss(generator):
    """Weighted by its own expected error, the Wiener filter's loss is 1 at every noise; edm and min-snr are not."""
    fine, expert = task("fine")
    assert all(ratio == pytest.approx(1.0) for ratio in fine.validate(expert).values())
    assert sorted(fine.errors(expert, (0.05, 0.4, 4.0))) == [0.05, 0.4]
    losses = [fine.loss(expert, generator).item() for _ in range(20)]
    assert sum(losses) / 20 == pytest.approx(1.0, rel=0.05)
    other, expert = task("fine", weighting="min-snr")
    assert abs(other.loss(expert, generator).item() - 1) > 0.3


def test_an_expert_learns_one_batch_by_heart():
    """The loss, its crop, positions and noise level all reach the network: thirty steps on one draw end near zero."""
    fine, expert = task("fine")
    optimizer = torch.optim.Adam(expert.parameters(), lr=5e-3)
    for _ in range(30):
        optimizer.zero_grad()
        loss = fine.loss(expert, torch.Generator().manual_seed(0))
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2
