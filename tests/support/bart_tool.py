"""BART as an independent implementation: run it on tensors; the calling test is skipped where it is absent."""

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor


def write_cfl(path: Path, data: Tensor) -> None:
    """Axes as given, the first the fastest: complex64 (column major) beside a text header."""
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{' '.join(map(str, data.shape))}\n")
    data.resolve_conj().numpy().astype(np.complex64).ravel(order="F").tofile(path.with_suffix(".cfl"))


def read_cfl(path: Path) -> Tensor:
    """Trailing axes of length 1 are left out."""
    shape = [int(n) for n in path.with_suffix(".hdr").read_text().splitlines()[1].split()]
    while len(shape) > 1 and shape[-1] == 1:
        shape.pop()
    return torch.from_numpy(np.fromfile(path.with_suffix(".cfl"), np.complex64).reshape(shape, order="F"))


def to_bart(x: Tensor) -> Tensor:
    """(C, H, W) -> (H, W, 1, C): readout, phase encode, partition, coil."""
    return x.permute(1, 2, 0)[:, :, None]


def from_bart(x: Tensor) -> Tensor:
    """(H, W, 1, C) -> (C, H, W); (H, W) stays."""
    return x if x.ndim == 2 else x[:, :, 0].permute(2, 0, 1)


def bart(command: Sequence[str], *inputs: Tensor, outputs: int = 1) -> tuple[list[Tensor], float]:
    """Outputs of `bart command inputs outputs`, and its CPU seconds with process and files, on one thread."""
    program = shutil.which("bart")
    if program is None:
        pytest.skip("BART is not installed (Debian: apt-get install bart)")
    with tempfile.TemporaryDirectory() as folder:
        before = _children()
        names = [Path(folder) / f"in{k}" for k in range(len(inputs))]
        for name, data in zip(names, inputs, strict=True):
            write_cfl(name, data)
        made = [Path(folder) / f"out{k}" for k in range(outputs)]
        ran = subprocess.run(
            [program, *command, *map(str, names + made)],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=300,
        )
        assert ran.returncode == 0, ran.stderr
        return [read_cfl(m) for m in made], _children() - before


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
