from pathlib import Path

import fastmri_maker
import torch

from medrecon.core.scan import Scan
from medrecon.formats.measurement_file import save_scan


def make(folder: Path) -> Path:
    data = torch.from_numpy(fastmri_maker.kspace(2, 3, (20, 15)))
    affine = torch.eye(4, dtype=torch.float64)
    mask = torch.ones(20, 15, dtype=torch.bool)
    return save_scan(Scan("mri", data, (20, 15), affine, "a.u.", mask=mask), folder / "scan.h5")
