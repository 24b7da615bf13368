from pathlib import Path

import fastmri_maker


def make(folder: Path) -> Path:
    return fastmri_maker.write(folder / "brain.h5", fastmri_maker.kspace(2, 3, (20, 15)), (12, 11))
