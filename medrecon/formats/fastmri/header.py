"""The ISMRMRD header inside fastMRI files: matrix, field of view, encoding limits, and the image grid they mean.

fastMRI: Zbontar et al., arXiv:1811.08839; its data loader, fastmri/data/mri_data.py of github.com/facebookresearch/
fastMRI, defines padding and crop. x is the readout, along the rows of k-space, y the phase encoding, along its columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as Xml

from medrecon.acquisition.kspace.plausible import check_grid
from medrecon.formats.common import hdf5, storage

NAMESPACE = "http://www.ismrm.org/ISMRMRD"
LENGTHS = (1.0, 5000.0)
"""Fields of view of real scanners [mm]."""
LONGEST = 2**24
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Header:
    """Matrices (x, y, z) and fields of view [mm] of the encoded and the reconstructed space, and the encoding limits:
    (maximum, centre) of phase-encoding step 1, where the header has them.
    """

    encoded: tuple[int, int, int]
    encoded_fov: Triple
    recon: tuple[int, int, int]
    recon_fov: Triple
    limits: tuple[int, int] | None = None

    def padding(self, columns: int) -> tuple[int, int]:
        """(start, stop) of the columns of k-space that were measured; the others are zero padding."""
        if self.limits is None or columns != self.encoded[1]:
            return 0, columns
        last, centre = self.limits
        start = self.encoded[1] // 2 - centre
        return max(0, start), min(columns, start + last + 1)

    def crop(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns kept of a reconstruction of this shape."""
        return min(shape[0], self.recon[0]), min(shape[1], self.recon[1])

    def pixel(self, shape: tuple[int, int]) -> tuple[float, float]:
        """Row and column step [mm] of a reconstruction of this shape: the encoded grid's, or that of k-space already
        reduced to the reconstructed one."""
        found = []
        for axis, n in enumerate(shape):
            reduced = n == self.recon[axis] != self.encoded[axis]
            found.append((self.recon_fov if reduced else self.encoded_fov)[axis] / n)
        return found[0], found[1]

    @property
    def pitch(self) -> float:
        """Slice thickness [mm]; the gap between slices is not in the header."""
        return self.encoded_fov[2] / self.encoded[2]


def read(h5: Any) -> Header:
    """The header in an open HDF5 file with a dataset `ismrmrd_header`.

    Raises:
        ValueError: as `parse`, or the dataset holds no text.
    """
    stored: Any = h5["ismrmrd_header"]
    if hdf5.is_dataset(stored):
        storage.check_text(stored, "ismrmrd_header")
    text: Any = stored[()] if hdf5.is_dataset(stored) else None
    text = text.item() if getattr(text, "size", 0) == 1 else text
    if not isinstance(text, bytes | str):
        raise ValueError("ismrmrd_header: expected one text, the XML header")
    return parse(text)


def parse(text: bytes | str) -> Header:
    """Read the XML of `ismrmrd_header`.

    Raises:
        ValueError: not XML, with a document type (which could blow up), or what is missing or impossible.
    """
    raw = text.encode() if isinstance(text, str) else text
    if len(raw) > LONGEST or b"<!DOCTYPE" in raw or b"<!ENTITY" in raw:
        raise ValueError("ismrmrd_header: has a document type or is too long; not an ISMRMRD header")
    try:
        root = Xml.fromstring(raw)
    except Xml.ParseError as error:
        raise ValueError(f"ismrmrd_header: not XML ({error})") from error
    encoding = root.find("{*}encoding")
    if encoding is None:
        raise ValueError("ismrmrd_header: encoding missing; not an ISMRMRD header")
    matrices, fields = [], []
    for space in ("encodedSpace", "reconSpace"):
        x, y, z = (int(_number(encoding, f"{space}/matrixSize/{axis}", (1, 1e5))) for axis in "xyz")
        matrices.append((x, y, z))
        u, v, w = (
            _number(encoding, f"{space}/fieldOfView_mm/{axis}", LENGTHS if axis != "z" else (0.01, LENGTHS[1]))
            for axis in "xyz"
        )
        fields.append((u, v, w))
    check_grid(matrices[0], fields[0], fields[1], "ismrmrd_header")
    limits, where = None, "encodingLimits/kspace_encoding_step_1"
    if encoding.find(_path(where)) is not None:
        last, centre = (int(_number(encoding, f"{where}/{name}", (0, 1e5))) for name in ("maximum", "center"))
        limits = (last, centre)
    return Header(matrices[0], fields[0], matrices[1], fields[1], limits)


def build(header: Header, coils: int) -> bytes:
    """The least XML header that ISMRMRD's schema asks for."""
    Xml.register_namespace("", NAMESPACE)
    root = Xml.Element(f"{{{NAMESPACE}}}ismrmrdHeader")
    _set(root, "experimentalConditions/H1resonanceFrequency_Hz", 0)
    _set(root, "acquisitionSystemInformation/receiverChannels", coils)
    encoding = Xml.SubElement(root, f"{{{NAMESPACE}}}encoding")
    for space, matrix, field in (
        ("encodedSpace", header.encoded, header.encoded_fov),
        ("reconSpace", header.recon, header.recon_fov),
    ):
        for name, values in (("matrixSize", matrix), ("fieldOfView_mm", field)):
            for axis, value in zip("xyz", values, strict=True):
                _set(encoding, f"{space}/{name}/{axis}", value)
    if header.limits is not None:
        for name, value in zip(("minimum", "maximum", "center"), (0, *header.limits), strict=True):
            _set(encoding, f"encodingLimits/kspace_encoding_step_1/{name}", value)
    _set(encoding, "trajectory", "cartesian")
    written: bytes = Xml.tostring(root, encoding="utf-8", xml_declaration=True)
    return written


def _path(keys: str) -> str:
    return "/".join("{*}" + key for key in keys.split("/"))


def _number(element: Xml.Element, keys: str, bounds: tuple[float, float]) -> float:
    found = element.findtext(_path(keys))
    if found is None:
        raise ValueError(f"ismrmrd_header: encoding/{keys} missing")
    try:
        value = float(found)
    except ValueError:
        value = float("nan")
    if not bounds[0] <= value <= bounds[1]:
        raise ValueError(f"ismrmrd_header: encoding/{keys} is {found!r}, expected {bounds[0]:g} .. {bounds[1]:g}")
    return value


def _set(element: Xml.Element, keys: str, value: object) -> None:
    for key in keys.split("/"):
        tag = f"{{{NAMESPACE}}}{key}"
        found = element.find(tag)
        element = Xml.SubElement(element, tag) if found is None else found
    element.text = str(value)
