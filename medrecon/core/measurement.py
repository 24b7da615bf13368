"""What every solver gets: the measured data with the precision of each sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medrecon.numerics.linalg import summed

FLOATING = (torch.float32, torch.float64, torch.complex64, torch.complex128)


@dataclass(frozen=True, eq=False)
class Measurement:
    """data (B, *out_shape) and its precision: 1 / variance, of E|n|^2 when complex; 0 = not measured.

    The precision broadcasts to the data. It includes what the model of the scanner gets wrong (a model
    error), not only the noise; otherwise a discrepancy stop would fit the model error.

    Raises:
        TypeError: not tensors, or of integers or half precision.
        ValueError: on two devices, not finite, a negative precision, or shapes that do not broadcast.
    """

    data: Tensor
    precision: Tensor

    def __post_init__(self) -> None:
        for name in ("data", "precision"):
            value = getattr(self, name)
            if not isinstance(value, Tensor):
                raise TypeError(f"Measurement: {name}: expected a torch.Tensor, got {type(value).__name__}")
        if self.data.dtype not in FLOATING:
            raise TypeError(
                f"Measurement: data: expected single or double precision, real or complex, got {self.data.dtype}; "
                "convert them, as by data.float()"
            )
        if self.precision.device != self.data.device:
            raise ValueError(
                f"Measurement: precision is on {self.precision.device}, the data are on {self.data.device}; move one"
            )
        if not self.precision.is_complex():  # of a mask, or in double beside data in single, too
            object.__setattr__(self, "precision", self.precision.to(self.data.real.dtype))
        try:
            fits = torch.broadcast_shapes(self.data.shape, self.precision.shape) == self.data.shape
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"Measurement: precision {tuple(self.precision.shape)} does not broadcast "
                f"to data {tuple(self.data.shape)}"
            )
        if self.precision.is_complex() or bool((self.precision < 0).any()):
            raise ValueError("Measurement: precision is 1/variance; it must be real and not negative")
        if not bool(torch.isfinite(self.precision).all()):
            raise ValueError("Measurement: precision has infinite or NaN values; give every sample a noise level")
        if not bool(torch.isfinite(torch.view_as_real(self.data) if self.data.is_complex() else self.data).all()):
            raise ValueError("Measurement: data have NaN or infinite samples; set their precision and value to 0")

    @property
    def root(self) -> Tensor:
        """sqrt(precision): multiply data and forward projection by it to whiten them."""
        return self.precision.sqrt()

    @property
    def measured(self) -> Tensor:
        """How many samples of each item were measured, (B,), at least 1."""
        return (self.precision > 0).expand(self.data.shape).flatten(1).sum(1).clamp_min(1)

    def __getitem__(self, index: slice) -> Measurement:
        """A part of the batch."""
        shared = self.precision.shape[:1] == (1,) or self.precision.ndim < self.data.ndim
        return Measurement(self.data[index], self.precision if shared else self.precision[index])

    def repeated(self, count: int) -> Measurement:
        """Return `count` batches in one, one after another."""
        times = lambda t: t.repeat(count, *(1,) * (t.ndim - 1))  # noqa: E731
        shared = self.precision.ndim < self.data.ndim or len(self.precision) == 1
        return Measurement(times(self.data), self.precision if shared else times(self.precision))

    def chi2(self, projection: Tensor) -> Tensor:
        """chi^2 / m of a forward projection, (B,): weighted squared residual over measured samples.

        Raises:
            ValueError: not of the shape of the data.
        """
        if projection.shape != self.data.shape:
            raise ValueError(
                f"Measurement: projection of shape {tuple(projection.shape)}, data of {tuple(self.data.shape)}"
            )
        weighted = (projection - self.data).abs().square() * self.precision
        return summed(weighted, weighted.ndim - 1) / self.measured
