"""doctor: what medrecon stands on here, and whether it works."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

from cyclopts import App

from medrecon import __version__
from medrecon.cli.options import Output
from medrecon.cli.show import show_json, show_tree

app = App(name="doctor")

PACKAGES = (
    "monai",
    "einops",
    "astra-toolbox",
    "sigpy",
    "pydicom",
    "highdicom",
    "nibabel",
    "h5py",
    "pydantic",
    "cyclopts",
    "rich",
    "matplotlib",
    "safetensors",
)
CODECS = {
    "RLE": "1.2.840.10008.1.2.5",
    "JPEG baseline": "1.2.840.10008.1.2.4.50",
    "JPEG lossless": "1.2.840.10008.1.2.4.70",
    "JPEG-LS lossless": "1.2.840.10008.1.2.4.80",
    "JPEG 2000 lossless": "1.2.840.10008.1.2.4.90",
    "HTJ2K lossless": "1.2.840.10008.1.2.4.201",
}


@app.default
def doctor(*, out: Output = Output()) -> int:
    """Check torch, CUDA, ASTRA, DICOM codecs and the shipped weights; exit code 1 if something is broken."""
    found = examine()
    (show_json if out.json else show_tree)(found)
    return 1 if found["problems"] else 0


def stack() -> dict[str, str]:
    """Return the versions of medrecon, Python, torch, CUDA and ASTRA."""
    import torch

    cuda = f"{torch.version.cuda} ({torch.cuda.get_device_name(0)})" if torch.cuda.is_available() else "none"
    return {
        "medrecon": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cuda": cuda,
        "astra": _installed("astra-toolbox"),
    }


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _projector() -> str:
    """Project a disc and look at the middle ray: is ASTRA alive and in the right units?"""
    import torch

    from medrecon.operators.ct.operator import CTOperator

    A = next(iter(CTOperator.examples()))
    y = A(torch.ones(1, *A.in_shape, dtype=A.in_dtype))
    return "ok" if bool(torch.isfinite(y).all()) and float(y.abs().max()) > 0 else "projects nothing"


def _codecs() -> dict[str, str]:
    from pydicom.pixels.decoders.base import get_decoder

    return {name: "ok" if get_decoder(uid).is_available else "missing" for name, uid in CODECS.items()}


def _weights() -> dict[str, str]:
    from medrecon.models.store import load_prior, shipped

    def state(name: str) -> str:
        try:
            return f"ok, sha256 {load_prior(name).card['sha256'][:16]}"
        except (ValueError, OSError, KeyError, RuntimeError) as error:
            return f"broken: {error}"

    return {name: state(name) for name in shipped()}


def examine() -> dict[str, Any]:
    """Run all checks; `problems` lists what keeps medrecon from working."""
    found: dict[str, Any] = {"stack": stack(), "packages": {p: _installed(p) for p in PACKAGES}}
    try:
        found["projector"] = _projector()
    except (ImportError, RuntimeError, OSError) as error:
        found["projector"] = f"broken: {error}"
    found["codecs"], found["weights"] = _codecs(), _weights()
    problems = [f"{p} is not installed: pip install {p}" for p, v in found["packages"].items() if v == "not installed"]
    if found["projector"] != "ok":
        problems.append(f"the CT projector: {found['projector']}")
    problems += [f"weights {n}: {v}" for n, v in found["weights"].items() if v.startswith("broken")]
    found["problems"] = problems
    return found
