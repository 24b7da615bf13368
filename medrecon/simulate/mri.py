"""An MRI acquisition of a magnitude image: smooth phase and coils, finer than the pixel, noise, undersampling."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from medrecon.coils.combine import birdcage_maps
from medrecon.coils.maps.espirit import espirit
from medrecon.core.keeping import Keep, Tensors, made_now
from medrecon.core.noise import MRINoise
from medrecon.core.progress import OnProgress, silent
from medrecon.core.scan import Scan
from medrecon.core.volume import Volume
from medrecon.numerics.fourier import centred_fft, centred_ifft, crop_or_pad
from medrecon.sampling.pattern import Sampling, draw
from medrecon.simulate.arguments import check_call, check_snr
from medrecon.simulate.source import provenance
from medrecon.simulate.volume_checks import check_mri

log = logging.getLogger(__name__)

PhaseEncoding = Literal["horizontal", "vertical"]


def simulate_mri(
    volume: Volume,
    *,
    accel: float = 4.0,
    mask: str = "random",
    acs: int = 24,
    partial_fourier: float = 1.0,
    coils: int = 8,
    snr_db: float = 30.0,
    phase_encoding: PhaseEncoding | Literal["auto"] = "auto",
    matched: bool = False,
    generator: torch.Generator,
    keep: Keep = made_now,
    on_progress: OnProgress = silent,
) -> Scan:
    """Undersampled multi-coil k-space of all slices of a magnitude volume, with coil maps estimated from it.

    The image is interpolated to twice its matrix by zero-padding its spectrum, multiplied there by a smooth
    synthetic phase and by smooth coil maps, and its k-space is cropped back: phase and coils vary within a pixel,
    as they do in a scanner, and the truth remains the source. The maps stored for the reconstruction are ESPIRiT's,
    from the ACS of the noisy undersampled data. `matched` stays on the image's own grid and stores the true maps:
    an inverse crime, recorded as such.

    Args:
        volume: magnitude, (Z, Y, X).
        accel: nominal R, ACS included; the true one is in the provenance.
        mask, acs: pattern (one of `sampling.PATTERNS`) and width of the fully sampled centre.
        partial_fourier: fraction of the phase-encoding lines from which the pattern takes its own, 0.5 to 1.
        coils: receiver coils.
        snr_db: 20 log10(mean magnitude in the object / sigma), sigma^2 = E|n|^2 of one coil's complex image (and of
            a k-space sample: the transform is orthonormal); object: over 10 % of the 99th percentile.
        phase_encoding: the undersampled axis of the image; "auto" is horizontal (X) unless the object is cut off at
            the left or right edge and not at the top and bottom, because it would fold over there.
        keep: is given the k-space and the coil maps of every slice; see `core/keeping.py`.

    Raises:
        ValueError: a complex volume, one in HU, pixels not at right angles, no signal at all, or a mask that cannot be
            made.
    """
    numbers = {"accel": accel, "partial_fourier": partial_fourier, "snr_db": snr_db}
    check_call(volume, generator, {"acs": acs, "coils": coils}, numbers)
    if not 0.5 <= partial_fourier <= 1:
        raise ValueError(f"partial_fourier: expected a fraction from 0.5 to 1, got {partial_fourier!r}")
    if phase_encoding not in ("horizontal", "vertical", "auto"):
        raise ValueError(f"phase_encoding: expected 'horizontal', 'vertical' or 'auto', got {phase_encoding!r}")
    check_snr(snr_db)
    check_mri(volume)
    shape = (volume.data.shape[-2], volume.data.shape[-1])
    direction = free_axis(volume.data) if phase_encoding == "auto" else phase_encoding
    pattern = sampling(mask, shape, accel, acs, partial_fourier, direction, generator)
    scanner = Scanner.build(shape, coils, 1 if matched else 2, generator)
    sigma = mean_signal(volume.data) / 10 ** (snr_db / 20)
    noise, count = MRINoise(sigma), volume.data.shape[0]
    data, maps = [], []
    for index, image in enumerate(magnitudes(volume)):

        def measured(image: Tensor = image) -> Tensors:
            y = noise.simulate(scanner.kspace(image), pattern.mask, generator)
            return {"data": y, "maps": scanner.maps if matched else espirit(y), "state": generator.get_state()}

        made = keep(f"{index:06d}", measured)
        generator.set_state(made["state"])  # of one that was kept, too
        data.append(made["data"])
        maps.append(made["maps"])
        on_progress(index + 1, count)
    details = {
        **pattern.describe(),
        "phase_encoding": direction,
        "snr_db": snr_db,
        "inverse_crime": matched,
        "coil_maps": "true" if matched else "ESPIRiT",
    }
    return Scan(
        modality="mri",
        data=torch.stack(data),
        image_shape=shape,
        affine=volume.affine,
        units="a.u.",
        mask=pattern.mask,
        maps=torch.stack(maps),
        noise=noise,
        provenance=provenance(volume, generator, details),
    )


def sampling(
    mask: str,
    shape: tuple[int, int],
    accel: float,
    acs: int,
    partial_fourier: float,
    direction: PhaseEncoding,
    generator: torch.Generator,
) -> Sampling:
    """The pattern, its phase-encoding lines being columns or rows; its seed is drawn, and makes it anew on its own."""
    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    upright = shape if direction == "horizontal" else shape[::-1]
    pattern = draw(mask, upright, accel, acs, seed=seed)
    pattern = pattern.partial_fourier(partial_fourier) if partial_fourier < 1 else pattern
    return pattern if direction == "horizontal" else replace(pattern, mask=pattern.mask.T.contiguous())


def free_axis(data: Tensor) -> PhaseEncoding:
    """Horizontal, unless the object touches the left or right edge of the field of view and not top and bottom."""
    limit = 0.1 * mean_signal(data)
    sides = max(float(data[..., :2].float().mean()), float(data[..., -2:].float().mean()))
    ends = max(float(data[:, :2].float().mean()), float(data[:, -2:].float().mean()))
    return "vertical" if sides > limit >= ends else "horizontal"


def magnitudes(volume: Volume) -> Tensor:
    """Return the values (Z, Y, X) as magnitudes: negative ones, which no magnitude has, are 0, and said."""
    data = volume.data.float()
    if negative := int((data < 0).sum()):
        log.warning(
            "%d of %d voxels are below 0, down to %.3g, and are simulated as 0: an MR image to simulate is a magnitude",
            negative,
            data.numel(),
            float(data.min()),
        )
    return data.clamp_min(0)


def mean_signal(data: Tensor) -> float:
    """Mean magnitude over the object: voxels above 10 % of the volume's 99th percentile."""
    values = data.float().flatten()
    top = values.kthvalue(max(1, math.ceil(0.99 * values.numel()))).values
    inside = values[values > 0.1 * top]
    if inside.numel() == 0 or float(top) <= 0:
        raise ValueError("simulate_mri: the volume has no signal")
    return float(inside.double().mean())


