"""What k-space says about its own neighbourhoods: the fully sampled centre, and the Gram matrix of its patches."""

from __future__ import annotations

import torch
from torch import Tensor

from medrecon.sampling.lines import centre

COLUMNS = 32
"""Calibration columns used at most: more cost time and change nothing."""
POWER = 15
"""Samples along each axis over which the power of the signal is averaged."""


def calibration_width(mask: Tensor) -> int:
    """Return the side of the largest fully sampled central square of a mask (H, W); 0 without zero frequency."""
    return int(_sampled_boxes(mask, max(mask.shape)).diagonal().sum())


def calibration_size(mask: Tensor, limit: int | None = None) -> tuple[int, int]:
    """Return rows and columns, each at most `limit`, of the largest fully sampled central rectangle of a mask (H, W).

    All readout rows by the ACS columns for masks of lines; (0, 0) when zero frequency is missing.
    """
    boxes = _sampled_boxes(mask, max(mask.shape) if limit is None else limit)
    sides = [torch.arange(1, n + 1, device=mask.device) for n in boxes.shape]
    best = int((boxes * torch.outer(*sides)).argmax())
    return (best // boxes.shape[1] + 1, best % boxes.shape[1] + 1) if bool(boxes[0, 0]) else (0, 0)


def calibration_region(mask: Tensor) -> tuple[slice, slice]:
    """Return where the rectangle of `calibration_size` lies, without a limit; slices of nothing when there is none."""
    rows, columns = (centre(n, kept) for n, kept in zip(mask.shape, calibration_size(mask), strict=True))
    return rows, columns


def _sampled_boxes(mask: Tensor, limit: int) -> Tensor:
    """[h - 1, w - 1]: 1 where the central box of h x w is fully sampled; h, w up to `limit`."""
    # A box that grows by one takes the samples at 0, -1, 1, -2, 2, ... from zero frequency, as `centre` does.
    for axis, size in enumerate(mask.shape):
        steps = torch.arange(1, min(size, limit) + 1, device=mask.device)
        mask = mask.index_select(axis, size // 2 + torch.where(steps % 2 == 0, -steps // 2, steps // 2))
    return (mask != 0).long().cumprod(0).cumprod(1)


def noise_to_signal(kspace: Tensor, acquired: Tensor, variance: float) -> Tensor:
    """Estimate the noise over the power of the signal around each sample of (C, H, W), at most 1e6: (H, W), float64.

    The power is the mean over the coils and the acquired samples of a square of POWER, less the variance.
    """
    pool = lambda x: torch.nn.functional.avg_pool2d(x[None], POWER, 1, POWER // 2)[0]  # noqa: E731
    energy = torch.where(acquired, kspace.abs().double().square().mean(0), 0)
    power = pool(energy) / pool(acquired.double()).clamp_min(0.5 / POWER**2)
    return variance / (power - variance).clamp_min(1e-6 * variance + torch.finfo(power.dtype).tiny)


class Calibration:
    """Gram matrices of all patches of the ACS, `height` rows by any set of columns.

    The Gram matrix of patches as wide as the ACS is formed once; that of a narrower patch, summed over all places it
    fits in, is a sum of its blocks. So every sampling pattern is calibrated by exact least squares on all of the ACS,
    without a matrix of its own.

    Rows of patches are weighted by 1 / their root mean square: unweighted, the few rows through zero frequency decide
    everything, and the kernels do badly where the signal is white (validation slices at 4x: 1.4 to 4.5 dB; 1 / the
    mean square is worse: it raises the noise of empty rows).

    Args:
        acs: fully sampled centre (C, h, w); the middle `COLUMNS` columns are used.
        height: rows of a patch.

    Raises:
        ValueError: an ACS lower than a patch.
    """

    def __init__(self, acs: Tensor, height: int) -> None:
        coils, rows, columns = acs.shape
        if rows < height:
            raise ValueError(
                f"calibration: a kernel of {height} rows does not fit in an ACS of {rows} x {columns}; "
                "acquire more of the centre or use a smaller kernel"
            )
        self.coils, self.height, self.width = coils, height, min(columns, COLUMNS)
        acs = acs[:, :, centre(columns, self.width)].to(torch.complex128)
        # (places, columns, rows of the patch, coils)
        patches = acs.unfold(1, height, 1).permute(1, 2, 3, 0).reshape(rows - height + 1, -1)
        energy = patches.abs().square().mean(1, keepdim=True)
        patches = patches / energy.sqrt().clamp_min(torch.finfo(energy.dtype).tiny).sqrt()
        block = height * coils
        self.strip = (patches.mH @ patches).reshape(self.width, block, self.width, block)

    def gram(self, columns: list[int]) -> Tensor:
        """Sum conj(a) a^T over places, for a patch a of these columns (offsets, increasing): (n, n) complex128.

        Elements of a patch are ordered by column, row, coil.

        Raises:
            ValueError: columns that span more than the ACS.
        """
        span, first = columns[-1] - columns[0] + 1, columns[0]
        if span > self.width:
            raise ValueError(
                f"calibration: a kernel of {span} columns does not fit in an ACS of {self.width} columns; "
                "acquire more of the centre or use a smaller kernel"
            )
        total = self.strip.new_zeros(())
        for start in range(self.width - span + 1):
            index = torch.tensor([start + c - first for c in columns], device=self.strip.device)
            total = total + self.strip[index][:, :, index]
        n = len(columns) * self.height * self.coils
        return total.reshape(n, n)
