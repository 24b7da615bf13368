"""Files in and out, one room a format: images, raw data, k-space for other programs.

A format is one class (`medrecon.formats.base`), found by itself: reading goes by content, writing by name.
"""

from medrecon.acquisition.options import OptionError, RawOptions
from medrecon.formats.find import info
from medrecon.formats.images import check_output, outputs, read, report_path, stem, write
from medrecon.formats.kspace_export import check_export, export, exports
from medrecon.formats.raw_data import read_raw, recognise

__all__ = [
    "OptionError",
    "RawOptions",
    "check_export",
    "check_output",
    "export",
    "exports",
    "info",
    "outputs",
    "read",
    "read_raw",
    "recognise",
    "report_path",
    "stem",
    "write",
]
