from pathlib import Path

import numpy as np
from PIL import Image


def make(folder: Path) -> Path:
    """A rod off the axis, 3601 views over a full turn, the last repeats the first."""
    made = folder / "slice00001" / "mode2"
    made.mkdir(parents=True)
    turn = 2 * np.pi * np.arange(3601)[:, None] / 3600
    rod = np.exp(-(((np.arange(1912)[None] - 955.5 - 300 * np.sin(turn)) / 60) ** 2))
    for name, values in {
        "sinogram": 300 + 20000 * np.exp(-rod),
        "dark": np.full((1, 1912), 300),
        "flat1": np.full((1, 1912), 20300),
        "flat2": np.full((1, 1912), 20300),
    }.items():
        Image.fromarray(values.round().astype(np.uint16)).save(made / f"{name}.tif")
    return made
