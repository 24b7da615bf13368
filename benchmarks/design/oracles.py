"""What holds ReSample `fast` back: each of its parts replaced by its oracle, which knows the truth. Validation slices.

    python benchmarks/design/oracles.py --out runs/oracles.json
    python benchmarks/design/oracles.py --cases "MRI 8x" --only "denoiser.*" "anatomy"
    python benchmarks/design/oracles.py --cases "CT 60 views" --subject test/ct/ct_acrin_flt_013  # why it loses there

All start at TV: the search of the MRI priors is left out, and their baseline is not `resample` as shipped.

The parts: autoencoder, denoiser, data consistency, start, for MRI the phase. Case by case as in simulated_cases.py, one
slice a subject; the difference to TV is the mean over slices.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d

sys.path.insert(0, str(Path(__file__).parents[1]))
from simulated_cases import CASES, reference, simulate, subject
from validation_slices import validation_slices

from medrecon.core.measurement import Measurement
from medrecon.core.units import hu_to_mu
from medrecon.core.volume import Volume
from medrecon.diagnose.stationary import Stationary
from medrecon.diffusion.consistency import DataConsistency
from medrecon.models.denoiser import Denoiser
from medrecon.models.networks.wiener_unet import WienerUNet
from medrecon.models.prior import Prior
from medrecon.models.store import load_prior
from medrecon.operators.base import LinearOperator
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.pipeline.problem import build_problem
from medrecon.quality.evaluate import evaluate
from medrecon.simulate import simulate_mri
from medrecon.solvers.diffusion.resample.fast import ReSample
from medrecon.solvers.variational.tv import TV

SLICES = {"ct": [10, 100, 102, 105], "mri": [21, 69, 229]}
"""CT: four subjects (chest, abdomen, chest, pelvis); MRI: FLAIR, T1, T2 of the one subject there is."""
HELD_OUT = {"ct": [98, 106, 107, 108, 110], "mri": [149, 181, 101]}
"""Others, to confirm what was chosen on the first."""
SIZE = 256


@dataclass(frozen=True, eq=False)
class KnowingPrior(Prior):
    """A prior that knows the truth, also in a mirror: its autoencoder loses nothing of it, or its denoiser errs less.

    Attributes:
        plain: the prior that it is made of.
        exact: what the round trip of the truth loses is added to all that is decoded.
        q: the denoiser's error is q times as large: z0 + q (D(z, sigma) - z0), z0 the latent of the truth.
    """

    plain: Prior = field(kw_only=True)
    truth: Tensor = field(kw_only=True)
    exact: bool = field(kw_only=True)
    q: float = field(kw_only=True)

    @classmethod
    def of(cls, prior: Prior, truth: Tensor, *, exact: bool = False, q: float = 1.0) -> KnowingPrior:
        known = {f.name: getattr(prior, f.name) for f in fields(Prior)}
        if exact:
            known["error"] *= 0.01
        if q != 1:
            known["denoiser"] = Nearer(prior.denoiser, prior.encode(truth), q)
        return cls(**known, plain=prior, truth=truth, exact=exact, q=q)

    def repeated(self, count: int, mirror: Tensor | None = None) -> KnowingPrior:
        truth = self.truth.repeat(count, 1, 1)
        return KnowingPrior.of(self.plain.repeated(count, mirror), truth, exact=self.exact, q=self.q)

    @cached_property
    def lost(self) -> Tensor:
        """Of the truth by the round trip."""
        return self.truth - super().decode(self.encode(self.truth), tuple(self.truth.shape[-2:]))

    def decode(self, z: Tensor, shape: tuple[int, ...]) -> Tensor:
        x = super().decode(z, shape)
        return x + self.lost if self.exact else x


@dataclass(frozen=True, eq=False)
class Nearer(Denoiser):
    """truth + q (D(z, sigma) - truth); q = 0 knows the latent."""

    denoiser: Denoiser
    truth: Tensor
    q: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma_min", self.denoiser.sigma_min)
        object.__setattr__(self, "sigma_max", self.denoiser.sigma_max)

    def __call__(self, z: Tensor, sigma: Tensor) -> Tensor:
        return self.truth + self.q * (self.denoiser(z, sigma) - self.truth) if self.q else self.truth


def blur(x: Tensor, sd: float) -> Tensor:
    """Gaussian blur of (B, H, W), sd in pixels; beyond the edge as inside."""
    t = torch.arange(-int(3 * sd), int(3 * sd) + 1, dtype=x.dtype)
    k = torch.exp(-(t**2) / (2 * sd**2))
    weight = lambda v: conv2d(conv2d(v[:, None], k.view(1, 1, -1, 1), padding="same"),  # noqa: E731
                              k.view(1, 1, 1, -1), padding="same")[:, 0]  # fmt: skip
    return weight(x) / weight(torch.ones_like(x))


class TrueError(DataConsistency):
    """Proximal steps weighted by the true error of v, blurred by 1.5 pixels: its pattern, or its size too."""

    def __init__(self, A: LinearOperator, y: Measurement, iterations: int, truth: Tensor, size: bool) -> None:
        super().__init__(A, y, iterations)
        self.truth, self.size = truth, size

    def repeated(self, count: int) -> TrueError:
        other = super().repeated(count)
        assert isinstance(other, TrueError)
        if count > 1:
            other.truth = self.truth.repeat(count, 1, 1)
        return other

    def prox(self, v: Tensor, tau: Tensor | float, projection: Tensor | None = None) -> Tensor:
        assert isinstance(tau, Tensor)
        error = blur((v - self.truth).abs().square(), 1.5).sqrt().clamp_min(1e-12)
        if not self.size:
            rms = lambda t: t.square().flatten(1).mean(1).sqrt().view(-1, 1, 1)  # noqa: E731
            error = error * rms(tau) / rms(error)
        return super().prox(v, error, projection)

    def to_discrepancy(self, v: Tensor, expected: Tensor, target: float = 1.0, rounds: int = 6) -> Tensor:
        return self.prox(v, expected) if self.size else super().to_discrepancy(v, expected, target, rounds)


@dataclass(frozen=True, eq=False)
class Oracle(ReSample):
    """ReSample with data consistency that knows `truth` if it is given."""

    truth: Tensor | None = None
    true_size: bool = False

    def consistency(self, A: LinearOperator, y: Measurement) -> DataConsistency:
        if self.truth is None:
            return super().consistency(A, y)
        return TrueError(A, y, self.cg_iterations, self.truth, self.true_size)


class Case:
    """One slice measured: operator, data, prior, the truth in the solver's units, the TV reconstruction."""

    def __init__(self, name: str, volume: Volume, weights: str | None = None) -> None:
        self.name, self.modality, self.volume = name, CASES[name]["modality"], volume
        self.problem = build_problem(simulate(name, self.volume, SIZE), "cpu")
        one = slice(0, 1)
        self.A, self.y = self.problem.operator(one), self.problem.measurement(one)
        self.prior = self.problem.prior(load_prior(weights or self.modality), one)
        self.target = reference(self.volume, self.modality, SIZE)
        self.truth = hu_to_mu(self.target.data) if self.modality == "ct" else self._complex_truth()

    def _complex_truth(self) -> Tensor:
        """All of k-space, without noise, by the coil maps that the solvers have: the image that they should find."""
        g = torch.Generator().manual_seed(0)  # the same coils and phase
        full = simulate_mri(self.volume, accel=1.0, acs=CASES[self.name]["acs"], snr_db=200.0, generator=g)
        assert isinstance(self.A, CartesianMRI)
        A = CartesianMRI(self.A.maps, torch.ones(1, *self.A.in_shape))
        return A.adjoint(full.data / self.problem.facts["intensity_scale"])

    @cached_property
    def tv(self) -> Tensor:
        return TV()(self.A, self.y, generator=torch.Generator().manual_seed(0)).image

    def scores(self, image: Tensor) -> dict[str, float]:
        scores = evaluate(Volume(self.problem.values(image), self.target.affine, self.target.units,
                                 self.target.modality), self.target)  # fmt: skip
        chi2 = float(self.y.chi2(self.A(image)).mean())
        row = {"psnr": scores["psnr_db"] or 99.0, "ssim": scores["ssim"], "chi2": chi2}  # None: no error at all
        return row | ({"soft": scores["windows"]["soft"]["psnr_db"] or 99.0} if self.modality == "ct" else {})

    def solve(self, prior: Prior, seed: int = 0, warm: Tensor | None = None, **settings: Any) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        first = self.tv if warm is None else warm
        return Oracle(prior, **settings)(self.A, self.y, generator=generator, warm=first).image

    def measured_share(self, image: Tensor) -> float:
        """Share of the squared error that the data could still mend: prox of the error alone, noiseless data."""
        error = image - self.truth
        dc = DataConsistency(self.A, replace(self.y, data=torch.zeros_like(self.y.data)), iterations=100)
        rms = error.abs().square().mean().sqrt().clamp_min(1e-12)
        left = dc.prox(error, torch.full_like(error.abs(), float(rms)))
        return float(1 - left.abs().square().sum() / error.abs().square().sum().clamp_min(1e-20))


