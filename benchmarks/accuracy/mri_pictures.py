"""Pictures of the MRI solvers on a public scan, the abdominal MR that the pydicom wheel ships.

python benchmarks/accuracy/mri_pictures.py --out docs/images      # the pictures of docs/guide/mri.md
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from medrecon import formats
from medrecon.core.scan import Scan
from medrecon.core.volume import Volume
from medrecon.pipeline import reconstruct
from medrecon.pipeline.choose import suitable
from medrecon.quality.evaluate import evaluate
from medrecon.quality.picture import comparison, display_window
from medrecon.simulate import simulate_mri, simulate_noncartesian

CASES: dict[str, dict[str, Any]] = {
    "poisson": {"accel": 6.0, "mask": "poisson", "acs": 24},
    "partial_fourier": {"accel": 1.0, "partial_fourier": 0.625},
    "spokes": {"pattern": "golden", "readouts": 48},
}


def measure(volume: Volume, settings: dict[str, Any]) -> Scan:
    simulate = simulate_noncartesian if "pattern" in settings else simulate_mri
    return simulate(volume, **settings, generator=torch.Generator().manual_seed(0))


def main() -> None:
    from PIL import Image
    from pydicom.data import get_testdata_file

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    volume = formats.read(Path(str(get_testdata_file("examples_overlay.dcm", download=False))))
    window, error = display_window(volume)
    for case in options.case:
        scan = measure(volume, CASES[case])
        images, captions = {}, {}
        for name in suitable(scan):
            found, _ = reconstruct(scan, name)
            images[name] = found.data[0]
            captions[name] = f"{evaluate(found, volume)['psnr_db']:.1f} dB"
            print(case, name, captions[name], flush=True)
        path = options.out / f"mri_{case}.png"
        comparison(
            volume.data[0].float(),
            images,
            path,
            title=f"{case.replace('_', ' ')}, 8 coils, 30 dB",
            units="a.u.",
            window=window,
            error=error,
            captions=captions,
        )
        Image.open(path).convert("RGB").reduce(2).save(path, optimize=True)


if __name__ == "__main__":
    main()
