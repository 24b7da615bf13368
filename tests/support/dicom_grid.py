"""Series over the freedoms of the DICOM standard, of an object with known values and place, by pydicom alone."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite, write_dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

ENHANCED = {"CT": "1.2.840.10008.5.1.4.1.1.2.1", "MR": "1.2.840.10008.5.1.4.1.1.4.1"}
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
SYNTAXES = (*NATIVE, RLELossless, JPEG2000Lossless, JPEGLSLossless)
SIZE, SPACING, THICKNESS = (32, 36), (0.8, 1.25), 2.5
BITS = ((8, 8, 7), (16, 12, 11), (16, 16, 15), (32, 32, 31), (16, 12, 15))
"""Allocated, stored, high bit; the last pixels lie at the high end, which is refused."""
PADDINGS = ("none", "high", "low", "range", "other sign", "unused bits")
SLOPES = ("plain", "half", "mixed", "negative", "none")
OTHER_SCALES = ("table", "both", "mapping")
"""A Modality LUT, with a slope too, and real world values beside HU or alone."""
WRAPPINGS = ("whole", "no preamble", "no syntax", "class in meta")
TURNED = np.array([[0.96, 0.28, 0.0], [-0.28 * 0.8, 0.96 * 0.8, 0.6]])
PLANES = {
    "axial": (np.array([[1.0, 0, 0], [0, 1, 0]]), None),
    "sagittal": (np.array([[0.0, 1, 0], [0, 0, -1]]), None),
    "oblique": (TURNED, None),
    "tilted": (np.array([[1.0, 0, 0], [0, np.cos(0.3), -np.sin(0.3)]]), np.array([0.0, 0.0, 3.0])),
}


@dataclass(frozen=True)
class Freedoms:
    """One way to write the object."""

    modality: str = "CT"
    enhanced: bool = False
    signed: bool = False
    bits: tuple[int, int, int] = (16, 16, 15)
    padding: str = "none"
    slopes: str = "plain"
    photometric: str = "MONOCHROME2"
    syntax: UID = ExplicitVRLittleEndian
    wrapping: str = "whole"
    plane: str = "axial"
    count: int = 2
    overlay: bool = False
    """Whether the bits that are not stored hold something else, as old overlays do."""

    @property
    def exists(self) -> bool:
        """Whether the standard and the encoders know it."""
        unused = self.padding != "unused bits" or (self.bits[:2] == (16, 12) and self.syntax in (*NATIVE, RLELossless))
        table = self.slopes not in ("table", "both") or self.bits[1] <= 12
        room = self.bits == (16, 12, 11) and self.padding != "unused bits" and self.syntax in (*NATIVE, RLELossless)
        return (
            unused
            and table
            and (room or not self.overlay)
            and (self.bits[0] < 32 or (self.syntax in NATIVE and self.padding == "none"))
        )

    @property
    def refused(self) -> bool:
        """Whether there is no right value: CT without a rescale, MR or CT with two, pixels at the high end of words."""
        scales = (self.modality == "CT" and self.slopes == "none") or self.slopes == "both"
        return scales or self.bits[2] != self.bits[1] - 1

    @property
    def rescaled(self) -> bool:
        """Whether there are slope and intercept."""
        return self.slopes not in ("none", "table") and (self.modality, self.slopes) != ("MR", "mapping")

    def scales(self) -> list[tuple[float, float]]:
        """Slope and intercept of every slice."""
        plain = (1.0, -1024.0 if self.modality == "CT" else 0.0)
        one = {"plain": plain, "none": (1.0, 0.0), "half": (0.5, -100.0), "negative": (-1.0, 2000.0)}
        one |= dict.fromkeys(OTHER_SCALES, plain)
        return [(0.5 + z, 10.0 * z) if self.slopes == "mixed" else one[self.slopes] for z in range(self.count)]

    def limits(self) -> tuple[int, int]:
        """Stored values there can be."""
        span = 1 << self.bits[1]
        return (-span // 2, span // 2 - 1) if self.signed else (0, span - 1)

    def padded(self) -> tuple[int, int | None]:
        """PixelPaddingValue and its limit as stored values."""
        low, high = self.limits()
        told = {"low": (low, None), "other sign": (high if self.signed else high - 1, None), "range": (high, high - 3)}
        if self.padding == "unused bits":
            return (-30000 if self.signed else 63536), None
        return told.get(self.padding, (high, None))

    def stored(self) -> NDArray[np.int64]:
        """Slices of an ellipse, no two neighbours alike, and outside of it padding."""
        low, high = self.limits()
        values = np.arange(self.count * SIZE[0] * SIZE[1]).reshape(self.count, *SIZE) * 7 % min(high - low - 20, 2500)
        values += max(low + 10, -1000)
        value, limit = self.padded()
        outside = self.outside()
        padding = np.full(values.shape, value)
        if limit is not None:
            padding -= np.arange(values.size).reshape(values.shape) % (value - limit + 1)
        return np.where(outside, padding, values) if self.padding != "none" else values

    def outside(self) -> NDArray[np.bool_]:
        """Where the object is not."""
        y, x = ((np.arange(n) - (n - 1) / 2) / n for n in SIZE)
        ellipse = (y[:, None] ** 2 + x[None] ** 2 > 0.2) if self.padding != "none" else np.zeros(SIZE, dtype=bool)
        return np.broadcast_to(ellipse, (self.count, *SIZE))

    def expected(self) -> NDArray[np.float64]:
        """Values in HU or a.u., in order along the normal."""
        scales = np.array(self.scales())[:, :, None, None]
        stored = self.stored()
        values = stored * scales[:, 0] + scales[:, 1]
        if self.slopes == "table":
            values = self.table().take(stored - self.limits()[0], mode="clip").astype(float)
        values = np.where(self.outside(), -1024.0 if self.modality == "CT" else 0.0, values)
        return np.maximum(values, -1024.0) if self.modality == "CT" else values

    def table(self) -> NDArray[np.int64]:
        """Values of all stored ones there can be."""
        low, high = self.limits()
        return np.arange(high - low + 1) * 3 % 4000

    def positions(self) -> NDArray[np.float64]:
        """LPS mm of the first pixel of every slice."""
        axes, step = PLANES[self.plane]
        vector = np.cross(*axes) * THICKNESS if step is None else step
        return np.array([-30.0, 20.0, 5.0]) + np.arange(self.count)[:, None] * vector

    def affine(self) -> NDArray[np.float64]:
        """Voxel (x, y, z) to RAS mm."""
        axes, _ = PLANES[self.plane]
        places = self.positions()
        columns = [axes[0] * SPACING[1], axes[1] * SPACING[0], places[1] - places[0], places[0]]
        return np.diag([-1.0, -1, 1, 1]) @ np.vstack([np.stack(columns, axis=1), [0, 0, 0, 1]])


def write(f: Freedoms, folder: Path) -> Path:
    """Write the series with its last slice first, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if f.enhanced:
        _save(_enhanced(f), f, folder / "a")
        return folder
    for z in range(f.count):
        dataset = _common(f, f.stored()[z : z + 1])
        dataset.SOPClassUID = CTImageStorage if f.modality == "CT" else MRImageStorage
        for group in (_place(f, z), _measures(), _scale(f, z)):
            dataset.update(group)
        if f.slopes == "mapping":
            dataset.RealWorldValueMappingSequence = [mapping("mm2/s", 2.0, 5.0)]
        _save(dataset, f, folder / f"{f.count - z}")
    return folder


