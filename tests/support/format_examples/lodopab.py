from pathlib import Path

import h5py
import numpy as np


def make(folder: Path) -> Path:
    with h5py.File(folder / "observation_test_000.hdf5", "w") as h5:
        h5["data"] = np.full((1, 1000, 513), 0.01, np.float32)
    return folder / "observation_test_000.hdf5"
