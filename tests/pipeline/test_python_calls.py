"""Calls from Python with odd arguments: what is reasonable is taken, the rest is refused by the argument's name."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medrecon import formats
from medrecon.core.measurement import Measurement
from medrecon.core.scan import Scan
from medrecon.core.volume import Volume
from medrecon.operators.ct.operator import CTOperator
from medrecon.pipeline import reconstruct
from medrecon.pipeline.noise_map import noise_map
from medrecon.quality.evaluate import evaluate
from medrecon.simulate import simulate_ct, simulate_mri
from medrecon.solvers.variational.cgls import CGLS
from medrecon.solvers.variational.tv import TV

AFFINE = torch.diag(torch.tensor([-2.0, -2.0, 3.0, 1.0], dtype=torch.float64))
HU = torch.full((3, 16, 16), -1000.0)
HU[:, 4:12, 4:12] = 40.0
CT = Volume(HU, AFFINE, "HU", "CT")
MR = Volume(HU + 1000, AFFINE, "a.u.", "MR")


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def ct_scan(**options: Any) -> Scan:
    return simulate_ct(CT, **({"views": 8, "i0": 1e5, "generator": seeded()} | options))


def mr_scan(**options: Any) -> Scan:
    return simulate_mri(MR, **({"accel": 1, "acs": 16, "coils": 2, "generator": seeded(), "matched": True} | options))


SCAN, KSPACE = ct_scan(), mr_scan()
A = CTOperator(SCAN.rays, SCAN.grid)
Y = Measurement(SCAN.data, torch.ones(1, 1, 1))
untyped: Callable[..., Any] = reconstruct

OPTIONS: dict[str, list[Any]] = {
    "slices": [(0,), (0, 1, 2), "0:2", 1.5, (0.0, 2.0), slice(0, 2, 2), range(0, 3, 2), True, -1, (0, 9), (2, 1), 9],
    "device": [0, None, "CPU", "mps", torch.device("meta")],
    "seed": ["a", 1.5, None, 2**70, True, torch.tensor(1)],
    "batch": ["2", 2.0, 0, -1, True],
    "settings": ["a=1", 5, [("a", 1)], {1: 2}],
    "mode": [5, ""],
    "prior": [5, 2j, ""],
    "label": [3, ""],
    "maps": [5, None, torch.ones(3)],
    "on_progress": [None, 5],
}


def calls() -> Iterator[Any]:
    """A call, and what its message names."""

    def case(name: str, call: Callable[[], Any], label: object = "") -> Any:
        return pytest.param(call, name, id=f"{name}-{label}"[:60])

    for name, values in OPTIONS.items():
        for value in values:
            yield case(name, lambda name=name, value=value: untyped(SCAN, "fbp", **{name: value}), repr(value))
    for value in (None, 5, TV, torch.ones(3)):
        yield case("solver", lambda value=value: untyped(SCAN, value), repr(value))
    for value in (None, "scan.h5", CT, SCAN.data, np.ones(3)):
        yield case("Scan", lambda value=value: untyped(value, "fbp"), type(value).__name__)
    yield case("no slices", lambda: untyped(replace(SCAN, data=SCAN.data[:0]), "fbp"))
    for value in (None, SCAN, SCAN.data, SCAN.data.numpy()):
        yield case("Measurement", lambda value=value: untyped(A, value, CGLS()), type(value).__name__)
    yield case("seed", lambda: untyped(A, Y, CGLS(), seed="a"), "operator")
    yield case("seed", lambda: noise_map(SCAN, "fbp", replicas=2, seed="a"), "noise map")  # type: ignore[arg-type]
    for name, field in {
        "data": SCAN.data.numpy(),
        "affine": None,
        "image_shape": 16,
        "mask": KSPACE.mask,
        "maps": KSPACE.maps,
        "mu_water": "0.02",
        "provenance": None,
    }.items():
        yield case(name, lambda name=name, field=field: replace(SCAN, **{name: field}), "Scan")
    yield case("image_shape", lambda: replace(SCAN, image_shape=(16.0, 16.0)), "floats")  # type: ignore[arg-type]
    yield case("mu_water", lambda: replace(KSPACE, mu_water=0.02), "of MRI")
    for name, data, precision in (
        ("data", SCAN.data.numpy(), torch.ones(1)),
        ("data", SCAN.data.half(), torch.ones(1)),
        ("data", SCAN.data.int(), torch.ones(1)),
        ("precision", SCAN.data, 1.0),
        ("precision", SCAN.data, torch.ones(1, device="meta")),
    ):
        yield case(name, lambda data=data, precision=precision: Measurement(data, precision), "Measurement")
    yield case("projection", lambda: Y.chi2(torch.ones(1)))
    yield case("data", lambda: Volume(HU.numpy(), AFFINE, "HU", "CT"), "Volume")  # type: ignore[arg-type]
    yield case("affine", lambda: Volume(HU, AFFINE.numpy(), "HU", "CT"), "Volume")  # type: ignore[arg-type]
    yield case("complex", lambda: Volume(HU + 0j, AFFINE, "HU", "CT"), "of CT")
    yield case("HU", lambda: Volume(HU, AFFINE, "HU", "MR"), "of MR")
    for start, stop in ((-1, 2), (1, 9), (2, 1)):
        yield case("slices", lambda start=start, stop=stop: CT.slices(start, stop), f"{start}:{stop} of a volume")
    for value in (None, HU, HU.numpy(), (CT, {}), "image.nii"):
        yield case("reconstruction", lambda value=value: evaluate(value, CT), type(value).__name__)  # type: ignore[arg-type]
    yield case("no voxels", lambda: evaluate(CT.slices(0, 0), CT.slices(0, 0)))
    for name, value in (
        ("views", "60"),
        ("views", 60.0),
        ("i0", "a"),
        ("generator", None),
        ("generator", 0),
        ("size", "16"),
        ("arc", "a"),
        ("arc", 0.0),
        ("sigma_e", "a"),
    ):
        yield case(name, lambda name=name, value=value: ct_scan(**{name: value}), f"ct {value!r}")
    for name, value in (
        ("accel", "2"),
        ("acs", 8.0),
        ("coils", "a"),
        ("coils", 2.0),
        ("snr_db", "a"),
        ("snr_db", -np.inf),
        ("snr_db", 1e5),
        ("partial_fourier", 1.2),
        ("partial_fourier", np.nan),
        ("phase_encoding", "x"),
        ("phase_encoding", None),
        ("generator", 0),
    ):
        yield case(name, lambda name=name, value=value: mr_scan(**{name: value}), f"mr {value!r}")
    for simulate in (simulate_ct, simulate_mri):
        for value in (None, HU):
            yield case(
                "volume", lambda simulate=simulate, value=value: simulate(value, generator=seeded()), simulate.__name__
            )
    yield case("NaN", lambda: simulate_ct(CT.map(lambda d: d * torch.nan), views=8, i0=1e5, generator=seeded()))
    yield case("no voxels", lambda: simulate_ct(CT.slices(0, 0), views=8, i0=1e5, generator=seeded()), "ct")
    yield case("no voxels", lambda: simulate_mri(MR.slices(0, 0), generator=seeded()), "mr")
    for value in (None, 5, b"image.nii"):
        yield case("path", lambda value=value: formats.read(value), repr(value))  # type: ignore[arg-type]
    for value in (HU, (CT, {}), None):
        yield case("Volume", lambda value=value: formats.write(value, "image.nii.gz"), type(value).__name__)  # type: ignore[arg-type]
    yield case("path", lambda: formats.write(CT, None), "write")  # type: ignore[arg-type]


@pytest.mark.parametrize(("call", "name"), list(calls()))
def test_odd_arguments_are_refused_by_name(call: Callable[[], Any], name: str) -> None:
    with pytest.raises((ValueError, TypeError)) as refused:
        call()
    assert name in str(refused.value)
    traceback = refused.tb
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    assert {"medrecon", "operators"} & set(Path(traceback.tb_frame.f_code.co_filename).parts)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"slices": 1}, 1),
        ({"slices": np.int64(1)}, 1),
        ({"slices": slice(0, 2)}, 2),
        ({"slices": slice(None)}, 3),
        ({"slices": range(1, 3)}, 2),
        ({"slices": [0, 2]}, 2),
        ({"slices": (np.int64(0), np.int64(2))}, 2),
        ({"device": torch.device("cpu"), "seed": np.int64(3), "batch": np.int64(2)}, 3),
    ],
)
def test_what_is_reasonable_is_taken(options: dict[str, Any], count: int) -> None:
    found, report = untyped(SCAN, "fbp", **options)
    whole, _ = reconstruct(SCAN, "fbp")
    first, stop = report["slices"]
    assert stop - first == count == len(found.data)
    assert torch.equal(found.data, whole.data[first:stop])
    assert report["device"] == "cpu" and type(report["seed"]) is int


def test_precision_takes_the_type_of_the_data() -> None:
    for precision in (torch.ones(1, 1, 1).bool(), torch.ones(1, 1, 1, dtype=torch.float64)):
        solution = reconstruct(A, Measurement(SCAN.data, precision), CGLS(iterations=2))
        assert solution.image.dtype == torch.float32
        assert torch.equal(solution.image, reconstruct(A, Y, CGLS(iterations=2)).image)


def test_whole_numbers_are_interpolated_as_numbers() -> None:
    """On another grid a volume of integers scores as the same volume in floating point."""
    shifted = AFFINE.clone()
    shifted[0, 3] += 0.7
    grid = Volume(HU, shifted, "HU", "CT")
    as_int = evaluate(Volume(HU.to(torch.int16), AFFINE, "HU", "CT"), grid)
    assert as_int == evaluate(CT, grid)
