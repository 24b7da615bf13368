"""How far to trust an estimate: the error to expect of D(z0), its size and its place.

All are of N images (N, H, W) in image units, variances or standard deviations as they say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from medrecon.diffusion.latent import LatentSpace
from medrecon.numerics.linalg import averaged, expand


def latent_deviation(sigma: float) -> float:
    """Return sigma / sqrt(1 + sigma^2): the standard deviation of z0 given z, were the latent white of variance 1."""
    return sigma / (1 + sigma**2) ** 0.5


def nearby(variance: Tensor) -> Tensor:
    """Return variances (N, H, W) averaged over 5 x 5 pixels."""
    return avg_pool2d(variance[:, None], 5, 1, 2, count_include_pad=False)[:, 0]


def pattern(variance: Tensor, least: float | Tensor) -> Tensor:
    """Return a variance (N, H, W) as a pattern with mean 1; `least` is what there is of it everywhere."""
    variance = variance + least + torch.finfo(variance.dtype).tiny
    return variance / expand(averaged(variance, 2), 2)


def error_pattern(difference: Tensor, rounding: float) -> Tensor:
    """Return where two images (N, H, W) differ, as a pattern of variance; `rounding` is the variance that is nowhere
    in particular."""
    return pattern(nearby(difference.abs().square()), rounding)


def round_trip_error(space: LatentSpace, x: Tensor) -> Tensor:
    """Return the standard deviation (N, H, W) of what the decoder could not express of the object that x = D(z) shows:
    of the size of the prior's round-trip error, in the place where another round trip loses it."""
    floor = space.prior.error
    return floor * error_pattern(x - space.decode(space.encode(x)), 1e-3 * floor**2).sqrt()


def posterior_variance(space: LatentSpace, z: Tensor, z0: Tensor) -> Tensor:
    """Return the denoiser's posterior variance over sigma^2, a pattern (N, H, W) in network range, from pairs with
    opposite noise (`Antithetic`) and their D.

    Cov[z0 | z] = sigma^2 J with J the Jacobian of D (Tweedie's formula for the second moment, arXiv 2309.13598). The
    difference of a pair is a white probe of J: what of it comes through D, over 5 x 5 pixels, is the diagonal there, at
    no further call.
    """
    probe, through = (v - v.roll(len(v) // 2, 0) for v in (z, z0))
    power, passed = (nearby(space.over_pixels((probe * of).mean(1))) for of in (probe, through))
    return passed.clamp_min(0) / power.clamp_min(torch.finfo(power.dtype).tiny)


def one_number(deviation: Tensor) -> Tensor:
    """Return deviations (N, H, W) that are the same in all pixels of an item as (N,), which an operator may know a
    closed form for; others as they are."""
    first = deviation[:, :1, :1]
    return first[:, 0, 0] if bool((deviation == first).all()) else deviation


@dataclass(frozen=True, eq=False)
class PixelError:
    """(v, sigma, variance) -> standard deviation (N, H, W) to expect of v = D(z0) at noise sigma.

    Its size: in network range the decoder's gain times the deviation sigma / sqrt(1 + sigma^2) of a latent of unit
    variance, the gain measured once, around the start; the value map carries it to the image. The round-trip error is
    its floor. Its place: where the denoiser's posterior variance is large, or, if that is not known, as the value map
    has it. After a warm start that is half of it, the other half where v has left the start, for there one of the two
    is wrong.

    Attributes:
        start: image (N, *in_shape) of the latent that the trajectories start at.
        size: (N, H, W), of a latent of deviation 1.
        warm: whether the start is an image that was reconstructed before.
    """

    space: LatentSpace
    start: Tensor
    size: Tensor
    warm: bool

    @classmethod
    def around(cls, space: LatentSpace, z: Tensor, *, warm: bool) -> PixelError:
        """Measure the decoder's gain around the latents z (N, C, h, w) of the start."""
        prior, g = space.prior, torch.Generator().manual_seed(0)
        shift = 0.2 * torch.randn((1, *z.shape[1:]), generator=g).to(z).expand_as(z)
        x = space.decode(z)
        change = prior.network_values(space.decode(z + shift)) - prior.network_values(x)
        gain = (averaged(change.abs().square().flatten(1), 1) / averaged(shift.square().flatten(1), 1)).sqrt()
        return cls(space, x, expand(gain, 2) * prior.spread(x), warm)

    def repeated(self, count: int) -> PixelError:
        """Return that of `count` batches in one."""
        start, size = (t.repeat(count, 1, 1) for t in (self.start, self.size))
        return replace(self, space=self.space.repeated(count), start=start, size=size)

    @property
    def isotropic(self) -> PixelError:
        """Return that of complex images as a proximal point takes it, of E|error|^2: an image of known phase errs along
        that alone, where a complex number of any phase errs by as much at right angles."""
        return self if self.space.prior.phase is None else replace(self, size=math.sqrt(2) * self.size)

    def __call__(self, v: Tensor, sigma: float, posterior: Tensor | None) -> Tensor:
        """Return the deviation (N, H, W); posterior: `posterior_variance`, if it is known."""
        prior, floor = self.space.prior, self.space.prior.error
        variance = floor**2 + (self.size * latent_deviation(sigma)).square()
        mean = expand(averaged(variance, 2), 2)
        if posterior is not None:
            carried = posterior * prior.spread(v).square()
            variance = mean * pattern(carried, 0.02 * expand(averaged(carried, 2), 2))
        if self.warm:
            variance = (variance + mean * error_pattern(v - self.start, 0.05 * floor**2)) / 2
        return variance.sqrt()
