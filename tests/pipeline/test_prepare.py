"""What does not go together is refused before anything is computed; what went wrong is named, and the rest kept."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import pytest
import torch

from medrecon.core.measurement import Measurement
from medrecon.core.scan import Scan
from medrecon.core.volume import Volume
from medrecon.models.exact.gaussian import IdentityAutoencoder, smooth_gaussian
from medrecon.models.prior import Prior
from medrecon.models.values import Linear
from medrecon.operators.base import LinearOperator
from medrecon.pipeline import Request, RequestError, prepare, reconstruct
from medrecon.pipeline.choose import solver_class, suitable
from medrecon.pipeline.log import warn
from medrecon.pipeline.noise_map import noise_map
from medrecon.pipeline.part import Part
from medrecon.simulate import simulate_ct, simulate_mri
from medrecon.solvers.base import OnStep, Solution, Solver
from medrecon.solvers.diffusion.proximal.dds import DDS
from medrecon.solvers.variational.tv import TV

Make = Callable[..., Volume]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def ct(disc_volume: Make) -> Scan:
    return simulate_ct(disc_volume("CT"), views=24, size=32, generator=seeded())


@pytest.fixture(scope="module")
def mri(disc_volume: Make) -> Scan:
    return simulate_mri(disc_volume("MR", 32), accel=2, acs=12, coils=3, generator=seeded())


def prior(modality: str = "CT", units: str = "HU", complex: bool = False, crop: int = 0) -> Prior:
    autoencoder = IdentityAutoencoder(complex=complex)
    card = {"diffusion": {"experts": {"only": {"crop": crop}}}} if crop else {}
    return Prior(
        autoencoder, smooth_gaussian((1, 4, 4)), Linear(-1024.0, 1000.0), units, modality, 20.0, "given", card=card
    )


@pytest.mark.parametrize(
    ("scan", "given", "said"),
    [
        ("mri", prior("CT"), "'given' knows CT images in HU, and the scan is MR; give one of MR, such as 'mri'"),
        ("ct", prior("MR", "a.u."), "knows MR images in a.u., and the scan is CT"),
        ("ct", prior("CT", "1/mm"), "knows images in 1/mm, and those of CT are real and in HU"),
        ("ct", prior("CT", complex=True), "knows complex images"),
    ],
)
@pytest.mark.parametrize("by", ["name", "object"])
def test_a_prior_of_other_images_is_refused(
    scan: str, given: Prior, said: str, by: str, ct: Scan, mri: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medrecon.models.store.load_prior", lambda name, device: given)
    solver: Any = "dds" if by == "name" else DDS(given)
    with pytest.raises(RequestError, match=said):
        reconstruct({"ct": ct, "mri": mri}[scan], solver)
    with pytest.raises(RequestError, match=said):
        prepare({"ct": ct, "mri": mri}[scan], solver, Request())


def test_hu_need_the_attenuation_of_water(ct: Scan) -> None:
    micro = replace(ct, units="1/mm", mu_water=None)
    with pytest.raises(RequestError, match="knows HU, and the scan is in 1/mm without the attenuation of water"):
        prepare(micro, DDS(prior()), Request())
    prepare(replace(micro, mu_water=0.02), DDS(prior()), Request())


def test_images_of_another_size_than_the_priors_are_told(ct: Scan, caplog: pytest.LogCaptureFixture) -> None:
    for crop, told in ((32, False), (16, False), (64, False), (128, True), (8, True)):
        caplog.clear()
        prepare(ct, DDS(prior(crop=crop)), Request())
        assert ("was trained on images of about" in caplog.text) is told


@pytest.mark.parametrize(
    ("solver", "options", "said"),
    [
        ("tv", {"prior": "ct"}, "prior: tv uses no prior"),
        ("tv", {"label": "chest"}, "label: tv uses no prior"),
        ("tv", {"device": "gpu"}, "'gpu' is none of cpu, cuda, cuda:N"),
        ("tv", {"device": "mps"}, "'mps' is none of cpu, cuda, cuda:N"),
        ("tv", {"maps": "espirit"}, "CT has no coils"),
        ("tv", {"slices": (2, 9)}, "slices 2:9 are not within 0:3"),
        ("tv", {"settings": {"strength": "inf"}}, "setting strength: should be a finite number, got 'inf'"),
        ("tv", {"settings": {"iterations": 0}}, "solver 'tv': .*needs"),
        ("tvv", {}, "unknown solver 'tvv'; did you mean tv"),
    ],
)
def test_a_request_that_cannot_be(ct: Scan, solver: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        prepare(ct, solver, Request(**options))
    with pytest.raises(RequestError, match=said):
        reconstruct(ct, solver, **options)
    with pytest.raises(RequestError, match=said):
        noise_map(ct, solver, replicas=2, **options)


def test_a_gpu_that_is_not_there(ct: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RequestError, match="torch finds no GPU here"):
        prepare(ct, "tv", Request(device="cuda"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    prepare(ct, "tv", Request(device="cuda:1"))
    with pytest.raises(RequestError, match="the last GPU here is cuda:1"):
        prepare(ct, "tv", Request(device="cuda:2"))


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_of_none(batch: int) -> None:
    with pytest.raises(RequestError, match="at least 1 slice"):
        Request(batch=batch)


@dataclass(frozen=True)
class Fragile(Solver):
    """FBP that does not stand slices without signal: raises, gives NaN, or runs out of memory."""

    how: str = "raise"
    name: ClassVar[str] = "fragile"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("ct",)
    summary: ClassVar[str] = "for tests"

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        image = A.adjoint(y.data)
        if bool((y.data.flatten(1).abs().sum(1) == 0).any()):
            if self.how == "raise":
                raise RuntimeError("the matrix\nis singular")
            if self.how == "memory":
                raise torch.OutOfMemoryError("CUDA out of memory")
            image = image / y.data.abs().amax((1, 2), keepdim=True)
        return Solution(image, [1.0], torch.ones(len(image)), True)


def without(scan: Scan, *slices: int) -> Scan:
    data = scan.data.clone()
    data[list(slices)] = 0
    return replace(scan, data=data)


@pytest.mark.parametrize("how", ["raise", "nan"])
@pytest.mark.parametrize("batch", [1, 3])
def test_one_bad_slice_costs_the_others_nothing(
    ct: Scan, how: str, batch: int, caplog: pytest.LogCaptureFixture
) -> None:
    whole, _ = reconstruct(ct, Fragile(how), batch=1)
    volume, report = reconstruct(without(ct, 1), Fragile(how), batch=batch)
    assert torch.equal(volume.data[[0, 2]], whole.data[[0, 2]])
    assert bool((volume.data[1] == -1000).all())
    assert list(report["failed"]) == ["1"] and report["converged"] is False
    assert report["chi2_slices"] == [1.0, None, 1.0] and report["chi2"] == 1.0
    assert "slice 1 could not be reconstructed and is empty in the result: " in caplog.text
    fine, report = reconstruct(without(ct, 1), Fragile(how), slices=(2, 3))
    assert torch.equal(fine.data, whole.data[2:]) and "failed" not in report


def test_where_all_slices_are_bad_nothing_is_returned(ct: Scan) -> None:
    with pytest.raises(RuntimeError, match="singular"):
        reconstruct(without(ct, 0, 1, 2), Fragile())
    with pytest.raises(torch.OutOfMemoryError):  # of no single slice's making
        reconstruct(without(ct, 1), Fragile("memory"))


def test_an_empty_mri_slice_costs_the_others_nothing(mri: Scan) -> None:
    mri = replace(mri, maps=None)  # ESPIRiT finds none in an empty slice
    whole, _ = reconstruct(mri, "cg-sense")
    volume, report = reconstruct(without(mri, 1), "cg-sense")
    assert list(report["failed"]) == ["1"] and "espirit" in report["failed"]["1"]
    assert bool((volume.data[1] == 0).all())
    torch.testing.assert_close(volume.data[[0, 2]], whole.data[[0, 2]], rtol=0.02, atol=0.01 * float(whole.data.max()))


def test_what_has_not_converged_says_what_to_raise(ct: Scan, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    _, report = reconstruct(ct, "tv", settings={"iterations": 3}, slices=(0, 1))
    assert report["converged"] is False
    assert "tv has not converged in 3 iterations (chi^2/m " in caplog.text
    assert "raise --settings.iterations" in caplog.text
    caplog.clear()
    noise_map(ct, "tv", replicas=2, settings={"iterations": 3}, slices=(0, 1))
    assert "tv has not converged in 3 iterations (chi^2/m " in caplog.text
    caplog.clear()
    noise_map(ct, "fbp", replicas=2, slices=(0, 1))
    _, report = reconstruct(ct, "fbp", slices=(0, 1))
    assert report["converged"] is True and caplog.text == ""


def test_a_solver_that_ends_early_on_purpose_says_so(caplog: pytest.LogCaptureFixture) -> None:
    class Early(TV):
        early: ClassVar[str] = "few iterations regularise"

    image = torch.zeros(1, 2, 2)
    warn(Part.of(slice(0, 1), image, Solution(image, [1.0], torch.ones(1), False), Counter(), 0.0), Early())
    assert "that is meant, few iterations regularise" in caplog.text and "raise" not in caplog.text


def test_two_solvers_of_one_scan_are_refused(ct: Scan) -> None:
    with pytest.raises(TypeError, match="one solver"):
        reconstruct(ct, "fbp", "cgls")  # type: ignore[call-overload]


def test_solvers_of_single_components_do_cartesian_mri_of_one_coil_alone(ct: Scan, mri: Scan) -> None:
    one = mri.of_coils(torch.arange(3) == 0)
    for name in ("ddrm", "ddnm"):
        assert name in suitable(one) and name not in suitable(ct) + suitable(mri)
        for scan in (ct, mri):
            with pytest.raises(RequestError, match=rf"'{name}' needs a known singular value .* one coil has; these do"):
                prepare(scan, name, Request())
        with pytest.raises(RequestError, match="needs a known singular value"):
            solver_class(name, "mri", noncartesian=True)
        prepare(one, solver_class(name, "mri")(prior("MR", "a.u.")), Request())  # type: ignore[call-arg]
