"""Diagnostics against exact Gaussians, and against priors with a planted fault that each must find."""

import json
import math
from dataclasses import dataclass, replace

import pytest
import torch

from medrecon.diagnose.base import Case, Settings
from medrecon.diagnose.findings import (
    conservativity,
    denoising,
    dimension,
    latents,
    likelihood,
    memorisation,
    round_trip,
)
from medrecon.diagnose.findings import samples as sampling
from medrecon.diagnose.radial import radial_power
from medrecon.diagnose.run import diagnose, diagnostics, header, markdown
from medrecon.diagnose.sources import load_case
from medrecon.diagnose.stationary import Stationary, fitted
from medrecon.diagnose.two_sample import told_apart
from medrecon.diffusion.derivatives import jvp, vjp
from medrecon.models.autoencoder import Autoencoder
from medrecon.models.denoiser import Denoiser
from medrecon.models.exact.gaussian import GaussianPrior, IdentityAutoencoder, smooth_gaussian
from medrecon.models.exact.wiener import Wiener
from medrecon.models.networks.wiener_unet import ExpertConfig, WienerUNet
from medrecon.models.prior import Prior
from medrecon.models.values import Linear
from medrecon.training.images.slices import Slices

SIDE = 8
N = SIDE**2
pytestmark = pytest.mark.usefixtures("one_thread")


def silent(*_):
    pass


def draw(denoiser, count, seed, name):
    """Slices of subjects of two, drawn from a Gaussian; stored in thousandths."""
    x = denoiser.sample(count, torch.Generator().manual_seed(seed))[:, 0]
    return Slices((x * 1000).round().to(torch.int16), tuple(f"{name}{i // 2}" for i in range(count)), 1e-3)


def case_of(denoiser, truth=None, *, held=64, training=0, **settings):
    """A pixel-space case: slices drawn from `truth`, judged by `denoiser`."""
    truth = truth or denoiser
    prior = Prior(IdentityAutoencoder(), denoiser, Linear(-1.0, 1.0), "a.u.", "MR", 0.0)
    known = draw(truth, training, 2, "t") if training else None
    return Case(prior, draw(truth, held, 1, "v"), known, Settings(**{"few": held, **settings}))


def stationary_gaussian():
    """A Gaussian of which both the dense covariance and the stationary form are exact."""
    f = torch.fft.fftfreq(SIDE, dtype=torch.float64)
    power = 4 * torch.exp(-30 * (f[:, None].square() + f.square())) + 0.05
    basis = torch.fft.fft2(torch.eye(N, dtype=torch.float64).view(N, SIDE, SIDE), norm="ortho").flatten(1)
    covariance = (basis.conj() * power.flatten() @ basis.T).real
    return GaussianPrior(torch.full((N,), 0.3, dtype=torch.float64), covariance, (1, SIDE, SIDE))


@dataclass(frozen=True)
class Turned(Denoiser):
    """A denoiser plus `amount` times an antisymmetric map: what no density has."""

    base: GaussianPrior
    amount: float
    sigma_min: float = 1e-3
    sigma_max: float = 100.0

    def __call__(self, z, sigma):
        return self.base(z, sigma) + self.amount * (z.roll(1, -1) - z.roll(-1, -1))


def run(module, case):
    return module.run(case, case.settings.generator(), silent).values


def at(values, sigma):
    return next(row for row in values["levels"] if row["sigma"] == sigma)


def test_a_gaussian_is_conservative():
    levels = run(conservativity, case_of(smooth_gaussian((1, SIDE, SIDE)), held=8))["levels"]
    assert max(row["asymmetry"] for row in levels) < 1e-5
    assert max(row["loop"] for row in levels) < 1e-4


