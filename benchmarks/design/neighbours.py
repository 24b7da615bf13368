"""What neighbouring slices can bring to a denoiser: the closed form of a Gaussian.

Joint stationary Gaussians of the latents of one slice and of three neighbouring slices, fitted to training volumes with
contiguous slices; their Wiener filters estimate the middle slice of validation volumes from one and from three noisy
slices (independent noise of one level). The ratio of the errors is what a linear coupling of slices brings at most
where the latents are such a Gaussian.

    python benchmarks/design/neighbours.py ct
    python benchmarks/design/neighbours.py mri --step 2
"""

from __future__ import annotations

import argparse
import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medrecon.data.manifest import Manifest, Split, load_manifest
from medrecon.models.prior import Prior
from medrecon.models.store import load_prior
from medrecon.training.diffusion import LEVELS

MANIFESTS = Path(__file__).parents[2] / "data_manifests"
SMOOTH = (1, 3, 5, 9, 15)
"""sides of the box of frequencies over which coherences are averaged"""
SPLITS: tuple[Split, ...] = ("train", "val")
LEAST = 0.8
"""mean correlation of neighbouring slices below which a run of frames is taken for no volume"""


@dataclass(frozen=True)
class Run:
    """Frames of one series in the order of their numbers; x (N, 256, 256) in stored counts."""

    source: str
    numbers: tuple[int, ...]
    x: Tensor

    def correlation(self, step: int) -> float:
        """Mean correlation of slices `step` apart."""
        u = self.x.float().clamp_min(0).flatten(1)
        u = u - u.mean(1, keepdim=True)
        u = u / u.norm(dim=1, keepdim=True).clamp_min(1e-9)
        return float((u[step:] * u[:-step]).sum(1).mean())


