"""A made-up data set of PNG sheets, as training reads them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

MANIFEST = """
name = "synthetic"
modality = "CT"
units = "HU"
content = "blobs"
licence = "none"
licence_checked = "made here"
kind = "sheets"
train = "train"
val = "val"
slope = 1.0
intercept = -1024.0
"""


def write_split(folder: Path, slices: np.ndarray, origins: Sequence[str]) -> None:
    """Slices (N, H, H) of HU + 1024 as one sheet; an origin is source, subject and detail of a slice, by tabs."""
    folder.mkdir()
    Image.fromarray(slices.reshape(-1, slices.shape[-1]).astype(np.uint16)).save(folder / "s.png")
    rows = "".join(f"s.png\t{i}\t{origin}\n" for i, origin in enumerate(origins))
    (folder / "index.tsv").write_text("sheet\tframe\tsource\tsubject\tdetail\n" + rows)