def test_a_planted_rotation_is_not_and_has_its_true_size():
    base = stationary_gaussian()
    turned = Turned(base, 0.1)
    values = run(conservativity, case_of(turned, base, held=64))
    for sigma in (0.25, 4.0):
        gain = base.vectors * (base.values / (base.values + sigma**2)) @ base.vectors.T
        shift = torch.eye(N).view(N, 1, SIDE, SIDE)
        skew = 0.1 * (shift.roll(1, -1) - shift.roll(-1, -1)).view(N, N).T.double()
        exact = float((2 * skew).norm() / (gain + skew).norm())
        assert at(values, sigma)["asymmetry"] == pytest.approx(exact, rel=0.05)
        assert at(values, sigma)["loop"] > 0.02


def test_products_with_the_jacobian_are_each_others_transpose(generator):
    turned = Turned(stationary_gaussian(), 0.2)
    z, u, v = torch.randn(3, 2, 1, SIDE, SIDE, generator=generator)
    left = (u * jvp(turned, z, 0.5, v)).sum()
    assert float(left) == pytest.approx(float((vjp(turned, z, 0.5, u)[1] * v).sum()), rel=1e-4)


@pytest.mark.parametrize("rank", [5, 20])
def test_dimension_of_a_planted_subspace(rank):
    basis = torch.linalg.qr(torch.randn(N, N, dtype=torch.float64, generator=torch.Generator().manual_seed(rank))).Q
    plane = basis[:, :rank] @ basis[:, :rank].T
    values = run(dimension, case_of(GaussianPrior(torch.zeros(N, dtype=torch.float64), plane, (1, SIDE, SIDE))))
    assert values["ambient"] == N
    assert at(values, 0.02)["trace"] == pytest.approx(rank, abs=2.5)
    assert at(values, 0.02)["flipd"] == pytest.approx(rank, abs=2.5)


def log_normal(gaussian, z, sigma):
    covariance = gaussian.covariance + sigma**2 * torch.eye(len(gaussian.mean), dtype=torch.float64)
    law = torch.distributions.MultivariateNormal(gaussian.mean, covariance)
    return law.log_prob(z.double().flatten(1))


def test_likelihood_by_ode_is_the_closed_form(generator):
    """A diagonal Jacobian makes the probed trace exact: what is left is the second-order error of Heun's steps."""
    spread = torch.linspace(0.2, 2.0, N, dtype=torch.float64)
    gaussian = GaussianPrior(torch.zeros(N, dtype=torch.float64), torch.diag(spread), (1, SIDE, SIDE), 0.05, 100.0)
    z = gaussian.sample(4, generator)
    exact = log_normal(gaussian, z, 0.05)
    errors = [likelihood.log_density(gaussian, z, n, torch.ones_like(z)) - exact for n in (40, 80)]
    assert float(errors[1].abs().max()) / N < 5e-3
    assert 2.5 < float(errors[0].abs().mean() / errors[1].abs().mean()) < 6


def test_likelihood_of_correlated_latents_and_of_a_wrong_prior():
    gaussian = replace(stationary_gaussian(), sigma_min=0.05)
    right = run(likelihood, case_of(gaussian, held=32, training=400, steps=40))["bits_per_dimension"]
    z = case_of(gaussian, held=32).latents
    exact = -float(log_normal(gaussian, z, 0.05).mean()) / (N * math.log(2))
    assert right["prior"] == pytest.approx(exact, abs=0.06)  # the probe's noise, and that of sigma_min
    assert right["gaussian"] == pytest.approx(exact, abs=0.06)
    assert right["gaussian_by_ode"] == pytest.approx(right["gaussian"], abs=0.04)
    wrong = GaussianPrior(gaussian.mean, 4 * gaussian.covariance, gaussian.shape, 0.05)
    assert run(likelihood, case_of(wrong, gaussian, held=32, steps=40))["bits_per_dimension"]["prior"] > exact + 0.3


