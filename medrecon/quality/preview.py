"""A preview: some slices of a volume in one picture, to see at a glance whether a run is worth going on with."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from medrecon.core.stack import Stack
from medrecon.core.volume import Volume
from medrecon.quality.picture import MARK, colours, display_window, upright

SLICES = 9
"""In one picture, at most."""


def preview(stack: Stack, path: Path, *, title: str, first: int = 0) -> None:
    """Write a PNG of up to nine slices, evenly spread over the volume, each with its number, on one grey scale.

    HU are shown from -160 to 240 (soft tissue), other values from 0 to their 99.5 % quantile in the slices shown.

    Args:
        stack: a volume of real values, see `Stack.of`.
        first: number of its first slice in the scan.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = spread(len(stack))
    data = torch.stack([stack.read(index) for index in shown])
    volume = Volume(data, stack.affine, stack.units, stack.modality)  # at another place, which is not shown
    (low, high), _ = display_window(volume)
    x, y, _ = volume.spacing
    columns = math.ceil(math.sqrt(len(shown)))
    rows, aspect = math.ceil(len(shown) / columns), y / x * volume.data.shape[1] / volume.data.shape[2]
    size = 2.6 if len(shown) > 1 else 4.5
    figure = Figure(figsize=(max(4.0, size * columns + 0.9), size * rows * min(aspect, 3) + 1.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, index, values in zip(axes.flat, shown, data, strict=False):
        image = upright(values.float(), volume.affine).numpy()
        grey = axis.imshow(image, cmap=colours("gray"), vmin=low, vmax=high, aspect=y / x)
        axis.set_title(f"slice {first + index}", fontsize=8)
    figure.colorbar(grey, ax=axes, label=volume.units, shrink=0.8, pad=0.01)
    figure.suptitle(f"{title}\n{MARK}", fontsize=9)
    figure.savefig(path, dpi=110)


def spread(count: int, most: int = SLICES) -> list[int]:
    """Return up to `most` indices of `count`, evenly spread, each the middle of its part."""
    number = min(count, most)
    return [(2 * k + 1) * count // (2 * number) for k in range(number)]
