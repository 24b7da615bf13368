"""What a volume has to be before it is simulated; asked before anything is computed."""

from __future__ import annotations

from medrecon.core.scan_ranges import SAMPLES, check_right_angles
from medrecon.core.volume import Volume

FLAT = 2.0
"""HU: an image all of whose values are as near to 0 as this, and not the same, is in other units."""


def check_ct(volume: Volume, whole: bool) -> None:
    """Check that a volume is CT on a grid that rays can be sent through; `whole`: by a cone beam, not slice by slice.

    Raises:
        ValueError: not real values in HU, a sheared grid, or values of attenuation.
    """
    if volume.data.is_complex():
        raise ValueError("simulate_ct: the volume is complex, and HU are real; take its magnitude first")
    if volume.units != "HU":
        raise ValueError(f"simulate_ct: needs a CT volume in HU, got {volume.modality} in {volume.units}")
    check_right_angles(volume.affine, tuple(volume.data.shape), slices=whole)
    low, high = float(volume.data.min()), float(volume.data.max())
    if -FLAT < low < high < FLAT:
        raise ValueError(
            f"simulate_ct: values from {low:.4g} to {high:.4g} are not HU, in which air has -1000: if they are "
            "attenuation, say so (--units 1/mm or 1/cm), or convert them (core.units.mu_to_hu)"
        )


def check_mri(volume: Volume) -> None:
    """Check that a volume is a magnitude image on a grid that k-space can be sampled of.

    Raises:
        ValueError: complex values or HU, a sheared grid, values that single precision cannot square.
    """
    if volume.data.is_complex():
        raise ValueError("simulate_mri: the volume is complex; give its magnitude, the phase is simulated")
    if volume.units == "HU":
        raise ValueError(f"simulate_mri: needs an MR magnitude volume, got {volume.modality} in {volume.units}")
    check_right_angles(volume.affine, tuple(volume.data.shape), slices=False)
    if (most := float(volume.data.abs().max())) and not SAMPLES[0] <= most <= SAMPLES[1]:
        raise ValueError(f"simulate_mri: values up to {most:.3g}; scale them into {SAMPLES[0]:g} to {SAMPLES[1]:g}")
