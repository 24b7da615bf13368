"""Artefacts and their corrections on analytic phantoms: HU errors before and after, as one table.

python benchmarks/accuracy/corrections.py               # about a minute on one core
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
from ct_phantoms import THORAX, Ellipse, thorax, views

from medrecon.core.noise import CTNoise
from medrecon.core.units import MU_WATER, mu_to_hu
from medrecon.corrections.beam_hardening import apply_polynomial, fit_polynomial, water_precorrection
from medrecon.corrections.field_of_view import field_of_view_mask
from medrecon.corrections.metal import reduce_metal
from medrecon.corrections.rings import defective_elements, remove_rings, repair_elements
from medrecon.corrections.truncation import pad_truncated
from medrecon.geometry import FanGeometry, Geometry, ImageGrid, ParallelGeometry
from medrecon.numerics.spectrum import Spectrum
from medrecon.operators.ct.filtered.fbp import fbp
from medrecon.operators.ct.operator import CTOperator
from medrecon.simulate.dose import insert_noise
from medrecon.simulate.metal import metal_scan
from medrecon.simulate.rings import add_rings
from medrecon.simulate.tube_current import tube_current

FAN = FanGeometry(views(480), 280, 2.6, 595.0, 490.6, det_offset=0.65)
GRID = ImageGrid((192, 192), (2.0, 2.0))
SPECTRUM = Spectrum()
Row = tuple[str, str, str, str]


def main() -> None:
    torch.set_num_threads(1)
    print("| artefact | correction | before | after |\n|---|---|---|---|")
    for rows in (rings, dead, water, metal, truncation, dose, current):
        for row in rows():
            print("| " + " | ".join(row) + " |", flush=True)


def hu(p: Tensor, geometry: Geometry = FAN) -> Tensor:
    return mu_to_hu(fbp(p, geometry, GRID))


def figures(image: Tensor, truth: Tensor, region: Tensor) -> str:
    """RMSE and bias [HU] in a region."""
    error = (image - truth)[region]
    return f"{float(error.square().mean().sqrt()):.1f} ({float(error.mean()):+.1f})"


def rings() -> Iterator[Row]:
    circle = Ellipse(0, 0, 185, 185).inside(GRID)
    for name, p in (("thorax", thorax(FAN)), ("centred disc", Ellipse(0, 0, 120, 120).sinogram(FAN))):
        generator = torch.Generator().manual_seed(1)
        clean = CTNoise(2e5, 10.0).simulate(p, generator)
        truth = hu(clean)
        ringed = add_rings(clean, generator, gain=0.01)
        for method, correct in RING_METHODS.items():
            before, after = figures(hu(ringed), truth, circle), figures(hu(correct(ringed)), truth, circle)
            yield f"rings, gain error 1 %, {name}", method, before, after
            yield f"no artefact, {name}", method, "0.0 (+0.0)", figures(hu(correct(clean)), truth, circle)


def smoothed_mean(p: Tensor, width: float = 3.0) -> Tensor:
    """What is usually done first: the mean over the views less its smooth part is the stripe."""
    from scipy import ndimage

    mean = p.mean(0).numpy()
    return p - torch.from_numpy(mean - ndimage.gaussian_filter1d(mean, width, mode="nearest"))


def sorting(p: Tensor, window: int = 7) -> Tensor:
    """Each element's values sorted, a median across elements, and back (Vo et al. 2018, algorithm 3)."""
    from scipy import ndimage

    ordered, order = p.sort(0)
    flat = torch.from_numpy(ndimage.median_filter(ordered.numpy(), (1, window), mode="nearest"))
    return torch.zeros_like(p).scatter(0, order, flat)


RING_METHODS: dict[str, Callable[[Tensor], Tensor]] = {
    "`remove_rings`": remove_rings,
    "(smoothed mean, for comparison)": smoothed_mean,
    "(sorting, for comparison)": sorting,
}


def dead() -> Iterator[Row]:
    clean = thorax(FAN)
    broken = add_rings(clean, torch.Generator().manual_seed(2), gain=0.0, dead=(60, 61, 150))
    filled, _ = repair_elements(broken, defective_elements(broken))
    circle, truth = Ellipse(0, 0, 185, 185).inside(GRID), hu(clean)
    yield "3 dead elements", "`repair_elements`", figures(hu(broken), truth, circle), figures(hu(filled), truth, circle)


def water() -> Iterator[Row]:
    disc = Ellipse(10.0, -5.0, 150.0, 150.0, mu=1.0)
    p = SPECTRUM.line_integrals({"water": disc.sinogram(FAN)}).float()
    polynomial = fit_polynomial(p, MU_WATER * disc.sinogram(FAN))

    def cup(q: Tensor) -> str:
        image = hu(q)
        middle, rim = disc.inside(GRID, 0.2), disc.inside(GRID, 0.95) & ~disc.inside(GRID, 0.85)
        return f"rim {float(image[rim].mean()):+.1f}, middle {float(image[middle].mean()):+.1f}"

    name = "beam hardening, water disc 300 mm, 120 kV"
    yield name, "`water_precorrection`", cup(p), cup(water_precorrection(p, SPECTRUM))
    yield name, "`fit_polynomial`, degree 4", cup(p), cup(apply_polynomial(p, polynomial))