def test_density_of_the_stationary_gaussian_is_that_of_its_dense_covariance(generator):
    """The covariance found from the denoiser's Jacobian: J = C (C + s^2)^-1, so C = s^2 J (1 - J)^-1."""
    wiener = Wiener(2, 4)
    wiener.fit(torch.randn(300, 2, 4, 4, generator=generator).cumsum(1).roll(1, -1) + 0.2)
    gaussian = Stationary(wiener, 0.01, 80.0)
    z = torch.randn(3, 2, 4, 4, generator=generator)
    one = torch.tensor(1.0)
    jacobian = torch.func.jacrev(lambda x: gaussian(x.view(1, 2, 4, 4), one).flatten())(torch.zeros(32)).double()
    covariance = jacobian @ torch.linalg.inv(torch.eye(32) - jacobian)
    mean = wiener.mean.expand(2, 4, 4).flatten().double()
    dense = GaussianPrior(mean, (covariance + covariance.T) / 2, (2, 4, 4))
    assert torch.allclose(gaussian.log_density(z, 0.3), log_normal(dense, z, 0.3), rtol=1e-4, atol=1e-2)


def test_an_exact_denoiser_is_at_the_gaussians_error_and_calibrated():
    gaussian = stationary_gaussian()
    for row in run(denoising, case_of(gaussian, held=128, training=1500))["levels"]:
        assert row["ratio"] == pytest.approx(1.0, abs=0.04)
        assert 0.7 < row["mixture_ratio"] < 1.02  # 16 components fitted to 512 slices of one kind
        assert row["calibration"] == pytest.approx(1.0, abs=0.12)
    turned = run(denoising, case_of(Turned(gaussian, 0.1), gaussian, held=32, training=400))
    assert at(turned, 1.0)["ratio"] > 1.05 and at(turned, 1.0)["calibration"] > 1.05


def test_a_denoiser_that_brings_its_gaussian_needs_no_training_slices():
    case = case_of(smooth_gaussian((1, SIDE, SIDE)), held=4)
    assert fitted(case) is None
    assert at(run(denoising, case), 1.0)["ratio"] is None
    own = WienerUNet({"all": ExpertConfig(channels=(16,))}, 0.01, 1, SIDE)
    found = fitted(replace(case, prior=replace(case.prior, denoiser=own)))
    assert found is not None and found[0].wiener is own.wiener


def test_memorised_slices_are_flagged_and_new_ones_are_not():
    case = case_of(smooth_gaussian((1, SIDE, SIDE), 1.0), held=200, training=100, samples=8)
    fresh = case.prior.denoiser.sample(8, torch.Generator().manual_seed(9))
    case.__dict__["samples"] = fresh
    assert len(run(memorisation, case)["flagged"]) <= 1
    copies = case.training.values(torch.arange(3))[:, None]
    case.__dict__["samples"] = torch.cat([torch.rot90(copies.flip(-1), 1, (-2, -1)) * 1.1 + 0.02, fresh[3:]])
    values = run(memorisation, case)
    assert set(values["flagged"]) >= {0, 1, 2}
    assert values["neighbours"][:3] == [0, 1, 2]


def test_samples_of_an_exact_prior_look_like_its_data_and_those_of_a_wrong_one_do_not():
    gaussian = smooth_gaussian((1, SIDE, SIDE))
    right = run(sampling, case_of(gaussian, held=256, training=256, samples=128))
    wide = GaussianPrior(gaussian.mean, 4 * gaussian.covariance, gaussian.shape)
    wrong = run(sampling, case_of(wide, gaussian, held=256, samples=128))
    assert right["std"] == pytest.approx(right["real_std"], rel=0.2)  # of 128 smooth images, few of them independent
    assert wrong["std"] > 1.5 * wrong["real_std"]
    assert right["histogram_distance"] < 0.12 < 0.4 < wrong["histogram_distance"]
    assert max(abs(math.log(v)) for v in right["spectrum_ratio"][:3]) < 0.5 < math.log(wrong["spectrum_ratio"][0])
    assert "control_histogram_distance" in right and "control_histogram_distance" not in wrong
    assert set(right["told_apart"]) == {"samples from held-out", "samples from training", "training from held-out"}
    for found in right["told_apart"].values():
        assert found["accuracy"] == pytest.approx(0.5, abs=4 * found["standard_error"])
    assert wrong["told_apart"]["samples from held-out"]["accuracy"] > 0.85


