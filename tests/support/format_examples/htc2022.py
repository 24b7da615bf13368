from pathlib import Path

import numpy as np
from scipy.io import savemat


def make(folder: Path) -> Path:
    pitch, near, far = 0.2, 410.66, 553.74
    parameters = {
        "projectName": "htc2022",
        "distanceSourceOrigin": near,
        "distanceSourceDetector": far,
        "distanceUnit": "mm",
        "angles": np.arange(20) * 1.0,
        "pixelSizePost": pitch,
        "effectivePixelSizePost": pitch * near / far,
        "numDetectorsPost": 560.0,
    }
    savemat(folder / "disc.mat", {"CtDataLimited": {"sinogram": np.full((20, 560), 0.5), "parameters": parameters}})
    return folder / "disc.mat"
