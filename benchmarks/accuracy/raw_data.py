"""Real raw data of the corpus through every applicable solver: brain and phantom k-space, HTC2022 fan beam, tooth.

python benchmarks/accuracy/raw_data.py --out runs/raw                                  # all: files, pictures, raw.json
python benchmarks/accuracy/raw_data.py --out runs/raw --case tooth --solver fbp cgls  # some of them
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from corpus import CORPUS

from medrecon.acquisition.options import RawOptions
from medrecon.coils.maps.espirit import espirit
from medrecon.core.scan import Scan
from medrecon.core.volume import Volume
from medrecon.formats.measurement_file import save_scan
from medrecon.formats.raw_data import read_raw
from medrecon.pipeline import reconstruct
from medrecon.pipeline.choose import solver_classes, suitable
from medrecon.quality.evaluate import evaluate
from medrecon.sampling.pattern import draw
from medrecon.simulate.undersample import undersample

RAW = CORPUS / "raw"


def brain() -> Scan:
    """(8, 230, 180) Cartesian samples, 12.4 % acquired, fully sampled centre of 24 x 24; voxel size not known: 1 mm."""
    scan = read_raw(RAW / "raw_mri_brain8ch" / "cartesian_ksp.npy")
    return replace(scan, maps=espirit(scan.data, acs=24))


def disc(name: str) -> Scan:
    """HTC2022: 560 detectors (binned to 0.2 mm), views half a degree apart, acrylic disc in air; 1/mm."""
    return read_raw(RAW / "raw_ct_htc2022" / name, RawOptions(size=256))


def tooth() -> Scan:
    """Synchrotron, parallel beam, 181 views of 640 elements, flat field, centre found; per element, size not known."""
    return read_raw(RAW / "raw_ct_tooth" / "tooth.h5", RawOptions(size=256))


def phantom(accel: float | None) -> Scan:
    """Siemens GRE of a phantom, 2 coils, fully sampled; or of its lines every `accel`-th and the central 24."""
    scan = read_raw(RAW / "raw_mri_twix" / "gre.dat")
    if accel is None:
        return scan
    pattern = draw("equispaced", (scan.image_shape[0], scan.image_shape[1]), accel, 24, seed=0)
    return undersample(scan, pattern.mask, details=pattern.describe())


CASES = {
    "brain8ch": brain,
    "twix_gre": lambda: phantom(None),
    "twix_gre_2x": lambda: phantom(2.0),
    "twix_gre_3x": lambda: phantom(3.0),
    "htc_90_degrees": lambda: disc("tb_subsample_90.mat"),
    "htc_30_degrees": lambda: disc("ta_subsample73.mat"),
    "tooth": tooth,
}


WHOLE = {"twix_gre_2x": "twix_gre", "twix_gre_3x": "twix_gre"}
"""Cases that are part of another one, whose coil-combined image is their reference; its own noise is in it."""


def picture(images: dict[str, Volume], path: Path) -> None:
    """All solvers side by side, one grey scale: 0 .. 99.5th percentile of the first."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    first = next(iter(images.values()))
    high = float(first.data.quantile(0.995))
    columns = min(4, len(images))
    rows = math.ceil(len(images) / columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(2.6 * columns, 2.8 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, volume) in zip(axes.flat, images.items(), strict=False):
        axis.imshow(volume.data[0], cmap="gray", vmin=0.0, vmax=high)
        axis.set_title(name, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--solver", nargs="+", help="all by default")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for case in options.case:
        scan = CASES[case]()
        save_scan(scan, options.out / f"{case}.h5", overwrite=True)
        whole = reconstruct(CASES[WHOLE[case]](), "zero-filled")[0] if case in WHOLE else None
        images = {"all samples": whole} if whole is not None else {}
        # The tooth is in units of a detector element, which the CT prior, that knows HU of patients, cannot read.
        names = [n for n in suitable(scan) if case != "tooth" or not solver_classes()[n].needs_prior]
        for solver in (name for name in names if name in (options.solver or names)):
            images[solver], report = reconstruct(scan, solver)
            rows.append(
                {
                    "case": case,
                    "solver": solver,
                    "chi2": report["chi2"],
                    "seconds": report["seconds"],
                    "converged": report["converged"],
                }
            )
            if whole is not None:
                scores = evaluate(images[solver], whole)
                rows[-1] |= {"psnr_db": scores["psnr_db"], "ssim": scores["ssim"]}
            print(json.dumps(rows[-1]), flush=True)
        picture(images, options.out / f"{case}.png")
    (options.out / "raw.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