SERIES, STUDY = generate_uid(entropy_srcs=["grid"]), generate_uid(entropy_srcs=["study"])


def _common(f: Freedoms, stored: NDArray[np.int64]) -> Dataset:
    """What every file needs, none of the optional."""
    dataset = Dataset()
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID, dataset.StudyInstanceUID = generate_uid(), SERIES, STUDY
    dataset.Modality, dataset.ImageType = f.modality, ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, f.photometric
    dataset.Rows, dataset.Columns = SIZE
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = f.bits
    dataset.PixelRepresentation = int(f.signed)
    if f.padding != "none":
        vr, whole = "SS" if f.signed else "US", 1 << f.bits[0]
        value, limit = f.padded()
        if f.padding == "other sign":
            vr = "US" if f.signed else "SS"
            value = value % whole if f.signed else value - whole * (value >= 1 << 15)
        dataset.add_new("PixelPaddingValue", vr, value)
        if limit is not None:
            dataset.add_new("PixelPaddingRangeLimit", vr, limit)
    order = ">" if f.syntax == ExplicitVRBigEndian else "<"
    words = stored << 4 if f.bits[2] != f.bits[1] - 1 else stored
    if f.overlay:
        unused = np.arange(stored.size).reshape(stored.shape) * 7919 << f.bits[1]
        words = (words & (1 << f.bits[1]) - 1 | unused) & (1 << f.bits[0]) - 1
        words = words - (words >> f.bits[0] - 1 << f.bits[0]) if f.signed else words
    if f.slopes in ("table", "both"):
        dataset.ModalityLUTSequence = [_lookup(f)]
    data = words.astype(f"{order}{'i' if f.signed else 'u'}{f.bits[0] // 8}").tobytes()
    dataset.add_new("PixelData", "OB" if f.bits[0] == 8 else "OW", data + b"\0" * (len(data) % 2))
    return dataset


