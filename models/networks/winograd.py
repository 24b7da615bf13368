"""3 x 3 convolutions in a quarter of the multiplications, on a CPU (Lavin and Gray, arXiv 1509.09308, F(4 x 4, 3 x 3)).

A tile of 4 x 4 outputs takes 36 products a pair of channels in place of 144: A^T [(G w G^T) * (B^T x B)] A. The sum
over channels is a matrix product at each of the 36 places. What is rounded differently is of the order of 1e-5.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual
from torch.nn.functional import pad

from medrecon.numerics.autograd import linear_map
from medrecon.numerics.threads import compiled

G = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))
"""Of filters, times 24."""
TOGETHER = 1 << 14
"""Tiles times channels at once: what they take in the domain, 2 MiB, stays near the cache."""
LEAST = 32
"""Channels from which it pays; it takes half as many tiles of an image."""


def tile_count(x: Tensor) -> int:
    """Return how many tiles each of images (B, C, H, W) is."""
    return -(-x.shape[-2] // 4) * -(-x.shape[-1] // 4)


def pays(x: Tensor, weight: Tensor) -> bool:
    """Tell whether `convolve` can do a convolution and is worth its while: not while weights are trained. The answer is
    one for images alone and in a batch."""
    trained = (torch.is_grad_enabled() and weight.requires_grad) or unpack_dual(weight).tangent is not None
    here = x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    enough = min(2 * tile_count(x), *weight.shape[:2]) >= LEAST
    return here and enough and not trained and x.dtype == weight.dtype == torch.float32


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve x (B, C, H, W) with a weight (K, C, 3, 3) and zeros around it, differentiable by x to any order.

    float32 on a CPU; returns (B, K, H, W) in channels_last. `torch.vmap` over weights is torch's own error.
    """
    weight = weight.detach()
    back = weight.flip(-2, -1).transpose(0, 1)
    out = linear_map(x, lambda v: _run(v, weight), lambda v: _run(v, back))
    return out if bias is None else out + bias.detach().view(-1, 1, 1)


@torch.library.custom_op("medrecon::convolve", mutates_args=(), schema="(Tensor x, Tensor weight) -> Tensor")
def _run(x: Tensor, weight: Tensor) -> Tensor:
    """The convolution, some tiles after others. An operation of its own to whatever traces torch's."""
    from medrecon.models.networks import winograd_kernels as kernels

    filters, (height, width) = _filters(weight), x.shape[-2:]
    channels, features = filters.shape[1:]
    framed = pad(x.detach().permute(0, 2, 3, 1), (0, 0, 1, -width % 4 + 1, 1, -height % 4 + 1)).contiguous().numpy()
    out = torch.empty(len(x), height, width, features)
    tiles, together = len(x) * tile_count(x), max(LEAST, TOGETHER // max(channels, features))
    for first in range(0, tiles, together):
        domain = torch.empty(36, min(together, tiles - first), channels)
        compiled(kernels, "spread")(framed, domain.numpy(), first)
        compiled(kernels, "gather")(torch.bmm(domain, filters).numpy(), out.numpy(), first)
    return out.permute(0, 3, 1, 2)


@_run.register_fake
def _shape(x: Tensor, weight: Tensor) -> Tensor:
    """What a trace knows of the result."""
    return x.new_empty(len(x), *x.shape[-2:], len(weight)).permute(0, 3, 1, 2)


def _filters(weight: Tensor) -> Tensor:
    """G w G^T (36, C, K) of a weight (K, C, 3, 3)."""
    g = torch.tensor(G, dtype=torch.float64) / 24
    both = torch.einsum("ai,bj->abij", g, g).reshape(36, 9).to(weight.dtype)
    return (both @ weight.permute(0, 2, 3, 1).flatten(1, 2)).permute(1, 2, 0)
