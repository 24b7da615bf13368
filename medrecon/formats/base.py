"""The contract of a file format: one class a format, which says what it can do by the classes it derives from.

A format is found by itself (`medrecon.formats.find`), and with it `read`, `write`, `read_raw`, `export`, `info`, their
error texts and the contract tests know it. Methods name the file in what they raise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, final

from medrecon.acquisition.options import RawOptions
from medrecon.core import place
from medrecon.core.scan import Scan
from medrecon.core.stack import Stack
from medrecon.core.volume import Modality, Volume

Slices = Callable[[int], tuple[int, int]]
"""From the number of slices there are, the first to read and the one after the last."""


class Format(ABC):
    """Tells its files from all others, and says what is in one.

    Attributes:
        name: short and unique; `--format` takes it.
        summary: what it is, in one line.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    @abstractmethod
    def recognises(self, path: Path) -> bool:
        """Tell whether an existing file or folder is of this format, cheaply.

        By content where the format has a mark, so that no two formats recognise one file. A damaged file is recognised
        as long as its mark is there: reading it then says what is wrong.
        """

    @abstractmethod
    def info(self, path: Path) -> dict[str, Any]:
        """Return what is in a file as JSON values, without reading all of it where that is cheap; no patient data.

        Raises:
            ValueError: what is wrong with which file.
        """


class ImageReader(Format):
    """Reads images.

    Attributes:
        images: what holds an image, for error texts, such as "NIfTI .nii/.nii.gz".
    """

    images: ClassVar[str]

    @abstractmethod
    def read_image(self, path: Path, series: str | None = None, modality: Modality | None = None) -> Volume:
        """Read a volume: of several the one that `series` names, as `modality` where the file does not say it.

        Raises:
            ValueError: what is wrong with which file.
        """

    def read_slices(
        self, path: Path, slices: Slices, series: str | None = None, modality: Modality | None = None
    ) -> Volume:
        """Read some slices of a volume; a format of one file a slice looks at no other's pixels."""
        volume = self.read_image(path, series, modality)
        return volume.slices(*slices(len(volume.data)))


class BareImageReader(ImageReader):
    """Reads images whose files do not say what their values mean: the user says modality and units."""

    def info(self, path: Path) -> dict[str, Any]:
        """Return what is in a file, its modality taken as the reader takes it."""
        return self.info_as(path, None)

    @abstractmethod
    def info_as(self, path: Path, modality: Modality | None) -> dict[str, Any]:
        """Return what is in a file that holds an image of this modality; see `info`."""


class ImageWriter(Format):
    """Writes images.

    Attributes:
        suffixes: endings of its files, the longest first; none for a format that writes a folder.
    """

    suffixes: ClassVar[tuple[str, ...]]

    @final
    def writes(self, name: str) -> bool:
        """Tell whether an output of this name, which a slash may end, is of this format."""
        if self.suffixes:
            return name.lower().endswith(self.suffixes)
        return name.endswith(("/", "\\")) or Path(name).is_dir() or not Path(name).suffix

    def check(
        self, path: Path, source: Mapping[str, Any], *, overwrite: bool = False, template: Path | None = None
    ) -> None:
        """Find out before computing what `write_image` would refuse later.

        Args:
            source: of the volume to be written.

        Raises:
            FileExistsError, ValueError: as `write_image`.
        """
        place.refuse((path,), overwrite)

    @abstractmethod
    def write_image(
        self,
        stack: Stack,
        path: Path,
        *,
        overwrite: bool = False,
        template: Path | None = None,
        description: str = "",
        beside: Mapping[Path, str] | None = None,
    ) -> Path:
        """Write real, finite values, whole or not at all; parameters as of `medrecon.formats.write`.

        The slices are read one by one, and as often as needed; a format that cannot do so takes `stack.whole()`.

        Args:
            beside: texts of files that appear with the image, in one commit.

        Raises:
            FileExistsError: the output, or something beside it that belongs to it, exists and `overwrite` is off.
            ValueError: what the format cannot hold.
        """


class RawReader(Format):
    """Reads what a scanner or a public collection delivers before reconstruction.

    Attributes:
        uses: the fields of `RawOptions` that it has a use for.
    """

    uses: ClassVar[tuple[str, ...]]

    @abstractmethod
    def read_scan(self, path: Path, options: RawOptions) -> Scan:
        """Read the measurement with its geometry and, where the file tells it, its noise.

        Raises:
            ValueError: what is wrong with which file and key.
        """


class ScanWriter(Format):
    """Writes the k-space of a scan for other programs.

    Attributes:
        suffix: ending of its files.
        keeps_place: whether they hold position and orientation of the slices.
    """

    suffix: ClassVar[str]
    keeps_place: ClassVar[bool] = True

    @abstractmethod
    def write_scan(self, scan: Scan, path: Path, *, overwrite: bool = False) -> Path:
        """Write the finite k-space of an MRI scan, whole or not at all.

        Raises:
            FileExistsError: the output, or something beside it that belongs to it, exists and `overwrite` is off.
            ValueError: what the format cannot hold.
        """
