"""The pixels of a derived DICOM series: 16 bits, and the attributes of group 0028 that give them their meaning."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from medrecon.core.stack import Stack

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

CT_INTERCEPT = -1024
SAMPLE = 1_000_000
"""Voxels that the window of MR is found from."""


class Values:
    """The values of a stack, read once for their range and once to be stored.

    Attributes:
        attributes: of group 0028, without rows and columns.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.low, self.high, self.whole = math.inf, -math.inf, True
        self.below = self.above = 0
        voxels, before, sample = math.prod(stack.shape), 0, []
        step = max(1, voxels // SAMPLE)
        for values in self._doubles():
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
            self.below += int((values < CT_INTERCEPT - 0.5).sum())
            self.above += int((values > CT_INTERCEPT + 65535).sum())
            self.whole = self.whole and bool((values == values.round()).all())
            sample.append(values.flatten()[-before % step :: step].clone())
            before += values.numel()
        self.slope, self.intercept = self._scale()
        self.attributes = self._attributes(*self._window(torch.cat(sample)))

    def warn(self, path: Path) -> None:
        """Say what of CT the 16 bits do not hold."""
        if self.stack.modality != "CT":
            return
        if self.below:
            log.warning(
                "%s: %d voxels below %d HU (down to %.0f) are written as %d: noise in air, no tissue is lost",
                path,
                self.below,
                CT_INTERCEPT,
                self.low,
                CT_INTERCEPT,
            )
        if self.above:
            top = CT_INTERCEPT + 65535
            log.warning(
                "%s: %d voxels above %d HU (up to %.0f) are written as %d: no tissue and no metal has so much; "
                "look at the image before you use it",
                path,
                self.above,
                top,
                self.high,
                top,
            )

    def stored(self) -> Iterator[NDArray[np.uint16]]:
        """Yield the pixels (Y, X) of each slice."""
        for values in self._doubles():
            yield ((values - float(self.intercept)) / float(self.slope)).round().clamp(0, 65535).numpy().astype("<u2")

    def _doubles(self) -> Iterator[Tensor]:
        return (values.detach().cpu().double() for values in self.stack)

    def _scale(self) -> tuple[Any, Any]:
        """Rescale slope and intercept: whole HU from -1024 on, or of MR what uses the 16 bits."""
        from pydicom.valuerep import DSfloat

        if self.stack.modality == "CT":
            return DSfloat(1), DSfloat(CT_INTERCEPT)
        reach = self.high - min(self.low, 0)
        slope = DSfloat(1 if self.whole and reach < 65536 else max(reach / 65535, 1e-30), auto_format=True)
        return slope, DSfloat(min(self.low, 0), auto_format=True)

    def _window(self, sample: Tensor) -> tuple[float, float]:
        """Centre and width in which the image is shown: soft tissue, or of MR from its 1 % to its 99 % quantile."""
        if self.stack.modality == "CT":
            return 40.0, 400.0
        p1, p99 = (float(q) for q in torch.quantile(sample, torch.tensor([0.01, 0.99], dtype=torch.float64)))
        return (p1 + p99) / 2, max(p99 - p1, float(self.slope))

    def _attributes(self, centre: float, width: float) -> dict[str, Any]:
        from pydicom.valuerep import DSfloat

        # DICOM's default window function needs a width of 1 at least; raw MR data may be of the order of 1e-5.
        exact = {"VOILUTFunction": "LINEAR_EXACT"} if width < 1 else {}
        return {
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 0,
            "RescaleSlope": self.slope,
            "RescaleIntercept": self.intercept,
            "RescaleType": "HU" if self.stack.modality == "CT" else "US",
            "WindowCenter": DSfloat(centre, auto_format=True),
            "WindowWidth": DSfloat(width, auto_format=True),
            **exact,
        }
