"""reconstruct: phantoms end to end, batches and units that must not show, errors that name what there is."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

import pytest
import torch

from medrecon.core.measurement import Measurement
from medrecon.core.noise import CTNoise, MRINoise
from medrecon.core.scan import Scan
from medrecon.core.units import mu_to_hu
from medrecon.core.volume import Volume
from medrecon.models.exact.gaussian import IdentityAutoencoder, smooth_gaussian
from medrecon.models.prior import Prior
from medrecon.models.values import Linear
from medrecon.operators.algebra import Diagonal
from medrecon.operators.base import LinearOperator
from medrecon.operators.ct.operator import CTOperator
from medrecon.pipeline import Options, Request, describe_solvers, reconstruct, solver_class, solver_classes
from medrecon.pipeline.choose import parse_settings
from medrecon.pipeline.mri_problem import CartesianProblem
from medrecon.quality.evaluate import evaluate
from medrecon.simulate import simulate_ct, simulate_mri
from medrecon.solvers.base import OnStep, Solution, Solver
from medrecon.solvers.mri.cg_sense import CGSense
from medrecon.solvers.variational.tv import TV

Make = Callable[..., Volume]


@pytest.fixture(scope="module")
def ct(disc_volume: Make) -> Scan:
    return simulate_ct(disc_volume("CT"), views=48, size=32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def mri(disc_volume: Make) -> Scan:
    return simulate_mri(disc_volume("MR"), accel=2, acs=16, coils=4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("solver", ["fbp", "tv"])
def test_ct_comes_back_in_hu_on_its_affine(ct: Scan, disc_volume: Make, solver: str) -> None:
    volume, report = reconstruct(ct, solver)
    assert (volume.units, volume.modality, tuple(volume.data.shape)) == ("HU", "CT", (3, 32, 32))
    assert torch.equal(volume.affine, ct.affine)
    assert evaluate(volume, disc_volume("CT"))["psnr_db"] > 26
    assert float(volume.data[:, 14:18, 14:18].median()) == pytest.approx(0, abs=30)
    assert len(report["chi2_slices"]) == 3
    assert report["inverse_crime"] is False


@pytest.mark.parametrize("solver", ["cg-sense", "zero-filled"])
def test_mri_comes_back_in_its_own_units(mri: Scan, disc_volume: Make, solver: str) -> None:
    volume, report = reconstruct(mri, solver)
    assert (volume.units, volume.modality) == ("a.u.", "MR")
    assert evaluate(volume, disc_volume("MR"))["psnr_db"] > 25
    assert 300 < report["intensity_scale"] < 600
    assert report["operator_calls_per_slice"]["forward"] >= 1


def test_the_intensity_scale_is_undone(mri: Scan) -> None:
    louder = replace(mri, data=mri.data * 1e3, noise=MRINoise(mri.noise.covariance * 1e3))
    one, _ = reconstruct(mri, "cg-sense", slices=(0, 1))
    loud, _ = reconstruct(louder, "cg-sense", slices=(0, 1))
    torch.testing.assert_close(loud.data, one.data * 1e3, rtol=1e-3, atol=1.0)


def test_batches_and_chosen_slices_do_not_show(ct: Scan, mri: Scan) -> None:
    for scan, solver, settings in ((ct, "fbp", {}), (ct, "tv", {"iterations": 5}), (mri, "cg-sense", {})):
        whole, _ = reconstruct(scan, solver, batch=3, settings=settings)
        single, _ = reconstruct(scan, solver, batch=1, settings=settings)
        last, _ = reconstruct(scan, solver, slices=(1, 3), settings=settings)
        assert torch.equal(whole.data, single.data) and torch.equal(last.data, whole.data[1:])
        torch.testing.assert_close(last.affine, whole.slices(1, 3).affine)


@dataclass(frozen=True, eq=False)
class Probe(Solver):
    """A learned solver that returns FBP through the prior's units and back, plus one shared random draw."""

    prior: Prior
    strength: float = 0.0
    name: ClassVar[str] = "probe"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("ct",)
    summary: ClassVar[str] = "for tests"
    needs_prior: ClassVar[bool] = True

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        assert isinstance(A, CTOperator)
        z = self.prior.encode(A.fbp(y.data))
        z = z + self.strength * torch.randn((1, *z.shape[1:]), generator=generator)
        image = self.prior.decode(z, A.in_shape)
        return Solution(image, [1.0], y.chi2(A(image)), True, {"network_calls": {"encoder": 1}})


