"""What the values of a CT image look like, where its file does not say their units."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from torch import Tensor

log = logging.getLogger(__name__)

CTUnits = Literal["HU", "1/mm", "1/cm"]
PER_MM: dict[CTUnits, float] = {"1/mm": 1.0, "1/cm": 0.1}
NO_AIR = -200
"""HU: a CT image without a voxel below this shows no air, no lung and no table, or is not in HU."""
MATTER = (0.005, 0.1)
"""Attenuation of the middle of what an image shows [1/mm]; water has 0.0192, cortical bone 0.05."""
ATTENUATION = (-1.0, 100.0)
"""Attenuation that images hold at most [1/mm]: the noise of air, lead in soft X-rays."""
SAMPLES = 2**20
"""Voxels that are looked at for percentiles."""
GREY = "grey values of 8 bits, which have lost their units"
SHIFTED = "HU + 1024, or stored numbers without their rescale intercept"
WATER_SHIFTED = (850, 1250)
"""HU of the middle of what an image shows, if 1024 was not taken off: the middle of a body is never bone."""
BETWEEN_SHIFTED, FEW = (400, 800), 0.15
"""HU between lung and fat then, and the part of the voxels that edges take there at most."""


def check_units(data: Tensor, said: CTUnits | None, path: Path) -> None:
    """Compare the values of a CT image with the units that the user said; None: nothing said, taken as HU.

    Warns where they look like something else.

    Raises:
        ValueError: values that the units cannot have, and what they look like.
    """
    if said is None:
        if bool((data > NO_AIR).all()):
            log.warning(
                "%s: no voxel is below %d, and air has -1000 HU: are the values in HU? They look like %s. If they are "
                "HU, --units HU says so; if they are attenuation, --units 1/mm or 1/cm",
                path,
                NO_AIR,
                looks_like(data),
            )
        return
    low, high = float(data.min()), float(data.max())
    if said == "HU":
        if is_attenuation(data):
            raise ValueError(f"{path}: values {low:.4g} to {high:.4g} are not HU; they look like {looks_like(data)}")
        if (like := looks_like(data)) in (GREY, SHIFTED):
            log.warning("%s: taken as HU, as was said; values %.4g to %.4g look like %s", path, low, high, like)
        return
    scale = PER_MM[said]
    if not ATTENUATION[0] <= scale * low <= scale * high <= ATTENUATION[1]:
        raise ValueError(
            f"{path}: values {low:.4g} to {high:.4g} are no attenuation in {said}; they look like {looks_like(data)}"
        )
    middle = scale * _middle(data)
    if not MATTER[0] <= middle <= MATTER[1] or (low, high) in ((0, 1), (-1, 1)):
        log.warning(
            "%s: in %s the middle of what it shows attenuates %.3g/mm, and water 0.0192/mm: the values look like %s",
            path,
            said,
            middle,
            looks_like(data),
        )


def check_shift(data: Tensor, path: Path) -> None:
    """Warn where what a file calls HU shows no air, and tissue near 1024: an intercept that was lost."""
    values = _some(data)
    between = (values > BETWEEN_SHIFTED[0]) & (values < BETWEEN_SHIFTED[1])
    if float(between.float().mean()) > FEW or not bool((data > NO_AIR).all()):
        return
    if WATER_SHIFTED[0] <= (middle := _middle(data)) <= WATER_SHIFTED[1]:
        log.warning(
            "%s: no voxel is below %d, and the middle of what it shows has %.0f HU: it looks like %s. Check "
            "RescaleIntercept (-1024 in most CT) before you use the values",
            path,
            NO_AIR,
            middle,
            SHIFTED,
        )


def is_attenuation(data: Tensor) -> bool:
    """Tell whether values cannot be HU: not all the same, and all of what they show within 2 of 0."""
    low, high = float(data.min()), float(data.max())
    return low < high and low > -2 and _quantile(data, 0.99) < 2


def looks_like(data: Tensor) -> str:
    """Say what the values of a CT image look like."""
    low, high, middle = float(data.min()), float(data.max()), _middle(data)
    if low < NO_AIR:
        return "HU"
    if (low, high) in ((0, 1), (-1, 1)):
        return f"values normalised to {low:g} .. 1, which have lost their units"
    if is_attenuation(data):
        return "attenuation in 1/mm" if middle <= MATTER[1] else "attenuation in 1/cm, or values scaled to about 1"
    if low >= 0 and high <= 255:
        return GREY
    if low >= 0 and high > 1000:
        return SHIFTED
    return "a part of an image in HU without any air"


def _middle(data: Tensor) -> float:
    """The median of the object: of what is above a tenth of the 99th percentile."""
    values = _some(data)
    inside = values[values > 0.1 * _quantile(data, 0.99)]
    return float(inside.median()) if inside.numel() else 0.0


def _quantile(data: Tensor, part: float) -> float:
    return float(_some(data).quantile(part))


def _some(data: Tensor) -> Tensor:
    """At most `SAMPLES` of the values, spread evenly."""
    flat = data.detach().flatten().float()
    return flat[:: -(-flat.numel() // SAMPLES)]