@pytest.mark.parametrize("count", [16, 64])
def test_only_what_differs_is_told_apart_and_the_standard_error_holds(count):
    """Gaussians of another mean, width or smoothness, at the default number of samples; sets turned alike are alike."""
    base = smooth_gaussian((1, 24, 24))
    g = torch.Generator().manual_seed(3)

    def accuracies(other, turn=0):
        return [
            told_apart(torch.rot90(other.sample(count, g)[:, 0], turn, (1, 2)), base.sample(count, g)[:, 0])
            for _ in range(8)
        ]

    def mean(found):
        return sum(f.value for f in found) / len(found)

    level = replace(base, mean=torch.zeros(24 * 24, dtype=torch.float64))
    same = accuracies(base)
    assert mean(same) == pytest.approx(0.5, abs=0.06)
    assert max(abs(f.value - 0.5) for f in same) < 4 * same[0].error
    assert mean(accuracies(replace(level, covariance=4 * base.covariance))) > 0.95
    assert mean(accuracies(replace(base, mean=base.mean + 0.7))) > 0.9
    assert mean(accuracies(smooth_gaussian((1, 24, 24), 0.5))) > (0.75 if count == 64 else 0.53)
    assert mean(accuracies(base, turn=1)) < 0.6
    assert told_apart(torch.zeros(7, 8, 8), torch.zeros(64, 8, 8)) is None


@dataclass(frozen=True)
class Brighter(Autoencoder):
    """Pixels as latents, and a decoder that adds `offset`."""

    offset: float
    factor: int = 1
    complex: bool = False

    def encode(self, u):
        return u[:, None]

    def decode(self, z):
        return z[:, 0] + self.offset


def ct_case(offset):
    g = torch.Generator().manual_seed(0)
    data = (50 + 20 * torch.randn(3, 32, 32, generator=g)).round()
    data[:, :, :10] = -1000
    data[2] = -800
    prior = Prior(Brighter(offset), smooth_gaussian((1, 32, 32)), Linear(-1.0, 1.0), "HU", "CT", 1.0)
    prior = replace(prior, values=replace(Linear(-1.0, 1.0), low=-1024.0, high=3071.0))
    return Case(prior, Slices(data.to(torch.int16), ("a", "a", "b")), None)


def test_a_biased_decoder_is_found_per_tissue_and_subject():
    offset = 5 * 2 / 4095  # 5 HU in the network's range
    values = run(round_trip, ct_case(offset))
    assert values["bias_hu"]["organs"]["bias"] == pytest.approx(5, abs=0.01)
    assert values["bias_hu"]["bone"]["pixels"] == 0
    assert values["subjects"]["a"]["soft_bias_hu"] == pytest.approx(5, abs=0.01)
    assert values["mean_over_subjects"]["psnr_full"] == pytest.approx(20 * math.log10(4095 / 5), abs=0.01)
    assert values["worst_slices"][0]["psnr"] <= values["worst_slices"][-1]["psnr"]
    assert set(values["worst_slices"][0]) == {"slice", "of_subject", "subject", "psnr", "psnr_soft"}
    assert abs(run(round_trip, ct_case(0.0))["bias_hu"]["organs"]["bias"]) < 0.01


@dataclass(frozen=True)
class Spoilt(Brighter):
    """Adds 20 times the offset to images brighter than 0 on average."""

    def decode(self, z):
        u = z[:, 0]
        return u + self.offset * (1 + 19 * (u.mean((1, 2), keepdim=True) > 0))