def metal() -> Iterator[Row]:
    geometry, fine = replace(FAN, det_offset=0.0), ImageGrid((384, 384), (1.0, 1.0))
    hips = (Ellipse(0, 0, 170, 110), *(Ellipse(x, 0, 28, 28, mu=0.6 * MU_WATER) for x in (-90.0, 90.0)))
    cases = (
        ("2 titanium pins of 20 mm", THORAX, (Ellipse(-60, -20, 10, 10), Ellipse(70, -30, 10, 10)), "titanium"),
        ("iron of 16 mm in the spine", THORAX, (Ellipse(0, -70, 8, 8),), "iron"),
        ("2 titanium hips of 30 mm", hips, (Ellipse(-90, 0, 15, 15), Ellipse(90, 0, 15, 15)), "titanium"),
    )
    simulator, A = CTOperator(geometry, fine), CTOperator(geometry, GRID)
    for name, body, inserts, material in cases:
        mu = torch.stack([e.image(fine) for e in body]).sum(0)
        share = torch.stack([replace(e, mu=1.0).image(fine) for e in inserts]).sum(0)
        noise, generator = CTNoise(5e5, 20.0), torch.Generator().manual_seed(3)
        y, free = (
            water_precorrection(metal_scan(simulator, mu, s, SPECTRUM, noise, generator, material), SPECTRUM)
            for s in (share, torch.zeros_like(share))
        )
        truth = mu_to_hu(torch.stack([e.image(GRID) for e in body]).sum(0))
        near = torch.stack([e.inside(GRID, 2.0) for e in inserts]).any(0)
        region = Ellipse(0, 0, 180, 140).inside(GRID) & ~near
        for method in ("li", "nmar"):
            image = mu_to_hu(reduce_metal(A, y, method).image)
            yield name, method.upper(), figures(mu_to_hu(A.fbp(y)), truth, region), figures(image, truth, region)
        yield name, "(the same without metal)", "", figures(mu_to_hu(A.fbp(free)), truth, region)


def truncation() -> Iterator[Row]:
    large = (Ellipse(0, 0, 210, 150, 0.1), *THORAX[1:])
    for name, body in (("300 mm wide", THORAX), ("420 mm wide", large)):
        geometry = FanGeometry(views(480), 196, 2.6, 595.0, 490.6)
        whole = replace(geometry, det_count=480)
        short, full = (torch.stack([e.sinogram(g) for e in body]).sum(0) for g in (geometry, whole))
        region, truth = field_of_view_mask(geometry, GRID), hu(full, whole)
        after = figures(hu(*pad_truncated(short, geometry)), truth, region)
        title = f"truncation, body {name}, detector sees 270 mm"
        yield title, "`pad_truncated`", figures(hu(short, geometry), truth, region), after


def dose() -> Iterator[Row]:
    """Variance of the line integrals over that of a scan made at the lower dose."""
    full, draws, fraction = CTNoise(1e5, 10.0), 400_000, 0.1
    generator = torch.Generator().manual_seed(4)
    for p in (0.0, 3.0, 5.0, 6.0, 7.0):
        clean = torch.full((draws,), p)
        low = replace(full, i0=fraction * 1e5).simulate(clean, generator).double()
        made = insert_noise(full.simulate(clean, generator), full, fraction, generator).double()
        counts = f"{fraction * 1e5 * math.exp(-p):.3g} counts"
        ratio = f"variance x {float(made.var() / low.var()):.3f}, mean {float(made.mean() - low.mean()):+.4f}"
        yield f"dose 1/10 by `insert_noise`, {counts}, sigma_e 10", "against a scan at 1/10", "", ratio


def current() -> Iterator[Row]:
    """Noise in the middle of wide shoulders for one dose."""
    geometry = ParallelGeometry(views(480, math.pi), 280, 2.0)
    p = Ellipse(0, 0, 230, 110).sinogram(geometry)
    middle, levels = Ellipse(0, 0, 100, 60).inside(GRID), {}
    for kind in ("constant", "sinusoidal", "attenuation"):
        i0 = torch.as_tensor(tube_current(kind, 3e5, geometry.angles, p[None]))
        noise = CTNoise(i0.reshape(-1, 1) if i0.ndim else i0, 10.0)
        drawn = noise.simulate(p, torch.Generator().manual_seed(5))
        levels[kind] = f"{float(np.std((hu(drawn, geometry) - hu(p, geometry))[middle].numpy())):.1f} noise"
    for kind in ("sinusoidal", "attenuation"):
        yield "streaks of wide shoulders (460 x 220 mm)", f"tube current {kind}", levels["constant"], levels[kind]


if __name__ == "__main__":
    main()
