"""Coil sensitivity maps of a scan that brings none, by the method asked for."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from medrecon.numerics.linalg import summed

MapMethod = Literal["auto", "espirit", "walsh", "jsense", "nlinv"]
METHODS: tuple[str, ...] = get_args(MapMethod)


def estimate_maps(kspace: Tensor, method: MapMethod) -> Tensor:
    """Maps (B, C, H, W) from centred k-space of that shape, 0 where not sampled; "auto" is ESPIRiT.

    Raises:
        ValueError: an unknown method, or k-space without the calibration region the method needs.
    """
    if method in ("auto", "espirit"):
        from medrecon.coils.maps.espirit import espirit

        return espirit(kspace)
    if method == "walsh":
        from medrecon.coils.combine import acs_images
        from medrecon.coils.maps.walsh import walsh_maps

        return walsh_maps(acs_images(kspace))
    if method == "jsense":
        from medrecon.coils.maps.jsense import jsense_maps

        return jsense_maps(kspace)
    if method == "nlinv":
        from medrecon.coils.maps.nlinv import nlinv_maps

        return nlinv_maps(kspace)
    raise ValueError(f"maps: unknown method {method!r}; there are: {', '.join(METHODS)}")


def missed_energy(maps: Tensor, kspace: Tensor) -> Tensor:
    """Return which share of the energy of the calibration region (B,) lies where all maps are 0: there the image is 0.

    A calibration region of 8 or 10 lines leaves ESPIRiT's maps without half of the object; of 12, it misses 1 %.
    """
    from medrecon.coils.combine import acs_images

    energy = acs_images(kspace).abs().square().sum(1)
    outside = (maps == 0).all(1)
    return summed((energy * outside).flatten(1), 1) / summed(energy.flatten(1), 1).clamp_min(1e-30)