def test_learned_solvers_get_the_prior_in_the_operators_units(ct: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(name: str, device: str) -> Prior:
        asked.append(name)
        denoiser = smooth_gaussian((1, 4, 4))
        return Prior(IdentityAutoencoder(), denoiser, Linear(-1024.0, 1000.0), "HU", "CT", error=20.0)

    monkeypatch.setattr("medrecon.models.store.load_prior", load)
    monkeypatch.setattr("medrecon.pipeline.choose.solver_classes", lambda: {"probe": Probe})
    through, report = reconstruct(ct, "probe")
    A = CTOperator(ct.rays, ct.grid)
    assert asked == ["ct"]
    assert report["network_calls_per_slice"] == {"encoder": 1}
    torch.testing.assert_close(through.data, mu_to_hu(A.fbp(ct.data)), rtol=1e-3, atol=1.0)


def test_random_draws_depend_on_the_seed_alone(ct: Scan) -> None:
    denoiser = smooth_gaussian((1, 4, 4))
    prior = Prior(IdentityAutoencoder(), denoiser, Linear(-1024.0, 1000.0), "HU", "CT", error=20.0)
    probe = Probe(prior, strength=0.1)

    def run(seed: int, batch: int, slices: tuple[int, int]) -> torch.Tensor:
        volume, _ = reconstruct(ct, probe, seed=seed, batch=batch, slices=slices)
        return volume.data

    whole = run(3, 3, (0, 3))
    torch.testing.assert_close(run(3, 1, (1, 3)), whole[1:], rtol=1e-3, atol=1.0)
    assert float((run(4, 3, (0, 3)) - whole).abs().mean()) > 10


def test_a_solver_object_gives_what_its_name_gives(ct: Scan) -> None:
    """And its own fields stand in the report; options that would change it, or that it cannot serve, are refused."""
    named, said = reconstruct(ct, "tv", settings={"iterations": "7"}, slices=(0, 2))
    given, told = reconstruct(ct, TV(iterations=7), slices=(0, 2))
    assert torch.equal(named.data, given.data)
    differ = {key for key in told if told[key] != said[key]}
    assert told.keys() == said.keys() and differ <= {"seconds"}
    for options in ({"settings": {"iterations": 3}}, {"mode": "fast"}, {"prior": "ct"}, {"label": "chest"}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}: for a solver by name"):
            reconstruct(ct, TV(), **options)
    with pytest.raises(ValueError, match=r"'cg-sense' does not do ct; these do: .*tv"):
        reconstruct(ct, CGSense())


def test_an_operator_and_its_data() -> None:
    A = Diagonal(torch.tensor([1.0, 2.0, 4.0]).expand(3, 3))
    y = Measurement(A(torch.ones(2, 3, 3)), torch.ones(1, 3, 3) * 1e6)
    calls: list[tuple[float, int]] = []
    solution = reconstruct(A, y, TV(iterations=40), seed=3, on_progress=lambda *c: calls.append(c))
    alone = TV(iterations=40)(A, y, generator=torch.Generator().manual_seed(3))
    assert torch.equal(solution.image, alone.image) and calls == sorted(calls) and calls[0][1] == 2
    refused: Any = reconstruct
    with pytest.raises(ValueError, match="device, maps: for a scan"):
        refused(A, y, TV(), maps="walsh", device="cuda")
    with pytest.raises(TypeError, match="give a solver object"):
        refused(A, y, "tv")
    with pytest.raises(ValueError, match="does not fit its operator"):
        reconstruct(A, Measurement(y.data[..., :2], y.precision[..., :2]), TV())
    with pytest.raises(TypeError, match="sead"):
        refused(A, y, TV(), sead=3)


def test_keywords_and_request_are_the_same() -> None:
    assert list(Options.__annotations__) == [f.name for f in fields(Request)]


def test_progress_ends_at_the_end(ct: Scan) -> None:
    calls: list[tuple[float, int]] = []
    options = {"slices": (1, 3), "batch": 1, "settings": {"iterations": 5}}
    reconstruct(ct, "tv", **options, on_progress=lambda d, t: calls.append((d, t)))
    done = [d for d, _ in calls]
    assert done == sorted(done)
    assert calls[-1] == (2, 2)
    assert any(0 < d < 1 for d in done)


def test_errors_name_what_there_is(ct: Scan) -> None:
    with pytest.raises(ValueError, match="did you mean fbp"):
        reconstruct(ct, "fpb")
    with pytest.raises(ValueError, match=r"these do: .*tv"):
        reconstruct(ct, "cg-sense")
    with pytest.raises(ValueError, match="did you mean iterations"):
        reconstruct(ct, "tv", settings={"iteration": 3})
    with pytest.raises(ValueError, match="no setting 'mode'"):
        reconstruct(ct, "fbp", mode="fast")
    with pytest.raises(ValueError, match="slices 2:4"):
        reconstruct(ct, "fbp", slices=(2, 4))


def test_settings_are_converted() -> None:
    cls = solver_class("resample", "ct")
    parsed = parse_settings(cls, {"steps": "7", "eta": "0.5", "polish": "false", "sampler": "heun", "start": "0.3"})
    assert parsed == {"steps": 7, "eta": 0.5, "polish": False, "sampler": "heun", "start": 0.3}
    with pytest.raises(ValueError, match="did you mean steps"):
        parse_settings(cls, {"step": "12"})
    with pytest.raises(ValueError, match="no setting 'prior'"):
        parse_settings(cls, {"prior": "x"})


def test_modes_are_spellings_of_solvers() -> None:
    """What a mode did not look at it still does not: settings of the other forms are let pass, but not unknown ones."""
    assert solver_class("resample", "ct").name == solver_class("resample", "ct", {"mode": "fast"}).name == "resample"
    given = {"mode": "paper", "original.steps": "40", "original.pixel_lr": "0.5", "start": "0.3", "steps": "5"}
    cls = solver_class("resample", "mri", given)
    assert cls.name == "resample-paper" and parse_settings(cls, given) == {"steps": 40, "pixel_lr": 0.5}
    assert parse_settings(cls, {"steps": "40", "original.skip": 4}) == {"steps": 40, "skip": 4}
    reference = solver_class("resample", "ct", {"mode": "reference", "original.guidance": "0.1"})
    assert reference.name == "resample-reference"
    fast = {"steps": 7, "original.steps": 12}
    assert parse_settings(solver_class("resample", "ct", fast), fast) == {"steps": 7}
    for settings, complaint in (
        ({"mode": "papers"}, "did you mean paper"),
        ({"original.step": "12"}, "did you mean steps"),
        ({"mode": "paper", "strength": 1}, "no setting 'strength'"),
        ({"mode": "fast", "step": 1}, "did you mean steps"),
    ):
        with pytest.raises(ValueError, match=complaint):
            solver_class("resample", "ct", settings)
    with pytest.raises(ValueError, match="no setting 'start'"):
        solver_class("resample-paper", "ct", {"start": 0.3})


def test_every_solver_is_described() -> None:
    rows = describe_solvers()
    assert {"fbp", "tv", "zero-filled", "cg-sense", "l1-wavelet", "dds", "resample"} <= {row["name"] for row in rows}
    assert len(rows) == len(solver_classes())
    assert all(set(row["modalities"]) <= {"ct", "mri"} and row["summary"] for row in rows)


def test_correlated_coils_are_whitened(mri: Scan) -> None:
    g = torch.Generator().manual_seed(1)
    mixing = torch.randn(4, 4, dtype=torch.complex64, generator=g) * 0.3 + 2 * torch.eye(4)
    noise = MRINoise(mixing @ mixing.mH)
    noisy = noise.simulate(torch.zeros(1, 4, 64, 64, dtype=torch.complex64), torch.ones(64, 64), g)
    signal = mri.data[:1] * 1e4  # far above the noise, so that the scale is well defined
    scan = replace(mri, data=signal, maps=mri.maps[:1], noise=MRINoise(mixing @ mixing.mH))
    problem = CartesianProblem(scan, "cpu")
    y = replace(scan, data=torch.where(mri.mask, noisy, 0))
    problem.scan = y
    measured = problem.measurement(slice(0, 1))
    assert float(measured.chi2(torch.zeros_like(measured.data))) == pytest.approx(1, abs=0.05)


def test_unknown_noise_is_estimated(ct: Scan, mri: Scan) -> None:
    g = torch.Generator().manual_seed(2)
    smooth = torch.linspace(0, 3, 200).square().expand(1, 30, 200)
    noisy = smooth + 0.1 * torch.randn(smooth.shape, generator=g)
    precision = CTNoise(model_absolute=0.0, model_relative=0.0).precision(noisy)
    assert float(precision.mean().rsqrt()) == pytest.approx(0.1, rel=0.05)
    bare = replace(mri, noise=None, maps=None, mask=None)
    assert 0.7 < CartesianProblem(bare, "cpu").sigma / mri.noise.covariance < 2.5
    volume, report = reconstruct(bare, "zero-filled", slices=(0, 1))
    assert report["noise_model"] == "estimated from the data"
    assert report["coil_maps"] == "espirit"
    assert bool(volume.data.isfinite().all())
