from pathlib import Path

import mri_raw_maker as maker
import numpy as np

YAPS = """sKSpace.lBaseResolution = 48
sKSpace.lPhaseEncodingLines = 40
sKSpace.lPartitions = 1
sKSpace.ucDimension = 2
sKSpace.ucTrajectory = 1
sSliceArray.asSlice[0].dThickness = 5.0
sSliceArray.asSlice[0].dPhaseFOV = 120.0
sSliceArray.asSlice[0].dReadoutFOV = 120.0
sRXSPEC.alDwellTime[0] = 5000"""


def make(folder: Path) -> Path:
    protocol, plane = maker.Protocol(), maker.Plane(np.array([12.0, -34.0, 56.0]))
    blocks = [
        maker.block(
            maker.COILS[:, None] * plane.signal(protocol.k(0), k, sign=+1),
            step,
            centre=48,
            lines=40,
            place=plane.centre,
            quaternion=np.array([0.8, 0.2, -0.4, 0.4]),
            flags=["ONLINE"],
        )
        for step, k in enumerate(protocol.k(1))
    ]
    return maker.twix(folder / "scan.dat", blocks, YAPS, '<ParamString."tPatientName"> { "SECRET" }')
