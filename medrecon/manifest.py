"""Data manifests: one TOML file names a data set, its licence, and where its training and validation parts lie."""

from __future__ import annotations

import os
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from medrecon.volume import Modality, Units

Split = Literal["train", "val"]


class Source(BaseModel):
    """One part of a collected data set."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str
    """short name, the `source` column of a sheet index"""
    content: str
    """body part, contrast, plane"""
    used_for: str
    """train, val, or both"""
    origin: str
    """where it was taken from"""
    licence: str
    """licence of the data"""
    licence_checked: str
    """where the licence was read, or that it is from memory"""


class Manifest(BaseModel):
    """A data set: what it is, under which licence, and, where it can be read for training, how."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str
    """name of the data set"""
    modality: Modality
    """CT or MR"""
    units: Units
    """units of the values: HU, 1/mm or a.u."""
    content: str
    """how many subjects of what"""
    licence: str
    """licence of the data"""
    licence_checked: str
    """where the licence was read, or that it is from memory"""
    citation: str = ""
    """paper or page to cite"""
    doi: str = ""
    """DOI of the data"""
    url: str = ""
    """landing page"""
    access: str = ""
    """how to get the data"""
    format: str = ""
    """format of the files"""
    subject: str = "one sub-folder or file"
    """how subjects are told apart: the split is by subject, never by slice"""
    sources: tuple[Source, ...] = ()
    """the parts of a collected data set, each with its licence"""

    kind: Literal["sheets", "dicom", "nifti"] | None = None
    """sheets: PNG sheets with index.tsv; dicom, nifti: a sub-folder or file a subject; none: not for training"""
    root: Path = Path(".")
    """folder `train` and `val` start from, relative to the manifest"""
    root_variable: str = ""
    """environment variable that replaces `root` when it is set"""
    train: Path | None = None
    """folder of the training subjects, below the root"""
    val: Path | None = None
    """folder of the validation subjects, below the root"""
    slope: float = Field(1.0, gt=0)
    """sheets: value = stored * slope + intercept"""
    intercept: float = 0.0
    """sheets: value = stored * slope + intercept"""

    _path: Path = PrivateAttr(Path("manifest.toml"))

    @property
    def path(self) -> Path:
        """The TOML file."""
        return self._path

    def folder(self, split: Split, root: Path | None = None) -> Path:
        """Folder of a split. `root` goes before the environment variable, which goes before the manifest's root.

        Raises:
            ValueError: the manifest names no folder for the split.
            FileNotFoundError: the folder is not there.
        """
        part = self.train if split == "train" else self.val
        if part is None or self.kind is None:
            access = self.access or self.url or "see its page"
            raise ValueError(
                f"{self._path}: no {split!r} folder to read; get the data ({access}), "
                f"then set kind, train and val in the manifest"
            )
        base = root or Path(os.environ.get(self.root_variable) or self._path.parent / self.root)
        if not (base / part).is_dir():
            hint = f"set {self.root_variable} or root" if self.root_variable else "set root"
            raise FileNotFoundError(f"{base / part} not found: the {split} data of {self._path}; {hint}")
        return base / part


def load_manifest(path: str | Path) -> Manifest:
    """Read a manifest.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not TOML, an unknown key (with the nearest valid one), a missing or a wrong value.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a TOML file: {error}") from error
    try:
        manifest = Manifest.model_validate(table)
    except ValidationError as error:
        raise ValueError("\n".join(_explain(path, e["loc"], e["type"], e["msg"]) for e in error.errors())) from None
    manifest._path = path
    return manifest


def _explain(path: Path, loc: tuple[str | int, ...], kind: str, message: str) -> str:
    key = ".".join(map(str, loc))
    if kind != "extra_forbidden":
        return f"{path}: key {key!r}: {message}"
    fields = Source.model_fields if loc[0] == "sources" else Manifest.model_fields
    near = get_close_matches(str(loc[-1]), fields, n=1)
    return f"{path}: unknown key {key!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(fields)}")