Experiment = Callable[[Case], Tensor]


def knowing(c: Case, *, exact: bool = False, q: float = 1.0) -> Prior:
    return KnowingPrior.of(c.prior, c.truth, exact=exact, q=q)


def wiener_alone(c: Case) -> Prior:
    """The Gaussian stand-in."""
    denoiser = c.prior.denoiser
    assert isinstance(denoiser, WienerUNet)
    return replace(c.prior, denoiser=Stationary(denoiser.wiener, denoiser.sigma_min, denoiser.sigma_max))


def phased(c: Case) -> Prior:
    """The true phase where there is signal."""
    size = c.truth.abs()
    phase = torch.where(size > 0.02 * size.max(), c.truth / size.clamp_min(1e-12), c.prior.phase)  # type: ignore[arg-type]
    return c.prior.with_phase(phase)


def starting(c: Case, sigma: float) -> dict[str, Any]:
    """Another first level, the ratio of two levels as it is."""
    solver = ReSample(c.prior)
    start, end = solver.span()
    octaves = math.log(sigma / end) / math.log(start / end)
    return {"start": sigma, "steps": 1 + max(0, round((solver.count() - 1) * octaves))}


def anatomy(c: Case) -> Iterator[tuple[str, Tensor]]:
    """Images on the way, and simple mixtures."""
    yield "truth", c.truth
    yield "TV", c.tv
    yield "D(E(truth))", c.prior.decode(c.prior.encode(c.truth), c.A.in_shape)
    yield "D(E(TV))", c.prior.decode(c.prior.encode(c.tv), c.A.in_shape)
    solution = Oracle(c.prior)(c.A, c.y, generator=torch.Generator().manual_seed(0), warm=c.tv)
    seen = 1 if c.A.support is None else c.A.support
    yield "before the polish", solution.diagnostics["latent_image"] * seen
    yield "ReSample fast", solution.image
    yield "mean of it and TV", (solution.image + c.tv) / 2