@dataclass(frozen=True, eq=False)
class Scanner:
    """Coil maps (C, f H, f W) and object phase (f H, f W) on a grid `factor` times as fine as the image (H, W)."""

    maps: Tensor
    phase: Tensor
    factor: int

    @classmethod
    def build(cls, shape: tuple[int, int], coils: int, factor: int, generator: torch.Generator) -> Scanner:
        fine = (factor * shape[0], factor * shape[1])
        return cls(birdcage_maps(coils, fine, generator), synthetic_phase(fine, generator), factor)

    def kspace(self, image: Tensor) -> Tensor:
        """Noiseless k-space (C, H, W), complex64, of one magnitude image (H, W)."""
        # Orthonormal transforms on both grids: amplitudes change by `factor` on the way up and back again.
        return crop_or_pad(centred_fft(self.coil_images(image)), (image.shape[-2], image.shape[-1]))

    def coil_images(self, image: Tensor) -> Tensor:
        """(C, f H, f W) on the fine grid of one magnitude image (H, W), divided by `factor`."""
        fine = centred_ifft(crop_or_pad(centred_fft(image.to(torch.complex64)), tuple(self.phase.shape)))
        return self.maps * (self.phase * fine)


def synthetic_phase(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """exp(i phi), phi a random quadratic over the field of view of about 1 rad: complex64 (H, W)."""
    y, x = (torch.linspace(-1, 1, n) for n in shape)
    y, x = y[:, None], x[None, :]
    a = torch.randn(6, generator=generator).tolist()
    phi = a[0] * math.pi + 0.7 * (a[1] * x + a[2] * y) + 0.5 * (a[3] * x * y + a[4] * x**2 + a[5] * y**2)
    return torch.polar(torch.ones(shape), phi.expand(shape))
