from pathlib import Path

import fastmri_maker
import numpy as np


def make(folder: Path) -> Path:
    np.save(folder / "k.npy", fastmri_maker.kspace(3, 2, (20, 15)))
    return folder / "k.npy"