def experiments() -> dict[str, Experiment]:
    """By name, each on its own line of the table."""
    runs: dict[str, Experiment] = {
        "autoencoder exact": lambda c: c.solve(knowing(c, exact=True)),
        "denoiser: Wiener filter alone": lambda c: c.solve(wiener_alone(c)),
        "phase true": lambda c: c.solve(phased(c)),
        "consistency weighted by the true error's pattern": lambda c: c.solve(c.prior, truth=c.truth),
        "consistency weighted by the true error": lambda c: c.solve(c.prior, truth=c.truth, true_size=True),
        "both: autoencoder exact, true error's pattern": lambda c: c.solve(knowing(c, exact=True), truth=c.truth),
        "both: denoiser error x 0.9, true error's pattern": lambda c: c.solve(knowing(c, q=0.9), truth=c.truth),
        "60 CG iterations": lambda c: c.solve(c.prior, cg_iterations=60),
        "3 rounds": lambda c: c.solve(c.prior, rounds=3),
        "16 steps": lambda c: c.solve(c.prior, steps=16),
        "one trajectory": lambda c: c.solve(c.prior, antithetic=False, pairs=1),
        "mean of 4 pairs": lambda c: torch.stack([c.solve(c.prior, seed=k) for k in range(4)]).mean(0),
    }
    for q in (0.95, 0.9, 0.8, 0.7, 0.5, 0.0):
        runs[f"denoiser error x {q}"] = lambda c, q=q: c.solve(knowing(c, q=q))  # type: ignore[misc]
    for q in (0.9, 0.0):
        runs[f"both: autoencoder exact, denoiser error x {q}"] = lambda c, q=q: c.solve(knowing(c, exact=True, q=q))  # type: ignore[misc]
    for sigma in (0.1, 0.2, 0.4, 0.8, 1.6, 6.4, 25.6):
        runs[f"start: TV + {sigma} n"] = lambda c, s=sigma: c.solve(c.prior, **starting(c, s))  # type: ignore[misc]
        runs[f"start: truth + {sigma} n"] = lambda c, s=sigma: c.solve(c.prior, warm=c.truth, **starting(c, s))  # type: ignore[misc]
    for sigma in (0.01, 0.06, 0.12, 0.25, 0.4, 0.6):
        runs[f"end at {sigma}"] = lambda c, s=sigma: c.solve(c.prior, end=s)  # type: ignore[misc]
    return runs