def _place(f: Freedoms, z: int) -> Dataset:
    group = Dataset()
    group.ImagePositionPatient = [f"{v:.9g}" for v in f.positions()[z]]
    group.ImageOrientationPatient = [f"{v:.9g}" for v in PLANES[f.plane][0].flatten()]
    return group


def _measures() -> Dataset:
    group = Dataset()
    group.PixelSpacing = list(SPACING)
    return group


def _scale(f: Freedoms, z: int) -> Dataset:
    group = Dataset()
    if f.rescaled:
        group.RescaleSlope, group.RescaleIntercept = f.scales()[z]
    return group


def _lookup(f: Freedoms) -> Dataset:
    item, table, low = Dataset(), f.table(), f.limits()[0]
    first = low % 0x10000 if f.signed and f.photometric == "MONOCHROME1" else low  # as scanners write it, too
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(table), first, 16])
    item.ModalityLUTType = "HU" if f.modality == "CT" else "US"
    order = ">" if f.syntax == ExplicitVRBigEndian else "<"
    item.add_new("LUTData", "OW", table.astype(f"{order}u2").tobytes())
    return item


def mapping(unit: str, slope: float, intercept: float) -> Dataset:
    """An item of RealWorldValueMappingSequence."""
    item, code = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = unit, "UCUM", unit
    item.MeasurementUnitsCodeSequence, item.LUTLabel, item.LUTExplanation = [code], "x", "x"
    item.RealWorldValueFirstValueMapped, item.RealWorldValueLastValueMapped = 0, 4095
    item.RealWorldValueSlope, item.RealWorldValueIntercept = slope, intercept
    return item


def _enhanced(f: Freedoms) -> Dataset:
    """All slices in one file, the last one first."""
    dataset = _common(f, f.stored()[::-1])
    dataset.SOPClassUID, dataset.NumberOfFrames = ENHANCED[f.modality], f.count
    shared = Dataset()
    shared.PixelMeasuresSequence = [_measures()]
    frames = []
    for z in reversed(range(f.count)):
        frame, place = Dataset(), _place(f, z)
        orientation = Dataset()
        orientation.ImageOrientationPatient = place.ImageOrientationPatient
        del place.ImageOrientationPatient
        frame.PlanePositionSequence, frame.PlaneOrientationSequence = [place], [orientation]
        if f.slopes == "mapping":
            frame.RealWorldValueMappingSequence = [mapping("mm2/s", 2.0, 5.0)]
        if f.rescaled:
            frame.PixelValueTransformationSequence = [_scale(f, z)]
        frames.append(frame)
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], frames
    return dataset


def _save(dataset: Dataset, f: Freedoms, path: Path) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    dataset.file_meta = meta
    if f.syntax not in NATIVE:
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(f.syntax, generate_instance_uid=False)
    else:
        meta.TransferSyntaxUID = f.syntax
    if f.wrapping == "no preamble" and f.syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        with path.open("wb") as stream:
            buffer = pydicom.filebase.DicomFileLike(stream)
            buffer.is_little_endian, buffer.is_implicit_VR = True, f.syntax == ImplicitVRLittleEndian
            write_dataset(buffer, dataset)
        return
    if f.wrapping == "class in meta":
        del dataset.SOPClassUID
    implicit = f.syntax == ImplicitVRLittleEndian
    dcmwrite(
        path, dataset, enforce_file_format=True, implicit_vr=implicit, little_endian=f.syntax != ExplicitVRBigEndian
    )
    if f.wrapping == "no syntax" and f.syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        data = path.read_bytes()
        at = data.index(b"\x02\0\x10\0UI")
        path.write_bytes(data[:at] + data[at + 8 + int.from_bytes(data[at + 6 : at + 8], "little") :])
