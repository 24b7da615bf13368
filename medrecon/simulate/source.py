"""Where a simulated measurement comes from."""

from __future__ import annotations

from typing import Any

import torch

from medrecon import __version__
from medrecon.core import checksum
from medrecon.core.volume import Volume


def provenance(volume: Volume, generator: torch.Generator, details: dict[str, Any]) -> dict[str, Any]:
    """Software, source (path and sha256 of its voxels and affine), seed, and what was simulated; no patient data."""
    origin = {k: [str(name) for name in v] if k == "dicom" else str(v) for k, v in volume.source.items()}
    return {
        "software": f"medrecon {__version__}",
        "torch": str(torch.__version__),
        "simulated": True,
        "source": origin,
        "source_sha256": checksum.of_content(volume.data, volume.affine),
        "seed": generator.initial_seed(),
        **details,
    }
