from pathlib import Path

import numpy as np
import torch

from medrecon.formats.ct_pd.views import Projections
from medrecon.formats.ct_pd.write import write_ct_pd


def make(folder: Path) -> Path:
    """Two turns of 40 views; the writer names no patient, so the files get one."""
    from pydicom import dcmread

    views = np.arange(80)
    found = Projections(
        torch.full((80, 6, 40), 0.5) + torch.rand(80, 6, 40, generator=torch.Generator().manual_seed(0)) / 10,
        2 * np.pi * views / 40,
        0.25 * (views - 40),
        np.full(80, 400.0),
        np.zeros((80, 3)),
        (3.0, 8.0),
        (0.0, 2.0),
        750.0,
        views_per_turn=40,
        mu_water=0.02,
    )
    made = write_ct_pd(found, folder / "projections")
    for path in made.iterdir():
        dataset = dcmread(path)
        dataset.PatientName = dataset.PatientID = "SECRET"
        dataset.save_as(path)
    return made
