"""Corrections of a scan: what is made up weighs nothing, what was done is kept, and what makes no sense is refused."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from medrecon.acquisition.correct import Corrections, correct
from medrecon.cli import main
from medrecon.core.noise import CTNoise
from medrecon.core.scan import Scan
from medrecon.core.volume import Volume
from medrecon.formats.measurement_file import load_scan, save_scan
from medrecon.geometry import ConeGeometry
from medrecon.operators.ct.operator import CTOperator
from medrecon.pipeline import reconstruct
from medrecon.simulate import simulate_ct, simulate_mri
from medrecon.simulate.dose import reduce_dose

METAL = (slice(30, 34), slice(40, 44))


def scanned(volume: Volume) -> Scan:
    return simulate_ct(volume, views=60, i0=1e5, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def plain(disc_volume: Callable[..., Volume]) -> Scan:
    return scanned(disc_volume("CT", 64, 2))


@pytest.fixture(scope="module")
def metal(disc_volume: Callable[..., Volume]) -> Scan:
    """A rod in the first slice alone, which attenuates the less the more of it a ray meets: the beam hardens."""
    volume, bare = disc_volume("CT", 64, 2), disc_volume("CT", 64, 2)
    volume.data[0][METAL] = 60000
    with_rod, without = scanned(volume), scanned(bare)
    rod = (with_rod.data - without.data).clamp_min(0)
    return replace(with_rod, data=without.data + rod.clamp_max(1) + (rod - 1).clamp_min(0) / 5)


def weights(scan: Scan) -> torch.Tensor:
    assert isinstance(scan.noise, CTNoise)
    return scan.noise.precision(scan.data)


def test_rays_through_metal_weigh_nothing_and_the_others_are_as_they_were(metal: Scan, tmp_path: Path) -> None:
    scan = correct(metal, Corrections(metal="nmar"))
    rod = torch.zeros(2, 64, 64)
    rod[0][METAL] = 1
    hit = CTOperator(scan.rays, scan.grid)(rod) > 0.1
    made_up = weights(scan) == 0
    assert bool(made_up[hit].all()) and not bool(made_up[1].any()) and float(made_up[0].double().mean()) < 0.35
    assert torch.equal(scan.data[~made_up], metal.data[~made_up])
    assert torch.equal(weights(scan)[~made_up], weights(metal)[~made_up])
    told = scan.provenance["corrected"]["metal"]
    assert told["method"] == "nmar" and told["pixels"] >= 16
    told = scan.provenance["corrected"]["filled_rays"]
    assert told == {"share": pytest.approx(float(made_up.double().mean())), "count_as": "weightless"}
    save_scan(scan, tmp_path / "x.h5")
    back = load_scan(tmp_path / "x.h5")
    assert torch.equal(weights(back) == 0, made_up) and back.provenance["corrected"] == scan.provenance["corrected"]


@pytest.mark.parametrize("solver", ["fbp", "sirt"])
def test_streaks_of_metal_are_gone(solver: Literal["fbp", "sirt"], metal: Scan, plain: Scan) -> None:
    """Against the same scan without the rod, away from it."""
    truth = reconstruct(plain, solver, slices=(0, 1))[0].data[0]
    far = torch.ones(64, 64, dtype=torch.bool)
    far[26:38, 36:48] = False
    errors = {}
    for name in ("before", "after"):
        filled: Literal["measured", "weightless"] = "measured" if solver == "fbp" else "weightless"
        scan = metal if name == "before" else correct(metal, Corrections(metal="nmar", filled=filled))
        volume, report = reconstruct(scan, solver, slices=(0, 1))
        assert not report.get("failed")
        errors[name] = float((volume.data[0] - truth)[far].square().mean().sqrt())
    assert errors["after"] < 0.6 * errors["before"]


def test_a_scan_without_faults_stays_as_it_is(plain: Scan) -> None:
    scan = correct(plain, Corrections(dead_elements=True, metal="li"))
    assert torch.equal(scan.data, plain.data) and scan.noise is plain.noise
    assert scan.provenance["corrected"]["dead_elements"] == [] and scan.provenance["corrected"]["metal"]["pixels"] == 0


def test_dead_elements_and_rings_are_taken_out(plain: Scan) -> None:
    gains = torch.zeros(plain.data.shape[-1])
    gains[[25, 33, 60]] = torch.tensor([0.08, -0.07, 0.09])
    broken = plain.data + gains
    broken[..., 40] = 6.0
    scan = correct(replace(plain, data=broken), Corrections(dead_elements=True, rings=True))
    left = (scan.data - plain.data).mean((0, 1))
    assert float(left[gains != 0].abs().max()) < 0.03
    assert (weights(scan) == 0).any((0, 1)).nonzero().flatten().tolist() == [40]
    assert scan.provenance["corrected"]["dead_elements"] == [40]
    assert 0.01 < scan.provenance["corrected"]["rings"]["removed_rms"] < 0.03


def test_hardened_rays_are_lengthened(plain: Scan) -> None:
    """The more water a ray met, the more its mean attenuation fell, and the more is given back."""
    measured = replace(plain, provenance={})
    scan = correct(measured, Corrections(kvp=120))
    ratio = scan.data / measured.data
    assert float(ratio[measured.data > 2].min()) > float(ratio[(measured.data > 0.3) & (measured.data < 1)].max())
    assert scan.noise is plain.noise
    assert scan.provenance["corrected"] == {"beam_hardening": {"kvp": 120, "filter_mm": 8.0}}


def test_unknown_photons_are_warned_of(metal: Scan, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        scan = correct(replace(metal, noise=None), Corrections(metal="li"))
    assert scan.noise is None and "solvers will take interpolated rays" in caplog.text


def test_what_makes_no_sense_is_refused(metal: Scan, disc_volume: Callable[..., Volume]) -> None:
    cases: list[tuple[Scan, Corrections, str]] = [
        (correct(metal, Corrections(rings=True)), Corrections(metal="li"), r"corrected already \(rings\)"),
        (metal, Corrections(kvp=120), "simulated with one energy"),
        (replace(metal, units="1/mm", mu_water=None), Corrections(metal="li"), "told by its HU"),
    ]
    cone = ConeGeometry((0.0, 1.0, 2.0), (4, 32), (2.0, 2.0), 300.0, 300.0)
    whole = Scan("ct", torch.zeros(1, *cone.shape), (4, 16, 16), torch.eye(4).double(), "HU", cone)
    cases.append((whole, Corrections(rings=True), "measures a volume as a whole"))
    mr = simulate_mri(disc_volume("MR", 32, 1), accel=1, acs=12, coils=2, generator=torch.Generator())
    cases.append((mr, Corrections(rings=True), "is of MRI"))
    for scan, asked, said in cases:
        with pytest.raises(ValueError, match=said):
            correct(scan, asked)
    with pytest.raises(ValueError, match="lower its dose first"):
        reduce_dose(cases[0][0], 0.5, torch.Generator())


def test_the_command_writes_what_recon_then_tells(
    metal: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_scan(metal, Path("ct.h5"))
    line = "correct ct.h5 -o out.h5 --rings --metal li --quiet"
    assert main([*line.split(), "--dry-run"]) == 0 and not Path("out.h5").exists()
    assert main(line.split()) == 0
    assert list(load_scan(Path("out.h5")).provenance["corrected"]) == ["rings", "metal", "filled_rays"]
    capsys.readouterr()
    assert main(["recon", "out.h5", "-o", "x.nii", "--solver", "cgls", "--json", "--quiet"]) == 0
    text = capsys.readouterr()
    assert "warning: metal was taken out of this measurement: the image lacks it" in text.err
    assert '"corrected": {' in text.out


@pytest.mark.parametrize(
    ("line", "code", "expected"),
    [
        ("-o x.h5", 2, "nothing to correct: give --dead-elements, --rings, --kvp or --metal"),
        ("-o x.nii --rings", 2, "-o x.nii: a measurement file ends in .h5"),
        ("-o x.h5 --rings --metal-threshold 3000", 2, "--metal-threshold: belongs to --metal, which is not given"),
        ("-o x.h5 --rings --filter 3", 2, "--filter: belongs to --kvp"),
        ("-o x.h5 --rings --filled measured", 2, "--filled: belongs to --metal or --dead-elements"),
        ("-o x.h5 --metal foo", 2, "--metal"),
        ("-o x.h5 --kvp 120", 1, "ct.h5: the scan is simulated with one energy"),
        ("-o ct.h5 --rings --overwrite", 1, "is the input itself"),
    ],
)
def test_wrong_usage_is_a_line(
    line: str,
    code: int,
    expected: str,
    plain: Scan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save_scan(plain, Path("ct.h5"))
    assert main(["correct", "ct.h5", *line.split()]) == code
    text = capsys.readouterr()
    assert expected in text.err and text.err.count("\n") == 1 and text.out == ""
    assert [p.name for p in tmp_path.iterdir()] == ["ct.h5"]