def runs(folder: Path) -> list[Run]:
    """Series of at least 10 frames by the index's `detail`: its last number orders them, what is before names them."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    with (folder / "index.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    found: dict[tuple[str, ...], list[tuple[int, str, int]]] = {}
    for row in rows:
        if match := re.fullmatch(r"(.*?)(\d+)(?:\.dcm)?", row["detail"]):
            key = (row["source"], row["subject"], match[1])
            found.setdefault(key, []).append((int(match[2]), row["sheet"], int(row["frame"])))
    kept, sheets = [], dict[str, Tensor]()
    for (source, subject, before), frames in found.items():
        if len(frames) < 10 or "figshare" in source:
            continue
        frames.sort()
        for _, sheet, _ in frames:
            if sheet not in sheets:
                with Image.open(folder / sheet) as image:
                    pixels = np.asarray(image).astype(np.int16)
                sheets[sheet] = torch.from_numpy(pixels.reshape(-1, pixels.shape[1], pixels.shape[1]))
        x = torch.stack([sheets[sheet][frame] for _, sheet, frame in frames])
        kept.append(Run(f"{source} {subject} {before}".strip(), tuple(n for n, *_ in frames), x))
    return kept


def triplets(prior: Prior, run: Run, step: int, manifest: Manifest) -> Tensor:
    """Latents (T, 3, C, h, w) of slices one regular step apart: before, middle, after."""
    x = run.x.float() * manifest.slope + manifest.intercept
    x = x.clamp(prior.values.low, prior.values.high) if prior.units == "HU" else x
    with torch.no_grad():
        z = torch.cat([prior.encode(part) for part in x.split(8)])
    gap = min(b - a for a, b in zip(run.numbers, run.numbers[1:], strict=False)) * step
    place = {n: i for i, n in enumerate(run.numbers)}
    middle = [n for n in run.numbers if n - gap in place and n + gap in place]
    return torch.stack([z[[place[n + d] for n in middle]] for d in (-gap, 0, gap)], 1)


def moments(z: Tensor, mean: Tensor) -> Tensor:
    """Cross-spectral density (h, w, S C, S C) of stacked slices z (T, S, C, h, w) less `mean` (C, 1, 1).

    Volumes have no preferred end, so both orders of the slices count.
    """
    both = torch.cat([z, z.flip(1)]) - mean
    found = torch.zeros(*z.shape[-2:], *(z.shape[1] * z.shape[2],) * 2, dtype=torch.complex64)
    for part in both.split(32):
        f = torch.fft.fft2(part.flatten(1, 2), norm="ortho").permute(2, 3, 1, 0).contiguous()
        found += f @ f.mH
    return found / len(both)


def smoothed(density: Tensor, side: int) -> Tensor:
    """Coherences averaged over a box of frequencies; the powers stay, so that their steep fall does not leak."""
    power = density.diagonal(dim1=-2, dim2=-1).real.clamp_min(1e-12).sqrt()
    scale = power[..., None] * power[..., None, :]
    total, reach = density / scale, range(-(side // 2), side // 2 + 1)
    for axis in (0, 1):
        total = torch.stack([total.roll(i, axis) for i in reach]).mean(0)
    return total * scale


def errors(density: Tensor, truth: Tensor, kept: slice, middle: slice) -> Tensor:
    """Mean squared error of the middle slice per noise level, exact in the mean over the noise.

    G = S (S + sigma^2)^-1 of the channels `kept` of the model's density S; on data of density T its error is
    tr (G - P) T (G - P)^H + sigma^2 tr G G^H, P taking the middle slice.
    """
    model, data = density[..., kept, kept], truth[..., kept, kept]
    own = slice(middle.start - kept.start, middle.stop - kept.start)
    eye, found = torch.eye(model.shape[-1], dtype=model.dtype), []
    for sigma in LEVELS:
        gain = torch.linalg.solve(model + sigma**2 * eye, model[..., own]).mH
        missed = gain - eye[own]
        bias = ((missed @ data) * missed.conj()).real.sum()
        found.append(float(bias + sigma**2 * gain.abs().square().sum()))
    return torch.tensor(found) / gain[..., 0].numel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("ct", "mri"))
    parser.add_argument("--step", type=int, default=1, help="neighbours this many slices away")
    options = parser.parse_args()
    prior, manifest = load_prior(options.kind), load_manifest(MANIFESTS / f"corpus_{options.kind}.toml")
    stacks: dict[str, Tensor] = {}
    for split in SPLITS:
        parts = []
        for run in runs(manifest.folder(split)):
            correlation = run.correlation(options.step)
            kept = correlation >= LEAST
            parts += [triplets(prior, run, options.step, manifest)] if kept else []
            print(
                f"{split} {run.source}: {len(run.numbers)} slices, correlation {correlation:.3f}, "
                f"{len(parts[-1]) if kept else 0} triplets",
                flush=True,
            )
        stacks[split] = torch.cat(parts)
    report(stacks["train"], stacks["val"])


def report(train: Tensor, val: Tensor) -> None:
    """Errors of the middle slice of `val` (T, 3, C, h, w) by Gaussians fitted to `train`."""
    mean, c = train.mean((0, 1, 3, 4))[:, None, None], train.shape[2]
    model, truth, middle = moments(train, mean), moments(val, mean), slice(c, 2 * c)
    one, three = [], []
    for side in SMOOTH:
        density = smoothed(model, side)
        one.append(errors(density, truth, middle, middle))
        three.append(errors(density, truth, slice(0, 3 * c), middle))
        print(f"box {side}: three slices over one " + " ".join(f"{r:.3f}" for r in (three[-1] / one[-1]).tolist()))
    rows = zip(LEVELS, torch.stack(one).amin(0).tolist(), torch.stack(three).amin(0).tolist(), strict=True)
    for sigma, a, b in rows:
        print(f"sigma {sigma:5g}: one slice {a:.3e}, three {b:.3e}, ratio {b / a:.3f} (each with its best box)")


if __name__ == "__main__":
    main()
