"""Comparison pictures: reconstructions above, signed errors below, each row with its scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from medrecon.core.volume import Volume

MARK = "RESEARCH USE ONLY - NOT FOR CLINICAL USE"


def comparison(
    reference: Tensor,
    images: dict[str, Tensor],
    path: Path,
    *,
    title: str,
    units: str,
    window: tuple[float, float],
    error: float,
    captions: dict[str, str] | None = None,
    pixel: tuple[float, float] = (1.0, 1.0),
) -> None:
    """Write a PNG with the reference and every image (H, W) in `window`, and image - reference in +-error.

    Pixels that are NaN, which an image does not cover, are of a colour that no value has.

    Args:
        captions: a second line under an image's name, for instance its figures.
        pixel: pitch of rows and of columns, in any unit.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    captions, shape = captions or {}, pixel[0] / pixel[1]
    columns, aspect = len(images) + 1, shape * reference.shape[0] / reference.shape[1]
    grey, signed = colours("gray"), colours("RdBu_r")
    figure = Figure(figsize=(2.4 * columns + 0.8, 4.8 * aspect + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    shown = axes[0, 0].imshow(reference.numpy(), cmap=grey, vmin=window[0], vmax=window[1], aspect=shape)
    axes[0, 0].set_title("reference", fontsize=9)
    wrong = None
    for i, (name, image) in enumerate(images.items(), 1):
        axes[0, i].imshow(image.numpy(), cmap=grey, vmin=window[0], vmax=window[1], aspect=shape)
        axes[0, i].set_title(f"{name}\n{captions.get(name, '')}".strip(), fontsize=9)
        wrong = axes[1, i].imshow((image - reference).numpy(), cmap=signed, vmin=-error, vmax=error, aspect=shape)
    axes[1, 0].text(0.5, 0.5, "error\n(reconstruction\n- reference)", ha="center", va="center", fontsize=9)
    figure.colorbar(shown, ax=axes[0, :], label=units, shrink=0.8, pad=0.01)
    if wrong is not None:
        figure.colorbar(wrong, ax=axes[1, :], label=f"error, {units}", shrink=0.8, pad=0.01)
    figure.suptitle(f"{title}\n{MARK}", fontsize=10)
    figure.savefig(path, dpi=110)


def colours(name: str) -> Any:
    """Return a colour map of matplotlib's in which what is NaN has a colour of its own."""
    from matplotlib import colormaps

    return colormaps[name].with_extremes(bad="#c9b458")


def display_window(reference: Volume) -> tuple[tuple[float, float], float]:
    """Grey window and error range: soft tissue for HU, 99.5 % of the magnitude for others."""
    if reference.units == "HU":
        return (-160.0, 240.0), 100.0
    values = reference.data.abs().float().flatten()
    top = float(values.kthvalue(max(1, round(0.995 * values.numel()))).values) or 1.0
    return (0.0, top), 0.15 * top


def upright(image: Tensor, affine: Tensor) -> Tensor:
    """Flip a slice (H, W) as it is looked at: rows go down to feet or back, columns to the patient's left or back."""
    axes = affine[:3, [1, 0]]  # of rows and of columns, in RAS
    rising = [axis for axis, step in enumerate(axes.T) if float(step[step.abs().argmax()]) > 0]
    return image.flip(rising)
