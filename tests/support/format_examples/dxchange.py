from pathlib import Path

import numpy as np
import raw_maker


def make(folder: Path) -> Path:
    rays = raw_maker.parallel(60, 64, 2.5, 4.0)
    p = raw_maker.lines(rays).double().numpy()[:, None].repeat(2, axis=1)
    return raw_maker.dxchange(folder / "raw.h5", p, np.rad2deg(rays.angles), pixel=(4.0, "mm"), i0=1e4)
