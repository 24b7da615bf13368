"""The terms of the autoencoder's loss: closed forms, what each weight adds, and that the default adds nothing."""

import math

import pytest
import torch
from torch import Tensor

from medrecon.models.networks.kl_autoencoder import KLAutoencoder
from medrecon.models.values import Asinh, Linear
from medrecon.quality.metrics import ssim
from medrecon.training.autoencoder import (
    AutoencoderConfig,
    AutoencoderTask,
    Window,
    dissimilarity,
    edge_error,
    window_error,
)
from medrecon.training.images.augment import crops
from medrecon.training.images.phases import Phases
from medrecon.training.images.slices import Slices
from medrecon.training.loop.gpu import noise_like

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOW = Window(low=-100.0, high=300.0)


def ramp(slope: float, size: int = 12) -> Tensor:
    """Values rise along the rows: (1, size, size)."""
    return (slope * torch.arange(float(size))).expand(1, size, size)


@pytest.mark.parametrize("axes", [(-2, -1), (-1, -2)])
def test_edges_of_ramps(axes):
    """A shift has no edges, a steeper ramp has its slope on one of two axes; outside the window nothing counts."""
    x, shifted, steeper = (v.transpose(*axes) for v in (ramp(5.0), ramp(5.0) + 40, ramp(13.0)))
    assert float(edge_error(shifted, x, WINDOW)) == 0 < float(window_error(shifted, x, WINDOW))
    assert float(edge_error(steeper, x, WINDOW)) == pytest.approx(8 / 400 / 2)
    assert float(edge_error(steeper + 300, x + 300, WINDOW)) == 0
    turned = torch.polar(torch.tensor(1.0), torch.tensor(0.7))
    assert float(edge_error(turned * steeper, turned * x, WINDOW)) == pytest.approx(8 / 400 / 2)


def test_dissimilarity_of_flat_images_is_that_of_their_luminance():
    a, b = torch.full((2, 9, 9), 100.0), torch.stack([torch.full((9, 9), v) for v in (140.0, 180.0)])
    luminance = [(2 * 0.5 * v + 1e-4) / (0.25 + v * v + 1e-4) for v in (0.6, 0.7)]
    assert dissimilarity(b, a, WINDOW).tolist() == pytest.approx([1 - v for v in luminance], abs=1e-5)


def test_dissimilarity_sees_the_window_alone(generator):
    x, noise = 400 * torch.rand(2, 16, 16, generator=generator) - 100, torch.randn(2, 16, 16, generator=generator)
    assert torch.allclose(dissimilarity(x, x, WINDOW), torch.zeros(2), atol=1e-5)
    assert float(dissimilarity(x + 400, x + 500, WINDOW).abs().max()) < 1e-5  # white is white
    expected = 1 - ssim((x + 100) / 400, ((x + 20 * noise).clamp(-100, 300) + 100) / 400, 1.0)
    assert torch.allclose(dissimilarity(x, x + 20 * noise, WINDOW), expected.float(), atol=1e-5)
    assert float(expected.min()) > 0.01
    assert torch.allclose(dissimilarity(1j * x.abs(), x.abs().to(torch.complex64), WINDOW), torch.zeros(2), atol=1e-5)


# The loss.


def task(complex: bool = False, **weights: float) -> tuple[AutoencoderTask, KLAutoencoder]:
    """A tiny autoencoder at the principal components of random blobs, and its task."""
    g = torch.Generator().manual_seed(5)
    coarse = 1500 * torch.rand(6, 1, 6, 6, generator=g) - 700
    stored = torch.nn.functional.interpolate(coarse, (32, 32), mode="bicubic")[:, 0].to(torch.int16)
    slices = Slices(stored, tuple("abcdef"))
    values, windows = Asinh(), {"full": Window(low=-1024, high=3071, target_db=44), "soft": WINDOW}
    if complex:
        slices = Slices(stored.abs(), tuple("abcdef"), 1e-3, phases=Phases())
        values, windows = Linear(-1.0, 1.0), {"full": Window(low=0, high=1, target_db=36)}
    config = AutoencoderConfig(channels=(16, 16), latent_channels=4, crop=16, batch=2, complex=complex, **weights)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = config.build()
    net.fit(values.forward(slices.images(slice(None))))
    return AutoencoderTask(config, values, windows, slices, slices, "cpu", False), net


def loss(job: AutoencoderTask, net: KLAutoencoder) -> Tensor:
    return job.loss(net, torch.Generator().manual_seed(1))


def test_the_default_is_the_plain_loss_to_the_bit():
    job, net = task()
    g = torch.Generator().manual_seed(1)
    x = crops(job.train, 16, 2, job.config.augment, g)
    u = job.values.forward(x)
    mean, std = net.posterior(u)
    decoded = net.reconstruct(mean + std * noise_like(mean, g))
    kl = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).mean()
    expected = (decoded - u).abs().mean() + 1e-6 * kl
    for window in job.windows.values():
        a, b = (v.clamp(window.low, window.high) for v in (job.values.inverse(decoded), x))
        square = ((a - b) / (window.high - window.low)).square().mean((-2, -1)).mean()
        expected = expected + 0.01 * 10 ** (window.target_db / 10) * square
    assert torch.equal(loss(job, net), expected)


@pytest.mark.parametrize("complex", [False, True])
@pytest.mark.parametrize("name", ["gradient", "ssim"])
def test_a_weight_adds_its_term_and_a_step_lowers_it(name, complex):
    """Proportional to the weight; a small step against its own derivative makes it smaller."""
    (plain, net), (once, _), (thrice, _) = task(complex), task(complex, **{name: 1.0}), task(complex, **{name: 3.0})

    def term(job: AutoencoderTask) -> Tensor:
        return loss(job, net) - loss(plain, net)

    before = term(once)
    assert term(thrice).item() == pytest.approx(3 * before.item(), rel=1e-3)
    torch.autograd.backward(before)
    slopes = [p for p in net.parameters() if p.grad is not None]
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in slopes))
    with torch.no_grad():
        for p in slopes:
            p -= 1e-3 * p.grad / norm
        promised = 1e-3 * norm
        assert 0.3 * promised < before.item() - term(once).item() < 1.5 * promised
