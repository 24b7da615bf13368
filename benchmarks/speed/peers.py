"""Other Python projectors on the CPU beside ours, parallel beam: CPU seconds a slice (all threads), one run.

    python benchmarks/speed/peers.py            # scikit-image; and svmbir, mbirjax where they are installed

Each is asked for the same image, views and detector; times are after a first call, which compiles or fills caches. The
last column is the difference of its forward projection of a smooth disc from the closed form: an accuracy class; empty
where the views are turned otherwise than ours, so that they cannot be compared.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from projectors import cpu_seconds

from medrecon.geometry import ImageGrid, ParallelGeometry
from medrecon.operators.ct.operator import CTOperator

Pair = tuple[str, int, Callable[[], Any], Callable[[], Any]]
"""Name, slices, forward (returns (slices, views, detectors)) and adjoint."""


def ours(size: int, views: int, x: np.ndarray, y: np.ndarray) -> Iterator[Pair]:
    geometry = ParallelGeometry(tuple(k * math.pi / views for k in range(views)), y.shape[2], 1.0)
    grid = ImageGrid((size, size), (1.0, 1.0))
    for slices in (1, len(x)):
        A = CTOperator(geometry, grid)
        image, sinogram = torch.from_numpy(x[:slices]), torch.from_numpy(y[:slices])
        yield f"medrecon ({A.chosen()})", slices, partial(A, image), partial(A.adjoint, sinogram)
    A = CTOperator(geometry, grid, "astra")
    image, sinogram = torch.from_numpy(x[:1]), torch.from_numpy(y[:1])
    yield "ASTRA (linear)", 1, lambda: A(image), lambda: A.adjoint(sinogram)


def skimage(size: int, views: int, x: np.ndarray, y: np.ndarray) -> Iterator[Pair]:
    from skimage.transform import iradon, radon

    degrees = np.arange(views) * 180 / views
    yield (
        "scikit-image radon / iradon",
        1,
        lambda: radon(x[0], degrees, circle=True).T[None],
        lambda: iradon(y[0, :, :size].T, degrees, filter_name=None),
    )


def svmbir(size: int, views: int, x: np.ndarray, y: np.ndarray) -> Iterator[Pair]:
    import svmbir

    angles, options = np.arange(views) * np.pi / views, {"verbose": 0, "roi_radius": 1.5 * size}
    yield (
        "svmbir",
        len(x),
        lambda: svmbir.project(x, angles, y.shape[2], **options).swapaxes(0, 1),
        lambda: svmbir.backproject(
            np.ascontiguousarray(y.swapaxes(0, 1)), angles, num_rows=size, num_cols=size, **options
        ),
    )


def mbirjax(size: int, views: int, x: np.ndarray, y: np.ndarray) -> Iterator[Pair]:
    import mbirjax

    model = mbirjax.ParallelBeamModel((views, len(x), y.shape[2]), np.arange(views) * np.pi / views)
    model.set_params(recon_shape=(size, size, len(x)))
    volume, sinogram = np.moveaxis(x, 0, -1), np.ascontiguousarray(y.swapaxes(0, 1))
    yield (
        "mbirjax",
        len(x),
        lambda: np.asarray(model.forward_project(volume)).swapaxes(0, 1),
        lambda: np.asarray(model.back_project(sinogram)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print("| case | projector | slices | forward ms | x ours | adjoint ms | x ours | error |")
    print("|---|---|---|---|---|---|---|---|")
    for size, views in ((256, 60), (512, 180)):
        x, y, exact = phantom(size, views, options.slices)
        rows: list[tuple[str, int, float, float, float]] = []
        for peer in (ours, skimage, svmbir, mbirjax):
            try:
                pairs = list(peer(size, views, x, y))
            except ImportError as missing:
                print(f"(without {missing.name})")
                continue
            for name, slices, forward, adjoint in pairs:
                ahead, back = (cpu_seconds(call, options.repeats) / slices for call in (forward, adjoint))
                rows.append((name, slices, ahead, back, difference(np.asarray(forward())[0], exact)))
        best = {slices: row for row in rows if row[0].startswith("medrecon") for slices in (row[1],)}
        for name, slices, ahead, back, error in rows:
            base = best[slices]
            same = f"{error:.3f}" if error < 0.1 else ""
            print(
                f"| {size}, {views} views | {name} | {slices} | {ahead * 1e3:.1f} | {ahead / base[2]:.1f} "
                f"| {back * 1e3:.1f} | {back / base[3]:.1f} | {same} |",
                flush=True,
            )


def phantom(size: int, views: int, slices: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A Gaussian blob off the middle in every slice, sinograms of noise, and the blob's exact line integrals."""
    detectors, width = math.ceil(1.42 * size), size / 8
    place = np.arange(size) - (size - 1) / 2
    x0, y0 = 0.1 * size, -0.15 * size
    blob = np.exp(-((place[None, :] - x0) ** 2 + (-place[:, None] - y0) ** 2) / (2 * width**2))
    angles = np.arange(views)[:, None] * np.pi / views
    s = np.arange(detectors) - (detectors - 1) / 2 - x0 * np.cos(angles) - y0 * np.sin(angles)
    exact = width * math.sqrt(2 * math.pi) * np.exp(-(s**2) / (2 * width**2))
    noise = np.random.default_rng(0).standard_normal((slices, views, detectors), dtype=np.float32)
    return np.repeat(blob[None].astype(np.float32), slices, 0), noise, exact


def difference(found: np.ndarray, exact: np.ndarray) -> float:
    """Relative error, in the best of the orientations that the packages use, on the detectors that both have."""
    cut = (exact.shape[1] - found.shape[1]) // 2
    exact = exact[:, cut : cut + found.shape[1]]
    turned = (found, found[:, ::-1], found[::-1], found[::-1, ::-1])
    return float(min(np.linalg.norm(f - exact) for f in turned) / np.linalg.norm(exact))


if __name__ == "__main__":
    main()
