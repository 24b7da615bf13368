"""The record of a run: all that its result depends on, as JSON values."""

from __future__ import annotations

import itertools
import json
from typing import Any

import torch
from torch import Tensor

from medrecon import __version__
from medrecon.core import checksum
from medrecon.core.on_disk import each
from medrecon.core.scan import Scan
from medrecon.core.scan_values import geometry_values, noise_values
from medrecon.pipeline.job import Job
from medrecon.pipeline.request import Request
from medrecon.pipeline.run import settings_of


def record_of(job: Job, request: Request, size: int) -> dict[str, Any]:
    """Return the record of a job in batches of `size`."""
    record = {
        "measurement": content(job.scan),
        "solver": job.name,
        "settings": {name: plain(value) for name, value in settings_of(job.solver).items()},
        "slices": [job.scan.first + job.start, job.scan.first + job.stop],
        "batch": size,
        "seed": request.seed,
        "device": request.device,
        "maps": request.maps,
        "versions": {"medrecon": __version__, "torch": str(torch.__version__)},
    }
    if job.prior is not None:
        card = checksum.of_content(json.dumps(plain(job.prior.card), sort_keys=True))  # settings may be its own
        record["prior"] = {"sha256": job.prior.card.get("sha256"), "card": card, "label": job.prior.label}
    return record


def content(scan: Scan) -> str:
    """Return the digest of a scan: of its samples, where they were taken and how noisy they are."""
    known = {**geometry_values(scan), **{f"noise_{name}": value for name, value in noise_values(scan).items()}}
    tensors = [scan.data, scan.affine, *(t for t in (scan.mask, scan.maps) if t is not None)]
    tensors += [value for value in known.values() if isinstance(value, Tensor)]
    items = (item for tensor in tensors for item in (each(tensor) if tensor.ndim > 2 else [tensor]))
    facts = [scan.modality, scan.units, scan.image_shape, [list(t.shape) for t in tensors]]
    values = {name: plain(value) for name, value in known.items() if not isinstance(value, Tensor)}
    return checksum.of_parts(itertools.chain(items, [json.dumps([facts, values, scan.mu_water])]))


def plain(value: Any) -> Any:
    """Return a setting as JSON holds it."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value if isinstance(value, str | int | float | bool) or value is None else repr(value)
