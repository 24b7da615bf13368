"""Metal artefact reduction by inpainting of the metal trace: linear interpolation (LI) and normalised (NMAR)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d, pad

from medrecon.core.units import MU_WATER, hu_to_mu, mu_to_hu
from medrecon.corrections.inpaint import interpolate_rays
from medrecon.geometry import ImageGrid
from medrecon.operators.ct.operator import CTOperator

METAL = 2500.0
"""HU from which the first reconstruction is metal."""
LUNG, FAT, BONE = -900.0, -300.0, 300.0
"""HU: the prior is air below the first, as it is between the first two (lung), water up to the third, then as it is."""
THIN = 0.02
"""Line integral of the prior below which there is nothing to normalise by."""


@dataclass(frozen=True, eq=False)
class MetalCorrection:
    """What came of it.

    Attributes:
        data: (..., V, D) line integrals without metal; as measured outside the trace.
        trace: (..., V, D) bool, rays through metal: a solver gives them precision 0.
        metal: (..., H, W) bool.
        image: (..., H, W) FBP of `data` [1/mm], with the metal of the first reconstruction put back.
    """

    data: Tensor
    trace: Tensor
    metal: Tensor
    image: Tensor


def reduce_metal(
    A: CTOperator,
    y: Tensor,
    method: Literal["li", "nmar"] = "nmar",
    threshold: float = METAL,
    mu_water: float = MU_WATER,
) -> MetalCorrection:
    """Line integrals y (..., V, D), water-precorrected, without the artefacts of metal.

    Metal is what a first FBP shows above `threshold` [HU]; its trace is where it projects to. 'li' interpolates the
    trace linearly in each view (Kalender et al., Radiology 164:576, 1987). 'nmar' divides the data by the projection
    of a prior image before that and multiplies by it afterwards (Meyer et al., Med. Phys. 37:5482, 2010), so that only
    the deviation from the prior is interpolated; the prior is the LI image, smoothed, with soft tissue set to water
    and bone left as it is. The grid of A must cover the object. Slices without metal stay as they are.

    Raises:
        ValueError: an unknown method, or y of another shape than A says.
    """
    if method not in ("li", "nmar"):
        raise ValueError(f"reduce_metal: method must be 'li' or 'nmar', got {method!r}")
    if not isinstance(A.grid, ImageGrid):
        raise ValueError("reduce_metal: works on slices; rebin the cone beam to fans first")
    first = A.fbp(y)
    metal = mu_to_hu(first, mu_water) > threshold
    trace = metal_trace(A, metal).to(y.device)
    data = interpolate_rays(y, trace)
    if method == "nmar":
        prior = tissue_prior(A.fbp(data), metal, A.grid.spacing, mu_water)
        expected = A(prior)
        thin = expected < THIN
        ratio = torch.where(thin, 1.0, y / expected.clamp_min(THIN))
        filled = torch.where(thin, data, interpolate_rays(ratio, trace) * expected)
        data = torch.where(trace, filled, y)
    return MetalCorrection(data, trace, metal, torch.where(metal, first, A.fbp(data)))


def metal_trace(A: CTOperator, metal: Tensor) -> Tensor:
    """(..., V, D) bool: rays that meet the metal (..., H, W), grown by one pixel for what the threshold cut off."""
    shape = metal.shape
    grown = max_pool2d(metal.reshape(-1, 1, *shape[-2:]).float(), 3, stride=1, padding=1).reshape(shape)
    return A(grown) > 1e-3 * min(A.grid.spacing)


def tissue_prior(image: Tensor, metal: Tensor, spacing: tuple[float, float], mu_water: float = MU_WATER) -> Tensor:
    """The prior image (..., H, W) [1/mm] of NMAR: smoothed; air, and soft tissue with metal, each set to one value."""
    hu = mu_to_hu(smooth(torch.where(metal, mu_water, image), spacing), mu_water)
    hu = torch.where(hu < LUNG, -1000.0, hu)
    hu = torch.where((hu >= FAT) & (hu <= BONE) | metal, 0.0, hu)
    return hu_to_mu(hu, mu_water)


def smooth(image: Tensor, spacing: tuple[float, float], sigma: float = 1.5) -> Tensor:
    """Gaussian of standard deviation `sigma` [mm] over the pixels, at least one pixel; edges repeated."""
    x = image.reshape(-1, 1, *image.shape[-2:])
    for axis, pitch in enumerate(spacing):
        width = max(1.0, sigma / pitch)
        reach = min(int(3 * width) + 1, x.shape[-2 + axis] - 1)
        taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1).to(x) / width).square())
        sides = (0, 0, reach, reach) if axis == 0 else (reach, reach, 0, 0)
        kernel = (taps / taps.sum()).reshape(1, 1, *((-1, 1) if axis == 0 else (1, -1)))
        x = conv2d(pad(x, sides, mode="replicate"), kernel)
    return x.reshape(image.shape)