@torch.no_grad()
def measure(case: Case, wanted: Callable[[str], bool]) -> Iterator[dict[str, Any]]:
    """Rows of one slice."""
    tv = case.scores(case.tv)
    if wanted("anatomy"):
        for name, image in anatomy(case):
            s = case.scores(image)
            yield {"experiment": name, **s, "gain": s["psnr"] - tv["psnr"], "share": case.measured_share(image)}
    for name, run in experiments().items():
        if wanted(name) and not (name.startswith("phase") and case.modality == "ct"):
            start = time.process_time()
            s = case.scores(run(case))
            yield {"experiment": name, **s, "gain": s["psnr"] - tv["psnr"], "cpu": time.process_time() - start}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, mean over slices, worst and best gain over TV."""
    head = ("case", "experiment", "PSNR dB", "over TV dB", "least … most", "soft PSNR dB", "SSIM", "χ²/m",
            "measured share of error")  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for case, name in dict.fromkeys((r["case"], r["experiment"]) for r in rows):
        mine = [r for r in rows if (r["case"], r["experiment"]) == (case, name)]
        gains = [r["gain"] for r in mine]

        def mean(key: str, form: str, mine: list[dict[str, Any]] = mine) -> str:
            return format(sum(r[key] for r in mine) / len(mine), form) if key in mine[0] else ""

        cells = [case, name, mean("psnr", ".2f"), mean("gain", "+.2f"), f"{min(gains):+.2f} … {max(gains):+.2f}",
                 mean("soft", ".2f"), mean("ssim", ".4f"), mean("chi2", ".2f"), mean("share", ".0%")]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def volumes(case: str, options: argparse.Namespace) -> Iterator[tuple[int | str, Volume]]:
    """Slices by name: the middle one of each test subject asked for, else those of validation."""
    modality = CASES[case]["modality"]
    for path in options.subject:
        yield path, subject(path, modality, 1)
    if not options.subject:
        for index in (HELD_OUT if options.held_out else SLICES)[modality][: options.slices]:
            yield index, validation_slices(modality, [index])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON, one row a slice")
    parser.add_argument("--cases", nargs="*", default=["CT 30 views", "MRI 8x"])
    parser.add_argument("--only", nargs="*", default=[".*"], help="experiments, regular expressions; and anatomy")
    parser.add_argument("--slices", type=int, default=4, help="the first so many of each modality")
    parser.add_argument("--held-out", action="store_true", help="the other slices")
    parser.add_argument("--subject", nargs="*", default=[], help="test subjects, to find out why one loses: choose "
                        "nothing on them")  # fmt: skip
    parser.add_argument("--weights", help="a prior to use in place of the shipped one")
    options = parser.parse_args()
    wanted = lambda name: any(re.fullmatch(pattern, name) for pattern in options.only)  # noqa: E731
    rows: list[dict[str, Any]] = []
    for name in options.cases:
        for label, volume in volumes(name, options):
            for row in measure(Case(name, volume, options.weights), wanted):
                rows.append({"case": name, "slice": label, **row})
                print(json.dumps(rows[-1]), flush=True)
                if options.out:
                    options.out.write_text(json.dumps(rows, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
