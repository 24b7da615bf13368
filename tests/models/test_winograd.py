"""The convolution in few multiplications is torch's, and so are its derivatives."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from medrecon.models.networks.layers import Conv3x3, channels_last
from medrecon.models.networks.winograd import convolve, pays

plain = partial(conv2d, padding=1)
SHAPES = [(1, 1, 1, 1, 1), (2, 3, 5, 4, 4), (1, 4, 2, 5, 7), (3, 2, 8, 13, 2), (1, 640, 8, 40, 36)]
"""(B, C, K, H, W); the last in several parts."""


def problem(shape, generator):
    b, c, k, h, w = shape
    scale = 1 / (3 * c**0.5)
    return (
        torch.randn(b, c, h, w, generator=generator),
        scale * torch.randn(k, c, 3, 3, generator=generator),
        torch.randn(k, generator=generator),
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_are_those_of_double_precision(shape, layout, generator):
    """Borders, odd sizes and tiles cut off included; with and without a bias."""
    x, w, b = problem(shape, generator)
    x, w = x.to(memory_format=layout), w.to(memory_format=layout)
    for bias in (b, None):
        expected = plain(x.double(), w.double(), None if bias is None else bias.double())
        torch.testing.assert_close(convolve(x, w, bias).double(), expected, atol=1e-4, rtol=0)
    assert float((convolve(x, w.flip(-1), b) - expected).abs().max()) > 0.01


@pytest.mark.parametrize("shape", SHAPES[1:4])
def test_derivatives_are_those_of_torch(shape, generator):
    """Backward, backward twice, forward, and several vectors at once."""
    (x, w, b), (tangent, _, _) = problem(shape, generator), problem(shape, generator)
    x.requires_grad_()
    found, expected = [], []
    for convolution, into in ((convolve, found), (plain, expected)):
        f = partial(convolution, weight=w, bias=b)
        (first,) = torch.autograd.grad((f(x) ** 3).sum(), x, create_graph=True)
        into += [first, *torch.autograd.grad((first**2).sum(), x)]
        into += [torch.func.jvp(f, (x.detach(),), (tangent,))[1]]
        into += [torch.func.linearize(f, x.detach())[1](tangent)]
        into += [torch.vmap(f, 1)(torch.stack([x.detach(), tangent, -tangent], 1))]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4 * float(other.detach().abs().max()), rtol=0)


@pytest.mark.parametrize(
    "shape", [(3, 40, 33, 22, 26), (4, 128, 128, 16, 16), (2, 64, 64, 64, 64), (5, 96, 48, 17, 30)]
)
def test_items_of_a_batch_do_not_see_each_other(shape, generator):
    """A batch is what its items are, to the bit, and goes the same way."""
    x, w, b = problem(shape, generator)
    assert torch.equal(convolve(x, w, b), torch.cat([convolve(item, w, b) for item in x.split(1)]))
    assert pays(x, w) == pays(x[:1], w)


def test_weights_that_are_varied_go_the_plain_way(generator):
    """Forward mode: nothing of their change is lost."""
    x, w, b = problem((1, 32, 32, 24, 24), generator)
    layer = Conv3x3(32, 32, 3, padding=1).requires_grad_(False)
    f = lambda v: torch.func.functional_call(layer, {"weight": v, "bias": b}, (x,))  # noqa: E731
    along = torch.randn(w.shape, generator=generator)
    torch.testing.assert_close(torch.func.jvp(f, (w,), (along,))[1], plain(x, along), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("other", [{"padding": 0}, {"dilation": 2, "padding": 2}, {"groups": 2}, {"stride": 2}])
def test_other_convolutions_stay_what_they_are(other, generator):
    net = nn.Sequential(nn.Conv2d(32, 32, 3, **{"padding": 1} | other), nn.Conv2d(32, 32, 3, padding=1))
    x = torch.randn(1, 32, 24, 24, generator=generator)
    expected = net(x)
    channels_last(net)
    assert type(net[0]) is nn.Conv2d and type(net[1]) is Conv3x3
    torch.testing.assert_close(net(x), expected, atol=1e-4, rtol=1e-4)


def test_it_runs_where_it_pays(generator):
    x, w, _ = problem((1, 32, 32, 24, 24), generator)
    layer = Conv3x3(32, 32, 3, padding=1)
    assert pays(x, w)
    with torch.no_grad():
        assert pays(x, layer.weight)
    assert not pays(x, layer.weight)  # it is trained
    torch.testing.assert_close(layer.requires_grad_(False)(x), layer.double()(x.double()).float(), atol=1e-4, rtol=0)
    layer.float()
    for other in ((x[:, :, :8], w), (x, w[:8]), (x.double(), w.double()), (x.to("meta"), w.to("meta"))):
        assert not pays(*other)
    with torch.autocast("cpu", torch.bfloat16):
        assert not pays(x, w)
        assert layer(x).dtype == torch.bfloat16