def test_the_table_names_the_worst_slice_of_every_subject():
    """Interleaved subjects; slice 3 of b is the one that the decoder spoils."""
    data = -900 + 5 * torch.randn(10, 16, 16, generator=torch.Generator().manual_seed(0))
    data[7] += 2500
    prior = Prior(Spoilt(1e-3), smooth_gaussian((1, 16, 16)), Linear(-1024.0, 3071.0), "HU", "CT", 1.0)
    case = Case(prior, Slices(data.round().to(torch.int16), ("a", "b") * 5), None, Settings(slices=5))
    finding = round_trip.run(case, case.settings.generator(), silent)
    worst = finding.values["worst_slices"][0]
    assert (worst["slice"], worst["of_subject"], worst["subject"]) == (7, 3, "b")
    rows, shown = finding.details.values()
    assert [row[:2] for row in rows[1:]] == [("b", "5"), ("a", "5")]
    assert rows[1][-2] == "3" and float(rows[1][-1]) == pytest.approx(worst["psnr"], abs=0.01)
    assert shown[1][:3] == ("1", "b", "3") and len(shown) == 1 + round_trip.WORST
    text = markdown({**header(case), "diagnostics": {}}, {"round_trip": finding})
    assert f"| {' | '.join(rows[1])} |" in text and "## Round trip by subject" in text


def test_magnitudes_are_measured_against_their_own_subjects_range():
    """Two scans of arbitrary units, the second ten times the first, through a decoder that adds 0.01."""
    x = torch.rand(4, 16, 16, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 1, 10, 10]).view(4, 1, 1)
    prior = Prior(Brighter(0.01), smooth_gaussian((1, 16, 16)), Linear(-1.0, 1.0), "a.u.", "MR", 0.0)
    values = run(round_trip, Case(prior, Slices((x * 1000).round().to(torch.int16), ("a", "a", "b", "b"), 1e-3), None))
    assert values["subjects"]["a"]["psnr_full"] == pytest.approx(40, abs=0.1)
    assert values["subjects"]["b"]["psnr_full"] == pytest.approx(60, abs=0.1)


def test_latents_report_what_was_planted(generator):
    gaussian = smooth_gaussian((1, SIDE, SIDE))
    case = case_of(gaussian, held=4)
    z = torch.randn(400, 2, SIDE, SIDE, generator=generator)
    z[:, 1] = 0.8 * z[:, 0] + 0.6 * z[:, 1]
    z[3, 0, 0, 0] = 50.0
    case.__dict__.update(latents=z, index=list(range(400)))
    values = run(latents, case)
    assert values["largest_cross_correlation"] == pytest.approx(0.8, abs=0.06)
    assert values["largest_slice"] == 3 and values["largest_deviation"] > 40 and values["share_beyond_6"] > 0
    assert values["excess_kurtosis"][0] > 1 > abs(values["excess_kurtosis"][1])


def test_white_noise_has_a_flat_spectrum(generator):
    power = radial_power(torch.randn(200, 32, 32, generator=generator), 4)
    assert torch.allclose(power, torch.ones(4, dtype=torch.float64), atol=0.03)


def test_report_is_whole_repeatable_and_refuses_to_overwrite(tmp_path):
    make = lambda: case_of(smooth_gaussian((1, SIDE, SIDE)), held=4, training=8, samples=4, steps=4)  # noqa: E731
    report = diagnose(make(), tmp_path / "out")
    names = {p.name for p in (tmp_path / "out").iterdir()}
    pictures = {f"diagnose_{name}.png" for name in ("samples", "held_out_data", "round_trip_worst", "memorisation")}
    assert names == {"diagnose.json", "diagnose.md", *pictures}
    assert json.loads((tmp_path / "out" / "diagnose.json").read_text()) == report
    assert set(report["diagnostics"]) == set(diagnostics())
    text = (tmp_path / "out" / "diagnose.md").read_text()
    assert all(f"| {name} |" in text for name in diagnostics())
    with pytest.raises(FileExistsError):
        diagnose(make(), tmp_path / "out")
    alone = diagnose(make(), tmp_path / "out", ["likelihood"], overwrite=True)
    both = [r["diagnostics"]["likelihood"]["bits_per_dimension"] for r in (report, alone)]
    assert both[0] == both[1]
    assert not (tmp_path / "out" / "diagnose_samples.png").exists()
    with pytest.raises(ValueError, match="round_trip"):
        diagnose(make(), tmp_path / "other", ["nothing"])
    assert not (tmp_path / "other").exists()


