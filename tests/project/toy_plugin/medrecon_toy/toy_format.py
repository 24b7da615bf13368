"""A file format in one file, complete: a line of JSON, then the values."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medrecon.core import atomic
from medrecon.core.stack import Stack
from medrecon.core.volume import Modality, Volume
from medrecon.formats.base import ImageReader, ImageWriter

MARK = b"TOY1"


class Toy(ImageReader, ImageWriter):
    name = "toy"
    summary = "a line of JSON and float32 values, .toy"
    images = "a toy .toy"
    suffixes = (".toy",)

    def recognises(self, path: Path) -> bool:
        return path.is_file() and path.read_bytes()[:4] == MARK

    def info(self, path: Path) -> dict[str, Any]:
        volume = self.read_image(path)
        return {"path": str(path), "kind": "toy", "shape": list(volume.data.shape), "units": volume.units}

    def read_image(self, path: Path, series: str | None = None, modality: Modality | None = None) -> Volume:
        try:
            head, _, body = path.read_bytes()[4:].partition(b"\n")
            told = json.loads(head)
            values = torch.from_numpy(np.frombuffer(body, np.float32).reshape(told["shape"]).copy())
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: damaged or no toy ({error})") from error
        affine = torch.tensor(told["affine"], dtype=torch.float64)
        return Volume(values, affine, told["units"], told["modality"])

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
        volume = stack.whole()
        told = {"shape": list(volume.data.shape), "affine": volume.affine.tolist()}
        told |= {"units": volume.units, "modality": volume.modality}
        with atomic.file(path, overwrite=overwrite, beside=beside) as made:
            made.write_bytes(MARK + json.dumps(told).encode() + b"\n" + volume.data.numpy().tobytes())
        return path
