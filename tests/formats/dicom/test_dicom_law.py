"""The law of reading DICOM: whatever of the standard's freedoms a file uses, it is read right, or refused by name.

Written by pydicom and highdicom, of an object with known values, place and orientation. `COUNTS` says how many.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import dicom_grid as grid
import numpy as np
import pydicom
import pytest
from dicom_grid import STUDY, Freedoms
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import generate_uid

from medrecon.formats.dicom.format import Dicom

read = Dicom().read_image
FORMS = list(itertools.product(("CT", "MR"), (False, True), (False, True)))
COUNTS = {"values": 784, "encodings": 224, "highdicom": 16}


def values_grid(modality: str, enhanced: bool, signed: bool) -> Iterator[Freedoms]:
    """Bits, padding and slopes, each with each; MONOCHROME1 in every second. Rare bits and scales with some of them.

    Two thirds of those with unused bits have something else in them.
    """
    usual = itertools.product(grid.BITS[:3], grid.PADDINGS, grid.SLOPES)
    rare = itertools.product(grid.BITS[3:], ("none", "range"), ("plain", "mixed"))
    scales = itertools.product(grid.BITS[:2], ("none", "high"), grid.OTHER_SCALES)
    for i, (bits, padding, slopes) in enumerate(itertools.chain(usual, rare, scales)):
        overlay = bits == (16, 12, 11) and padding != "unused bits" and i % 3 > 0
        shown = f"MONOCHROME{1 + i % 2}"
        made = Freedoms(modality, enhanced, signed, bits, padding, slopes, shown, overlay=overlay)
        if made.exists:
            yield made


def encodings_grid(modality: str, enhanced: bool, signed: bool) -> Iterator[Freedoms]:
    """Transfer syntaxes and what is missing of the wrapping, each with each; the rest in turn."""
    for i, (syntax, wrapping) in enumerate(itertools.product(grid.SYNTAXES, grid.WRAPPINGS)):
        bits, padding, slopes = grid.BITS[1 + i % 2], grid.PADDINGS[i % 5], grid.SLOPES[(i // 4) % 4]
        shown, plane = f"MONOCHROME{1 + i % 2}", list(grid.PLANES)[(i + i // 4) % 4]
        overlay = bits == (16, 12, 11) and syntax in (*grid.NATIVE, grid.RLELossless)
        yield Freedoms(
            modality, enhanced, signed, bits, padding, slopes, shown, syntax, wrapping, plane, overlay=overlay
        )


def keeps_the_law(f: Freedoms, folder: Path) -> None:
    """Right values, place and order, and the padding counted; or a refusal that names a file."""
    grid.write(f, folder)
    if f.refused:
        with pytest.raises(ValueError, match=str(folder)):
            read(folder)
        return
    volume = read(folder)
    assert (volume.modality, volume.units) == (f.modality, "HU" if f.modality == "CT" else "a.u."), f
    np.testing.assert_allclose(volume.affine.numpy(), f.affine(), atol=1e-6, err_msg=str(f))
    np.testing.assert_array_equal(volume.data.numpy(), f.expected().astype(np.float32), err_msg=str(f))
    assert volume.source.get("padded_voxels", 0) == f.outside().sum(), f


@pytest.mark.parametrize(("modality", "enhanced", "signed"), FORMS)
@pytest.mark.parametrize("of", [values_grid, encodings_grid])
def test_every_combination_is_right_or_refused(
    of: object, modality: str, enhanced: bool, signed: bool, tmp_path: Path
) -> None:
    for i, freedoms in enumerate(of(modality, enhanced, signed)):  # type: ignore[operator]
        keeps_the_law(freedoms, tmp_path / str(i))


def test_the_count_is_as_told() -> None:
    assert sum(1 for form in FORMS for _ in values_grid(*form)) == COUNTS["values"]
    assert sum(1 for form in FORMS for _ in encodings_grid(*form)) == COUNTS["encodings"]


@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.builds(
        Freedoms,
        st.sampled_from(["CT", "MR"]),
        st.booleans(),
        st.booleans(),
        st.sampled_from(grid.BITS),
        st.sampled_from(grid.PADDINGS),
        st.sampled_from((*grid.SLOPES, *grid.OTHER_SCALES)),
        st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
        st.sampled_from(grid.SYNTAXES),
        st.sampled_from(grid.WRAPPINGS),
        st.sampled_from(list(grid.PLANES)),
        st.integers(2, 4),
        st.booleans(),
    ).filter(lambda f: f.exists)
)
def test_any_combination_is_right_or_refused(tmp_path_factory: pytest.TempPathFactory, freedoms: Freedoms) -> None:
    keeps_the_law(freedoms, tmp_path_factory.mktemp("drawn"))


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_what_highdicom_converts_is_right(modality: str, tmp_path: Path) -> None:
    """Classic series made multi-frame by highdicom, over slopes and planes, in both orders."""
    import highdicom as hd

    legacy = hd.legacy
    convert = legacy.LegacyConvertedEnhancedCTImage if modality == "CT" else legacy.LegacyConvertedEnhancedMRImage
    count = 0
    for slopes, plane in itertools.product(("half", "mixed"), grid.PLANES):
        f = Freedoms(modality, slopes=slopes, plane=plane, count=3, padding="high")
        files = sorted(grid.write(f, tmp_path / f"{slopes}{plane}").iterdir())
        sources = [pydicom.dcmread(name) for name in (files if count % 2 else files[::-1])]
        for number, source in enumerate(sources, start=1):
            for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
                setattr(source, name, "")
            for name in ("StudyID", "AccessionNumber", "ReferringPhysicianName", "Manufacturer", "PatientPosition"):
                setattr(source, name, "")
            source.PositionReferenceIndicator, source.FrameOfReferenceUID = "", STUDY
            source.ContentDate, source.ContentTime, source.BurnedInAnnotation = "20200101", "120000", "NO"
            source.AcquisitionNumber, source.InstanceNumber, source.KVP, source.SeriesNumber = 1, number, "120", 1
            source.SliceThickness = 2.5
        made = convert(sources, generate_uid(), 7, generate_uid(), 1)
        made.save_as(tmp_path / f"{count}.dcm")
        volume = read(tmp_path / f"{count}.dcm")
        np.testing.assert_allclose(volume.affine.numpy(), f.affine(), atol=1e-6, err_msg=str(f))
        inside = ~f.outside() if "PixelPaddingValue" in made else np.ones(f.outside().shape, dtype=bool)
        np.testing.assert_array_equal(volume.data.numpy()[inside], f.expected().astype(np.float32)[inside])
        count += 1
    assert count == COUNTS["highdicom"] // 2
