"""A radial or spiral MRI acquisition of a magnitude image: smooth phase and coils, finer than the pixel, and noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from medrecon.coils.maps.espirit import espirit
from medrecon.core.keeping import Keep, Tensors, made_now
from medrecon.core.noise import MRINoise
from medrecon.core.progress import OnProgress, silent
from medrecon.core.scan import Scan
from medrecon.core.volume import Volume
from medrecon.geometry import Trajectory
from medrecon.operators.mri.noncartesian import calibration_kspace
from medrecon.operators.mri.nufft.density import radial_density
from medrecon.operators.mri.nufft.transform import NUFFT
from medrecon.sampling.radial import golden_angles, radial, uniform_angles
from medrecon.sampling.spiral import spiral
from medrecon.simulate.arguments import check_call, check_snr
from medrecon.simulate.mri import Scanner, magnitudes, mean_signal
from medrecon.simulate.source import provenance
from medrecon.simulate.volume_checks import check_mri

Pattern = Literal["golden", "uniform", "spiral"]
EXACT = 1e-7
"""Relative error of the simulated transform: far below the noise, and not that of the reconstruction's."""


@dataclass(frozen=True, eq=False)
class Sampling:
    """Where k-space is sampled: trajectory (S, 2), density (S,), and what the provenance says of it."""

    trajectory: Tensor
    density: Tensor
    details: dict[str, Any]

    @classmethod
    def of(
        cls, pattern: Pattern, shape: tuple[int, int], fov: float, readouts: int, samples: int | None = None
    ) -> Sampling:
        """`readouts` full spokes of `samples` (2 max(H, W) by default), or spiral interleaves of a field of view [mm].

        Raises:
            ValueError: an unknown pattern, or no readout.
        """
        if pattern not in get_args(Pattern):
            raise ValueError(f"pattern: expected one of {get_args(Pattern)}, got {pattern!r}")
        if pattern == "spiral":
            path = spiral(shape, fov, readouts)
            details = {"trajectory": pattern, "interleaves": readouts, "samples": path.samples}
            return cls(path.trajectory, path.density, details)
        angles = golden_angles(readouts) if pattern == "golden" else uniform_angles(readouts)
        count = 2 * max(shape) if samples is None else samples
        details = {"trajectory": f"radial, {pattern}", "spokes": readouts, "samples": count}
        return cls(radial(angles, count, shape), radial_density(angles, count, shape), details)


def simulate_noncartesian(
    volume: Volume,
    *,
    pattern: Pattern = "golden",
    readouts: int = 64,
    samples: int | None = None,
    coils: int = 8,
    snr_db: float = 30.0,
    generator: torch.Generator,
    keep: Keep = made_now,
    on_progress: OnProgress = silent,
) -> Scan:
    """Multi-coil samples along a trajectory of all slices of a magnitude volume, with coil maps estimated from them.

    As `simulate_mri`: the image is interpolated to twice its matrix and multiplied there by a smooth phase and smooth
    coil maps. That finer grid's spectrum is sampled along the trajectory by a transform of its own, exact to 1e-7. The
    maps for the reconstruction are ESPIRiT's, from the gridded centre of the noisy samples.

    Args:
        volume: magnitude, (Z, Y, X).
        pattern: full spokes at golden-angle or uniform increments, or interleaved spirals that fill k-space.
        readouts: spokes, or interleaves.
        samples: of a spoke; 2 max(Y, X) by default.
        coils: receiver coils.
        snr_db: 20 log10(mean magnitude in the object / sigma), sigma^2 = E|n|^2 of a k-space sample.
        keep: is given the samples and the coil maps of every slice; see `core/keeping.py`.

    Raises:
        ValueError: a complex volume, one in HU, no signal at all, or a trajectory that cannot be made.
    """
    check_call(volume, generator, {"readouts": readouts, "samples": samples, "coils": coils}, {"snr_db": snr_db})
    check_snr(snr_db)
    check_mri(volume)
    shape = (volume.data.shape[-2], volume.data.shape[-1])
    mm = max(shape) * torch.linalg.vector_norm(volume.affine[:3, 0])
    path = Sampling.of(pattern, shape, float(mm), readouts, samples)
    scanner = Scanner.build(shape, coils, 2, generator)
    measure = NUFFT(path.trajectory, tuple(scanner.phase.shape), eps=EXACT)
    sigma = mean_signal(volume.data) / 10 ** (snr_db / 20)
    data, maps = [], []
    for index, image in enumerate(magnitudes(volume)):

        def measured(image: Tensor = image) -> Tensors:
            y = sampled(scanner, image, measure)
            y = y + sigma * torch.randn(y.shape, dtype=y.dtype, generator=generator)
            maps = espirit(calibration_kspace(y, path.trajectory, shape, path.density))
            return {"data": y, "maps": maps, "state": generator.get_state()}

        made = keep(f"{index:06d}", measured)
        generator.set_state(made["state"])  # of one that was kept, too
        data.append(made["data"])
        maps.append(made["maps"])
        on_progress(index + 1, len(volume.data))
    details = {"snr_db": snr_db, "inverse_crime": False, "coil_maps": "ESPIRiT", **path.details}
    return Scan(
        modality="mri",
        data=torch.stack(data),
        image_shape=shape,
        affine=volume.affine,
        units="a.u.",
        geometry=Trajectory(path.trajectory, path.density),
        maps=torch.stack(maps),
        noise=MRINoise(sigma),
        provenance=provenance(volume, generator, details),
    )


def sampled(scanner: Scanner, image: Tensor, measure: NUFFT) -> Tensor:
    """Noiseless samples (C, S) of one magnitude image (H, W) by the scanner's finer grid."""
    return measure(scanner.coil_images(image))
