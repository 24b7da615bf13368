"""Layers that compute what MONAI's do, from the same parameters, in less time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual
from torch.nn.functional import avg_pool2d, conv_transpose2d

from medrecon.models.networks.winograd import convolve, pays


class UpsampledConv2d(nn.Conv2d):
    """Nearest upsampling by 2, then a 3 x 3 convolution with zero padding of 1: the same map, borders included.

    Repeating pixels is a transposed convolution of stride 2 with a 2 x 2 kernel of ones; with the 3 x 3 convolution it
    makes one whose 4 x 4 kernel is the flipped 3 x 3 kernel convolved with the ones: 4 multiplications a pixel, not 9
    (a sub-pixel convolution, arXiv 1609.07009). The parameters stay those of the 3 x 3 convolution.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and upsample (B, C, H, W) -> (B, C', 2H, 2W)."""
        kernel = avg_pool2d(self.weight.flip(-2, -1), 2, stride=1, padding=1, divisor_override=1)
        return conv_transpose2d(x, kernel.transpose(0, 1), self.bias, stride=2, padding=1)


class Conv3x3(nn.Conv2d):
    """A 3 x 3 convolution with zero padding of 1, in fewer multiplications where that pays."""

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, self.weight, self.bias) if pays(x, self.weight) else super().forward(x)


class GroupNorm(nn.GroupNorm):
    """Group normalisation of tensors in channels_last format whose forward derivative exists, too."""

    def forward(self, x: Tensor) -> Tensor:
        # torch's own views a dual tensor as (B * groups, ...) and fails on this format (2.11).
        return super().forward(x if unpack_dual(x).tangent is None else x.contiguous())


def channels_last(net: nn.Module) -> None:
    """Bring a network of MONAI to channels_last format and to the layers above; names of the parameters stay."""
    from monai.networks.blocks.upsample import UpSample

    for block in list(net.modules()):
        if isinstance(block, UpSample):
            old = block.get_submodule("postconv.conv")
            assert isinstance(old, nn.Conv2d)
            block.set_submodule("upsample_non_trainable", nn.Identity())
            block.set_submodule("postconv.conv", _same(old, UpsampledConv2d))
        for name, child in block.named_children():
            if isinstance(child, nn.GroupNorm):
                norm = GroupNorm(child.num_groups, child.num_channels, child.eps, device="meta")
                norm.weight, norm.bias = child.weight, child.bias
                setattr(block, name, norm)
            elif type(child) is nn.Conv2d and _plain(child):
                setattr(block, name, _same(child, Conv3x3))
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _plain(conv: nn.Conv2d) -> bool:
    """Whether a convolution is one of `Conv3x3`: every pixel, one group, one zero around the image."""
    found = conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode
    return found == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")


def _same(old: nn.Conv2d, kind: type[nn.Conv2d]) -> nn.Conv2d:
    """A layer of another kind with the same parameters."""
    new = kind(old.in_channels, old.out_channels, 3, padding=1, device="meta")
    new.weight, new.bias = old.weight, old.bias
    return new


def in_cache(batch: Tensor, most: int = 1) -> tuple[Tensor, ...]:
    """Return a batch in parts: `most` items each on a CPU, where larger activations leave its cache and cost a fifth
    more."""
    return batch.split(most) if batch.device.type == "cpu" else (batch,)
