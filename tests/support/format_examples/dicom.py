from pathlib import Path

from dicom_maker import make_series


def make(folder: Path) -> Path:
    make_series(folder / "series", 3, PatientName="SECRET^NAME", PatientID="SECRET7", PatientBirthDate="19500101")
    return folder / "series"
