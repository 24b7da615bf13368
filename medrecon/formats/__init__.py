"""Files in and out, one room a format: images, raw data, k-space for other programs.

A format is one class (`medrecon.formats.base`), found by itself: reading goes by content, writing by name.
"""

from medrecon.acquisition.options import OptionError, RawOptions
from medrecon.formats.find import info
from medrecon.formats.images import check_finite, outputs, read, stem, write
from medrecon.formats.kspace_export import export, exports
from medrecon.formats.raw_data import read_raw, recognise

__all__ = [
    "OptionError",
    "RawOptions",
    "check_finite",
    "export",
    "exports",
    "info",
    "outputs",
    "read",
    "read_raw",
    "recognise",
    "stem",
    "write",
]