def test_command_line_on_a_folder_of_scans(tmp_path, disc_volume, capsys):
    from medrecon import formats
    from medrecon.cli import main

    (tmp_path / "scans").mkdir()
    formats.write(disc_volume("CT"), tmp_path / "scans" / "a.nii.gz")
    options = {
        "--data": str(tmp_path / "scans"),
        "-o": str(tmp_path / "out"),
        "--size": "32",
        "--slices": "2",
        "--few": "1",
        "--samples": "1",
        "--steps": "2",
    }

    def call(*more, **changed):
        given = options | {f"--{k}": v for k, v in changed.items()}
        return main(["diagnose", "ct", *(word for pair in given.items() for word in pair), "--quiet", *more])

    assert call("--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["diagnostics"]["memorisation"]["skipped"] == "no training slices"
    assert at(report["diagnostics"]["denoising"], 1)["ratio"] > 0
    assert call("--overwrite", only="samples", guidance="1.5") == 0
    assert "guided by 1.5: not draws of the prior" in capsys.readouterr().out
    assert call() == 1 and "--overwrite" in capsys.readouterr().err
    for change, code, words in (
        ({"only": "nothing"}, 2, "round_trip"),
        ({"size": "30"}, 1, "multiple of 4"),
        ({"samples": "0"}, 2, "--samples: should be"),
        ({"churn": "0.5"}, 2, "--churn: should be"),
        ({"guidance": "0"}, 2, "--guidance: should be"),
        ({"data": str(tmp_path / "none")}, 1, "no such"),
    ):
        assert call("--overwrite", **change) == code
        assert words in capsys.readouterr().err


def test_sheets_without_a_manifest_and_another_modality_are_refused(tmp_path):
    from medrecon.models.store import load_prior

    (tmp_path / "index.tsv").write_text("sheet\tframe\tsource\tsubject\n")
    prior = load_prior("mri")
    with pytest.raises(ValueError, match=r"manifest \(.toml\)"):
        load_case(prior, tmp_path, 64, Settings(), "cpu")
    (tmp_path / "m.toml").write_text(
        'name = "x"\nmodality = "CT"\nunits = "HU"\ncontent = "x"\nlicence = "x"\nlicence_checked = "x"\n'
        'kind = "sheets"\nval = "val"\n'
    )
    with pytest.raises(ValueError, match="is for MR"):
        load_case(prior, tmp_path / "m.toml", 64, Settings(), "cpu")


def test_a_folder_of_dicom_at_its_native_size(tmp_path):
    """Two series of one subject count, in order along their normal; loose and damaged files are named."""
    from dicom_maker import make_series, values

    make_series(tmp_path / "one" / "thin", 5, (32, 32))
    make_series(tmp_path / "one" / "thick", 3, (32, 32))
    make_series(tmp_path / "two", 4, (16, 16))
    prior = ct_case(0.0).prior
    case = load_case(prior, tmp_path, 32, Settings(slices=3), "cpu")
    assert sorted(case.held_out.subjects) == ["one"] * 8 + ["two"] * 4
    first = case.held_out.data[[s == "one" for s in case.held_out.subjects]]
    assert any(torch.equal(first[i : i + 5].long(), torch.from_numpy(values(5, (32, 32)))) for i in (0, 3))
    assert set(run(round_trip, case)["subjects"]) == {"one", "two"}
    (tmp_path / "two" / "im000.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"broken")
    with pytest.raises(ValueError, match="take them out"):
        load_case(prior, tmp_path, 32, Settings(), "cpu")
    with pytest.raises(ValueError, match="sub-folder"):
        load_case(prior, tmp_path / "one" / "thin", 32, Settings(), "cpu")
