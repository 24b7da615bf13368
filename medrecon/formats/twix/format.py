"""Siemens twix (.dat): raw MRI as the scanner stores it, VB, VD and VE; Cartesian and EPI, 2D and 3D.

The format is not published; files are parsed by the library twixtools. Noise dwell times and bandwidth are those the
ISMRMRD converter for Siemens data uses (github.com/ismrmrd/siemens_to_ismrmrd).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medrecon.acquisition.kspace.choice import contents
from medrecon.acquisition.kspace.kspace_sorting import USES, scan_of
from medrecon.acquisition.kspace.readouts import Encoding, Readouts
from medrecon.acquisition.options import OptionError, RawOptions
from medrecon.core.scan import Scan
from medrecon.formats.base import RawReader
from medrecon.formats.contents import of_raw
from medrecon.formats.dicom.files import is_dicom
from medrecon.formats.twix.blocks import holds_image, readouts_of
from medrecon.formats.twix.header import encoding_of, protocol
from medrecon.formats.twix.parse import measurements_of, version_of

ADJUSTMENT = "adj"
"""What the protocol names of the scanner's own adjustments begin with, such as AdjCoilSens."""


class Twix(RawReader):
    """Raw data of Siemens scanners."""

    name = "twix"
    summary = "Siemens twix .dat (VB, VD, VE), raw MRI: Cartesian and EPI"
    uses = ("measurement", *USES)

    def recognises(self, path: Path) -> bool:
        """Look for a multi-raid (VD, VE) or VB header; a .dat without one is no twix that is known, and told so."""
        if not path.is_file() or not path.stat().st_size:
            return False
        return version_of(path) is not None or (path.suffix.lower() == ".dat" and not is_dicom(path))

    def info(self, path: Path) -> dict[str, Any]:
        """Return what the headers say of each measurement, and how many readouts it has."""
        version, found = measurements_of(path)
        with _named(path):
            if len(found) == 1:
                lines, encoding = _measurement(path, found, 0, version)
                return of_raw(path, self, {"modality": "mri", **contents(lines), **encoding.facts})
            listed = [_described(path, found, number, version) for number in range(len(found))]
            return of_raw(path, self, {"modality": "mri", "measurements": listed})

    def read_scan(self, path: Path, options: RawOptions) -> Scan:
        """Read the measurement that holds an image, with noise readouts of its own or else of another measurement.

        Raises:
            ValueError: names the file: an unknown version, truncated, not Cartesian, several measurements and no
                choice, or what is wrong with which readout.
            ImportError: `twixtools` is not installed.
        """
        version, found = measurements_of(path)
        with _named(path):
            number = _chosen(found, options.measurement)
            lines, encoding = _measurement(path, found, number, version)
            facts = {"source": path.name, "format": "twix", "measurements": len(found), "measurement": number}
            return scan_of(lines, encoding, options, facts | {"readouts": len(lines)})


def _chosen(found: list[dict[str, Any]], wanted: int | None) -> int:
    """The measurement to read: the only one of an image that is no adjustment of the scanner, unless one is wanted."""
    if wanted is not None:
        if wanted >= len(found):
            raise OptionError(f"measurement {wanted}: the file has 0 to {len(found) - 1}")
        return wanted
    images = [number for number, one in enumerate(found) if holds_image(one["mdb"])]
    own = [number for number in images if not protocol(found[number]["hdr"]).lower().startswith(ADJUSTMENT)]
    if len(own) > 1:
        listed = ", ".join(f"{number} ({protocol(found[number]['hdr']) or 'no name'})" for number in own)
        raise ValueError(f"{len(own)} measurements hold an image: {listed}; choose one with --measurement N")
    return (own or images or [len(found) - 1])[-1]


def _described(path: Path, found: list[dict[str, Any]], number: int, version: str) -> dict[str, Any]:
    what: dict[str, Any] = {"measurement": number, "protocol": protocol(found[number]["hdr"])}
    try:
        what |= contents(readouts_of(found, number, version, path.stat().st_size))
        if holds_image(found[number]["mdb"]):
            what |= encoding_of(found[number]["hdr"], found[number]["mdb"]).facts
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
        what["error"] = str(error)
    return what


def _measurement(path: Path, found: list[dict[str, Any]], number: int, version: str) -> tuple[Readouts, Encoding]:
    """The readouts of a measurement, and how they encode the image."""
    encoding = encoding_of(found[number]["hdr"], found[number]["mdb"])
    return readouts_of(found, number, version, path.stat().st_size), encoding


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the name of the file in front of what goes wrong."""
    try:
        yield
    except OptionError as error:
        raise OptionError(f"{path}: {error}") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
        text = f"the header lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: {text}") from error
