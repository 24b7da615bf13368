"""The header of a derived DICOM image: the source's, without what is no longer true, with what was done."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import deepcopy
from datetime import datetime
from typing import TYPE_CHECKING

from medrecon import RESEARCH_USE_ONLY, __version__
from medrecon.core.volume import Modality
from medrecon.formats.dicom import files

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

log = logging.getLogger(__name__)

STUDY = (
    "SpecificCharacterSet",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientPosition",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "SeriesInstanceUID",
    "SeriesDescription",
    "SeriesNumber",
    "BodyPartExamined",
    "Laterality",
    "Manufacturer",
    "ManufacturerModelName",
    "AcquisitionDate",
    "AcquisitionTime",
)
# Type 2 attributes: empty where nobody knows them.
EMPTY = (
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientPosition",
    "PositionReferenceIndicator",
    "AcquisitionNumber",
)
EMPTY_OF = {"CT": ("KVP",), "MR": ("ScanOptions", "MRAcquisitionType", "EchoTime", "EchoTrainLength", "RepetitionTime")}
# True of the source image but no longer of ours. All of group 0028 (stored pixels) is written anew.
STALE = (
    "IconImageSequence",
    "RealWorldValueMappingSequence",
    "PresentationLUTShape",
    "SliceLocation",
    "ConvolutionKernel",
    "SeriesDescriptionCodeSequence",
    "DerivationCodeSequence",
    "DigitalSignaturesSequence",
    "MACParametersSequence",
    "ReferencedPerformedProcedureStepSequence",
    "OriginalAttributesSequence",
)
KEPT_OF_28 = (
    "BurnedInAnnotation",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)


def base(modality: Modality, source: Dataset | None, key: str, without: Sequence[str] = ()) -> Dataset:
    """The source's header without what is no longer true; the least a valid image needs is filled in.

    Args:
        without: what else is left out.
    """
    from pydicom import Dataset
    from pydicom.uid import CTImageStorage, MRImageStorage

    if source is None:
        dataset = Dataset()
        dataset.Manufacturer, dataset.ManufacturerModelName = "medrecon", "medrecon"
        dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = _uid(key, "study"), _uid(key, "frame of reference")
    elif files.is_multiframe(source):
        dataset = Dataset()
        for name in (n for n in STUDY if n in source):
            dataset.add(deepcopy(source[name]))
    else:
        dataset = _cleaned(source)
    for name in (n for n in without if n in dataset):
        delattr(dataset, name)
    if "FrameOfReferenceUID" not in dataset:
        dataset.FrameOfReferenceUID = _uid(str(dataset.StudyInstanceUID), "frame of reference")
    dataset.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    dataset.Modality = modality
    empty = (*EMPTY, *EMPTY_OF[modality], "Manufacturer")
    if not dataset.get("BodyPartExamined"):
        empty += ("Laterality",)  # needed where the body part may be a paired one, forbidden where it is not
    for name in (n for n in empty if n not in dataset):
        setattr(dataset, name, None)
    if modality == "MR":
        for name, value in (("ScanningSequence", "RM"), ("SequenceVariant", "NONE")):
            if not dataset.get(name):
                setattr(dataset, name, value)
    return dataset


def _cleaned(source: Dataset) -> Dataset:
    from pydicom import Dataset

    dataset = Dataset()  # a fresh one: it forgets the source's encoding, which may be big-endian
    for element in source:
        group = element.tag.group
        stale = group == 0x28 or group in (0x7FE0, 0xFFFA, 0xFFFC) or 0x5000 <= group < 0x7000
        if (not stale or element.keyword in KEPT_OF_28) and _is_valid(element):
            dataset.add(deepcopy(element))
    dataset.remove_private_tags()
    for name in STALE:
        if name in dataset:
            delattr(dataset, name)
    if dataset.get("PatientIdentityRemoved") == "YES" and not dataset.get("DeidentificationMethodCodeSequence"):
        dataset.DeidentificationMethod = dataset.get("DeidentificationMethod") or "not stated by the source"
    return dataset


def _is_valid(element: DataElement) -> bool:
    """Has the element values its VR allows? Real headers hold ages without a unit and 17-digit decimals."""
    from pydicom import config
    from pydicom.valuerep import validate_value

    if element.VR not in ("AS", "CS", "DA", "DS", "DT", "IS", "LO", "SH", "TM", "UI") or element.is_empty:
        return True
    try:
        for value in element.value if element.VM > 1 else [element.value]:
            validate_value(element.VR, str(value), config.RAISE)
    except ValueError:
        log.info("left out %s: the source's value is not valid DICOM", element.keyword)
        return False
    return True


def identify(dataset: Dataset, source: Dataset | None, key: str, index: int, description: str, now: datetime) -> None:
    """New identity, what was done, by what, and from which image."""
    name = description or "reconstruction"
    original = str(dataset.get("SeriesDescription") or "")
    dataset.SeriesDescription = f"{RESEARCH_USE_ONLY} {name} {original}".strip()[:64].rstrip()
    dataset.ImageComments = RESEARCH_USE_ONLY
    scale = "" if dataset.Modality == "CT" else ". Arbitrary units: stored value x RescaleSlope + RescaleIntercept"
    said = f"{RESEARCH_USE_ONLY}. medrecon {__version__}: {name}"
    dataset.DerivationDescription = said[: 1024 - len(scale)] + scale
    dataset.ImageType = ["DERIVED", "PRIMARY", "AXIAL" if dataset.Modality == "CT" else "OTHER"]
    dataset.SOPInstanceUID = _uid(key, f"instance {index}")
    dataset.SeriesInstanceUID = _uid(key, "series")
    dataset.SeriesNumber = 9000 + int(dataset.get("SeriesNumber") or 0) % 1000
    dataset.InstanceNumber = index + 1
    for kind in ("Series", "Content", "InstanceCreation"):
        setattr(dataset, kind + "Date", now.strftime("%Y%m%d"))
        setattr(dataset, kind + "Time", now.strftime("%H%M%S"))
    _attribute(dataset, source, name, now)


def _attribute(dataset: Dataset, source: Dataset | None, name: str, now: datetime) -> None:
    import highdicom as hd
    from pydicom import Dataset as Item
    from pydicom.sr.codedict import codes

    ours = hd.ContributingEquipment(
        manufacturer="medrecon",
        purpose_of_reference=codes.DCM.ModifyingEquipment,
        manufacturer_model_name="medrecon",
        software_versions=__version__,
        contribution_datetime=now,
        contribution_description=name[:1024],
    )
    dataset.ContributingEquipmentSequence = [*(dataset.get("ContributingEquipmentSequence") or []), ours]
    if source is None:
        return
    purpose = hd.sr.CodedConcept("121322", "DCM", "Source image for image processing operation")
    item = Item()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = [purpose]
    dataset.SourceImageSequence = [item]


def _uid(*entropy: str) -> str:
    from pydicom.uid import generate_uid

    return str(generate_uid(entropy_srcs=list(entropy)))
