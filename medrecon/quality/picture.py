"""Comparison pictures: reconstructions above, signed errors below, each row with its scale."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from medrecon.core.volume import Volume


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
) -> None:
    """Write a PNG with the reference and every image (H, W) in `window`, and image - reference in +-error.

    Args:
        captions: a second line under an image's name, for instance its figures.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    captions = captions or {}
    columns, aspect = len(images) + 1, reference.shape[0] / reference.shape[1]
    figure = Figure(figsize=(2.4 * columns + 0.8, 4.8 * aspect + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    shown = axes[0, 0].imshow(reference.numpy(), cmap="gray", vmin=window[0], vmax=window[1])
    axes[0, 0].set_title("reference", fontsize=9)
    wrong = None
    for i, (name, image) in enumerate(images.items(), 1):
        axes[0, i].imshow(image.numpy(), cmap="gray", vmin=window[0], vmax=window[1])
        axes[0, i].set_title(f"{name}\n{captions.get(name, '')}".strip(), fontsize=9)
        wrong = axes[1, i].imshow((image - reference).numpy(), cmap="RdBu_r", vmin=-error, vmax=error)
    axes[1, 0].text(0.5, 0.5, "error\n(reconstruction\n- reference)", ha="center", va="center", fontsize=9)
    figure.colorbar(shown, ax=axes[0, :], label=units, shrink=0.8, pad=0.01)
    if wrong is not None:
        figure.colorbar(wrong, ax=axes[1, :], label=f"error, {units}", shrink=0.8, pad=0.01)
    figure.suptitle(f"{title}\nRESEARCH USE ONLY - NOT FOR CLINICAL USE", fontsize=10)
    figure.savefig(path, dpi=110)


def display_window(reference: Volume) -> tuple[tuple[float, float], float]:
    """Grey window and error range: soft tissue for CT, 99.5 % of the magnitude for MRI."""
    if reference.modality == "CT":
        return (-160.0, 240.0), 100.0
    values = reference.data.float().flatten()
    top = float(values.kthvalue(max(1, round(0.995 * values.numel()))).values)
    return (0.0, top), 0.15 * top
