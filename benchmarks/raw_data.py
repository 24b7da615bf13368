"""Real raw data of the corpus through every applicable solver: 8-coil brain k-space, HTC2022 fan-beam sinograms.

    python benchmarks/raw_data.py --out runs/raw        # measurement files, pictures, raw.json
"""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medrecon.io.scan import Scan, save_scan
from medrecon.operators.coils import espirit
from medrecon.pipeline import reconstruct
from medrecon.pipeline.choose import describe_solvers
from medrecon.volume import Volume

RAW = Path(os.environ.get("MEDRECON_CORPUS", Path(__file__).parents[2] / "shared" / "corpus")) / "raw"


def brain() -> Scan:
    """(8, 230, 180) Cartesian samples, 12.4 % acquired, fully sampled centre of 24 x 24; voxel size not known: 1 mm."""
    kspace = torch.from_numpy(np.load(RAW / "raw_mri_brain8ch" / "cartesian_ksp.npy").astype(np.complex64))[None]
    mask = (kspace.abs().sum(1) > 0)[0]
    return Scan(
        "mri", kspace, (230, 180), torch.eye(4, dtype=torch.float64), "a.u.", mask=mask, maps=espirit(kspace, acs=24),
        provenance={"source": "raw_mri_brain8ch/cartesian_ksp.npy", "acceleration": 1 / float(mask.float().mean())},
    )  # fmt: skip


NUMBERS = ("angles", "distanceSourceOrigin", "distanceSourceDetector", "pixelSizePost", "effectivePixelSizePost")


def matlab(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Sinogram (views, detectors) and geometry of a HTC2022 file, MATLAB 5 or 7.3 (HDF5)."""
    import h5py
    from scipy.io import loadmat

    if h5py.is_hdf5(path):
        with h5py.File(path) as file:
            group = file["CtDataLimited"]
            return np.asarray(group["sinogram"]).T, {k: np.ravel(group["parameters"][k]) for k in NUMBERS}
    data = loadmat(path, simplify_cells=True)["CtDataLimited"]
    return data["sinogram"], {k: np.ravel(data["parameters"][k]) for k in NUMBERS}


def disc(name: str, size: int = 256) -> Scan:
    """HTC2022: 560 detectors (binned to 0.2 mm), views half a degree apart, acrylic disc in air; log-transformed."""
    values, p = matlab(RAW / "raw_ct_htc2022" / name)
    sinogram = torch.from_numpy(np.ascontiguousarray(values, np.float32))[None]
    source, detector = float(p["distanceSourceOrigin"][0]), float(p["distanceSourceDetector"][0])
    pixel = float(p["effectivePixelSizePost"][0]) * 512 / size
    geometry = {
        "type": "fan", "angles": torch.from_numpy(np.deg2rad(p["angles"])), "det_count": sinogram.shape[-1],
        "det_spacing": float(p["pixelSizePost"][0]), "det_offset": 0.0, "source_origin": source,
        "origin_detector": detector - source, "pixel_spacing": [pixel, pixel],
    }  # fmt: skip
    affine = torch.diag(torch.tensor([-pixel, -pixel, 1.0, 1.0], dtype=torch.float64))
    arc = float(np.ptp(p["angles"]))
    return Scan("ct", sinogram, (size, size), affine, "HU", geometry=geometry,
                provenance={"source": name, "views": sinogram.shape[1], "arc_degrees": arc})  # fmt: skip


def picture(images: dict[str, Volume], path: Path) -> None:
    """All solvers side by side, one grey scale: 0..99.5th percentile for MR, air to twice water for CT."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    first = next(iter(images.values()))
    low, high = (-1000.0, 1500.0) if first.units == "HU" else (0.0, float(first.data.quantile(0.995)))
    columns = min(4, len(images))
    rows = math.ceil(len(images) / columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(2.6 * columns, 2.8 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, volume) in zip(axes.flat, images.items(), strict=False):
        axis.imshow(volume.data[0], cmap="gray", vmin=low, vmax=high)
        axis.set_title(name, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    scans = {
        "brain8ch": brain(),
        "htc_90_degrees": disc("tb_subsample_90.mat"),
        "htc_30_degrees": disc("ta_subsample73.mat"),
    }
    rows: list[dict[str, Any]] = []
    for case, scan in scans.items():
        save_scan(scan, options.out / f"{case}.h5", overwrite=True)
        images = {}
        for solver in (s["name"] for s in describe_solvers() if scan.modality in s["modalities"]):
            images[solver], report = reconstruct(scan, solver)
            rows.append({"case": case, "solver": solver, "chi2": report["chi2"], "seconds": report["seconds"],
                         "converged": report["converged"]})  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
        picture(images, options.out / f"{case}.png")
    (options.out / "raw.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
