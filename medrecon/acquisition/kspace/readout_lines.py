"""Readouts of a scanner made alike: one direction, even frequencies, full length, no ghost, no oversampling."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medrecon.acquisition.kspace.readouts import Encoding, Index, Readouts
from medrecon.corrections.epi_ghost import correct_ghost, ghost_phase
from medrecon.corrections.ramp_sampling import regridding
from medrecon.corrections.readout_oversampling import remove_readout_oversampling


@dataclass(eq=False)
class Preparation:
    """Lines of a measurement on full k-space along the readout, corrected, without oversampling.

    Attributes:
        ghost: (offset, slope) of backward lines, by slice counter; where there are navigators.
        kept: samples of a prepared line.
    """

    lines: Readouts
    encoding: Encoding
    ghost: dict[int, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kept = self.encoding.kept(0)
        self._matrices: dict[int, Tensor] = {}

    def __call__(self, index: Index) -> tuple[Tensor, Tensor]:
        """Lines alike -> (n, C, kept) complex64 with zero frequency at kept//2, and which samples were measured."""
        data, rows = self._full(index)
        for counter in np.unique(self.lines.counters["slice"][index]) if self.ghost else ():
            own = torch.from_numpy(self.lines.counters["slice"][index] == counter)
            if int(counter) in self.ghost:
                data[own] = correct_ghost(data[own], bool(self.lines.reverse[index[0]]), self.ghost[int(counter)])
        full = len(rows)
        if self.kept < full and not bool(rows.all()):
            at = (torch.arange(self.kept) - self.kept // 2).double() * full / self.kept + full // 2
            measured = rows.nonzero().flatten()
            rows = (at >= int(measured[0])) & (at <= int(measured[-1]))
            return remove_readout_oversampling(data, self.kept, -1) * rows, rows
        return remove_readout_oversampling(data, self.kept, -1), rows[: self.kept]

    def find_ghosts(self, navigators: Index, image: int) -> dict[str, Any]:
        """Fit the phase between forward and backward lines, slice by slice; what was found, for the provenance.

        The navigators are those of the contrast, repetition and set of the line `image`, or the first there are.
        """
        for counter in np.unique(self.lines.counters["slice"][navigators]):
            own = navigators[self.lines.counters["slice"][navigators] == counter]
            for name in ("contrast", "repetition", "set"):
                values, wanted = self.lines.counters[name][own], self.lines.counters[name][image]
                own = own[values == (wanted if (values == wanted).any() else values.min())]
            back = self.lines.reverse[own]
            if back.any() and not back.all():
                parts = [torch.cat([self._full(i)[0] for i in self.lines.alike(own[side])]) for side in (~back, back)]
                self.ghost[int(counter)] = ghost_phase(*parts)
        return {str(k): {"offset_rad": v[0], "slope_rad_per_pixel": v[1]} for k, v in self.ghost.items()}

    def _full(self, index: Index) -> tuple[Tensor, Tensor]:
        """(n, C, matrix) lines alike, run forward, and which samples were measured."""
        data, back = self.lines.read(index), bool(self.lines.reverse[index[0]])
        data = data.flip(-1) if back else data
        n, samples = self.encoding.matrix[0], data.shape[-1]
        if self.encoding.ramp is not None:
            return self._even(data, index), torch.ones(n, dtype=torch.bool)
        centre = int(self.lines.centre[index[0]] - self.lines.discard[index[0], 0])
        # A symmetric line of even length keeps its centre when flipped; half a sample is left to the ghost correction.
        start = n // 2 - (samples - samples % 2 - centre if back else centre)
        if start < 0 or start + samples > n:
            raise ValueError(
                f"readout {index[0]}: {samples} samples with zero frequency at {centre} do not fit into "
                f"the {n} of the header's encoded matrix"
            )
        full = torch.zeros(*data.shape[:2], n, dtype=data.dtype)
        full[..., start : start + samples] = data
        rows = torch.zeros(n, dtype=torch.bool)
        rows[start : start + samples] = True
        return full, rows

    def _even(self, data: Tensor, index: Index) -> Tensor:
        """Lines measured on the gradient's ramps as well, on even frequencies."""
        assert self.encoding.ramp is not None
        samples, n = data.shape[-1], self.encoding.matrix[0]
        k = self.encoding.ramp.frequencies(samples, n)
        if samples not in self._matrices:
            self._matrices[samples] = regridding(k, n).to(torch.complex64)
        if self.lines.offcentre is not None:
            # The receiver's frequency was that of the gradient's flat top, its phase runs on evenly in time.
            shift = torch.from_numpy(self.lines.offcentre[index]) / self.encoding.field_mm[0]
            even = float(k.diff().max()) * (torch.arange(samples, dtype=torch.float64) - (samples - 1) / 2)
            turn = 2 * torch.pi * shift[:, None] * (even - k)
            data = data * torch.polar(torch.ones_like(turn), turn).to(data.dtype)[:, None]
        return torch.einsum("ks,ncs->nck", self._matrices[samples], data)
