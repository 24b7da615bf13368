"""Data manifests: one TOML file names a data set, its licence, and where its training and validation parts lie."""

from __future__ import annotations

import os
import re
import tomllib
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from medrecon.core.volume import Modality, Units

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Kind = Literal["sheets", "dicom", "nifti", "fastmri", "store"]


class Source(BaseModel):
    """One part of a collected data set."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

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


class File(BaseModel):
    """One file of the data set, as it is downloaded."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    path: str
    """where it goes, below the folder of the data set, with /"""
    url: str = ""
    """https address; empty when it cannot be fetched without a login"""
    sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    """of the whole file, in hexadecimal; empty: not known"""
    size: int | None = Field(None, gt=0)
    """bytes"""

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        parts = path.split("/")
        if PurePosixPath(path).is_absolute() or "\\" in path or ":" in path or {"", ".", ".."} & set(parts):
            raise ValueError(f"{path!r} is not a plain path below the folder of the data set")
        return path

    @field_validator("url")
    @classmethod
    def _secure(cls, url: str) -> str:
        if url and not url.startswith("https://"):
            raise ValueError(f"{url!r} does not start with https://")
        return url


class Rule(BaseModel):
    """Who is in which split: lists of subjects, or fractions of them drawn by a seed."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    train: tuple[str, ...] = ()
    """subjects; left out with fractions: all others"""
    val: tuple[str, ...] | float = 0.0
    """subjects, or the fraction of them"""
    test: tuple[str, ...] | float = 0.0
    """subjects, or the fraction of them"""
    seed: int = 0
    """of the order in which subjects are drawn"""

    @model_validator(mode="after")
    def _one_way(self) -> Rule:
        fractions = [v for v in (self.val, self.test) if isinstance(v, float)]
        if self.train and any(fractions):
            raise ValueError("give lists of subjects or fractions, not both")
        if any(v < 0 for v in fractions) or sum(fractions) >= 1:
            raise ValueError("val and test are fractions of the subjects, together below 1")
        named = [name for v in (self.train, self.val, self.test) if not isinstance(v, float) for name in v]
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise ValueError(f"subjects in two splits: {twice[:5]}")
        return self


class Manifest(BaseModel):
    """A data set: what it is, under which licence, and, where it can be read for training, how."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

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
    subject: str = "folder"
    """whose a file is: "folder", the first below the split's (a file there is a subject of its own); "file";
    "PatientID", of the header, as a hash; "index.tsv" of sheets; else a regular expression for the path below the
    split's folder, whose first group, or whole match, is the subject"""
    files: tuple[File, ...] = ()
    """what is downloaded, where it is known file by file"""
    sources: tuple[Source, ...] = ()
    """the parts of a collected data set, each with its licence"""

    kind: Kind | None = None
    """sheets: PNG sheets with index.tsv; dicom, nifti, fastmri (the target images of its .h5): by subject; store: what
    `medrecon data index` built; none: not for training"""
    root: Path = Path(".")
    """folder `train` and `val` start from, relative to the manifest"""
    root_variable: str = ""
    """environment variable that replaces `root` when it is set"""
    train: Path | None = None
    """folder of the training subjects, below the root"""
    val: Path | None = None
    """folder of the validation subjects, below the root"""
    test: Path | None = None
    """folder of the test subjects, below the root"""
    split: Rule | None = None
    """instead of these folders: who, of all subjects below the root, is in which split"""
    slope: float = Field(1.0, gt=0)
    """sheets: value = stored * slope + intercept"""
    intercept: float = 0.0
    """sheets: value = stored * slope + intercept"""

    _path: Path = PrivateAttr(Path("manifest.toml"))

    @field_validator("subject")
    @classmethod
    def _compiles(cls, subject: str) -> str:
        try:
            re.compile(subject)
        except re.error as error:
            raise ValueError(f"{subject!r} is not a regular expression: {error}") from error
        return subject

    @model_validator(mode="after")
    def _folders_or_rule(self) -> Manifest:
        if self.split is not None and (self.train or self.val or self.test):
            raise ValueError("give the folders train, val and test, or [split], not both")
        return self

    @property
    def path(self) -> Path:
        """The TOML file."""
        return self._path

    def base(self, root: Path | None = None) -> Path:
        """`root` if given, else the environment variable, else the manifest's root."""
        return root or Path(os.environ.get(self.root_variable) or self._path.parent / self.root)

    def folder(self, split: Split, root: Path | None = None) -> Path:
        """Folder of a split. `root` goes before the environment variable, which goes before the manifest's root.

        Raises:
            ValueError: the manifest names no folder for the split.
            FileNotFoundError: the folder is not there.
        """
        part: Path | None = getattr(self, split)
        if part is None and self.split is not None:
            raise ValueError(f"{self._path}: splits by [split]; run `medrecon data index` first and train on its store")
        if part is None or self.kind is None:
            access = self.access or self.url or "see its page"
            raise ValueError(
                f"{self._path}: no {split!r} folder to read; get the data ({access}), "
                f"then set kind, train and val in the manifest"
            )
        base = self.base(root)
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
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such manifest; `medrecon data split` writes one for a folder") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: is not text; a manifest (.toml) is due, which `medrecon data split` writes"
        ) from error
    except tomllib.TOMLDecodeError as error:
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
        return f"{path}: key {key!r}: {message}" if key else f"{path}: {message}"
    models: dict[int | str, type[BaseModel]] = {"sources": Source, "files": File, "split": Rule}
    fields = models.get(loc[0], Manifest).model_fields
    near = get_close_matches(str(loc[-1]), fields, n=1)
    return f"{path}: unknown key {key!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(fields)}")
