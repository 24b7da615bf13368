"""The autoencoder computes what MONAI's network around the linear transform computes, faster."""

import copy

import pytest
import torch
from torch import nn

from medrecon.models.exact.gaussian import IdentityAutoencoder
from medrecon.models.networks.kl_autoencoder import KLAutoencoder
from medrecon.models.networks.layers import UpsampledConv2d
from medrecon.models.networks.pixel_space import PixelSpace
from medrecon.models.store import load_prior


def monai_path(autoencoder: KLAutoencoder, channels: tuple[int, ...]) -> KLAutoencoder:
    """A copy with MONAI's own AutoencoderKL, which upsamples first and convolves then."""
    from monai.networks.nets.autoencoderkl import AutoencoderKL

    plain = copy.deepcopy(autoencoder)
    plain.net = (
        AutoencoderKL(
            spatial_dims=2,
            in_channels=plain.patch**2,
            out_channels=plain.patch**2,
            channels=channels,
            num_res_blocks=(1,) * len(channels),
            attention_levels=(False,) * len(channels),
            latent_channels=plain.latent_channels,
            norm_num_groups=16,
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
        )
        .eval()
        .requires_grad_(False)
    )
    plain.net.load_state_dict(autoencoder.net.state_dict())
    return plain


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (7, 4)])
def test_upsampled_convolution_is_nearest_upsampling_and_a_convolution(shape, generator):
    """Values and gradients, borders and odd sizes included, in float64."""
    merged = UpsampledConv2d(3, 2, 3, padding=1, dtype=torch.float64)
    plain = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(3, 2, 3, padding=1, dtype=torch.float64))
    plain[1].load_state_dict(merged.state_dict())
    x = torch.randn(2, 3, *shape, dtype=torch.float64, generator=generator, requires_grad=True)
    cotangent = torch.randn(2, 2, 2 * shape[0], 2 * shape[1], dtype=torch.float64, generator=generator)
    outputs = [net(x) for net in (merged, plain)]
    torch.testing.assert_close(*outputs)
    gradients = [
        torch.autograd.grad(y, [x, *net.parameters()], cotangent)
        for y, net in zip(outputs, (merged, plain), strict=True)
    ]
    torch.testing.assert_close(*gradients)
    with torch.no_grad():  # a kernel that is not flipped is another map
        merged.weight.copy_(merged.weight.flip(-1))
        assert float((merged(x) - outputs[1]).abs().max()) > 0.01


@pytest.mark.usefixtures("one_thread")
def test_shipped_autoencoder_is_that_of_monai(generator):
    """Encoder, decoder, and the decoder's derivatives both ways, on a batch that is decoded in parts."""
    autoencoder = load_prior("ct").autoencoder
    plain = monai_path(autoencoder, (64, 128))
    u = torch.rand(3, 32, 48, generator=generator) * 2 - 1
    z = autoencoder.encode(u)
    torch.testing.assert_close(z, plain.encode(u), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(autoencoder.decode(z), plain.decode(z), atol=1e-5, rtol=1e-5)
    dz, du = torch.randn(z.shape, generator=generator), torch.randn(u.shape, generator=generator)
    forward, backward = [], []
    for net in (autoencoder, plain):
        forward.append(torch.func.linearize(net.decode, z)[1](dz))
        backward.append(torch.func.vjp(net.decode, z)[1](du)[0])
    torch.testing.assert_close(*forward, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(*backward, atol=1e-4, rtol=1e-4)
    assert float((forward[0] * du).sum()) == pytest.approx(float((backward[0] * dz).sum()), rel=1e-3)


def test_items_of_a_batch_do_not_see_each_other(generator):
    """A batch is what its items are one by one."""
    autoencoder = load_prior("mri").autoencoder
    u = torch.rand(5, 32, 32, generator=generator)
    z = autoencoder.encode(u)
    torch.testing.assert_close(z, torch.cat([autoencoder.encode(v[None]) for v in u]))
    torch.testing.assert_close(autoencoder.decode(z), torch.cat([autoencoder.decode(v[None]) for v in z]))


@pytest.mark.parametrize("autoencoder", [PixelSpace(2), IdentityAutoencoder()])
def test_the_change_of_a_linear_encoder_is_exact(autoencoder, generator):
    u, v = torch.randn(2, 3, 8, 6, generator=generator)
    torch.testing.assert_close(autoencoder.change(u, v), autoencoder.encode(v) - autoencoder.encode(u))


def test_a_decoder_larger_than_the_encoder(generator):
    """It has its own blocks, the encoder keeps the number it had, and both still start at the principal components."""
    small, large = (KLAutoencoder((16, 16), 2, 1, 2, blocks) for blocks in (None, 3))
    encoders, decoders = (
        [len(list(net.net.get_submodule(f"{name}.blocks").children())) for net in (small, large)]
        for name in ("encoder", "decoder")
    )
    assert encoders[1] == encoders[0]
    assert decoders[1] == decoders[0] + 2 * 2  # two levels of two more blocks
    u = torch.randn(8, 16, 16, generator=generator)
    for net in (small, large):
        net.fit(u)
    with torch.no_grad():
        z = small.encode(u)
        torch.testing.assert_close(large.encode(u), z)
        torch.testing.assert_close(large.decode(z), small.decode(z))
