"""A solver that couples slices gets all that are asked for as one stack, or none of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import pytest
import torch

from medrecon.core.measurement import Measurement
from medrecon.core.scan import Scan
from medrecon.core.volume import Volume
from medrecon.operators.base import LinearOperator
from medrecon.pipeline import reconstruct
from medrecon.pipeline.noise_map import noise_map
from medrecon.simulate import simulate_ct
from medrecon.solvers.base import OnStep, Solution, Solver


@pytest.fixture(scope="module")
def scan(disc_volume: Callable[..., Volume]) -> Scan:
    """Twelve slices, more than any batch of those that are not coupled."""
    one = simulate_ct(disc_volume("CT"), views=12, size=16, generator=torch.Generator().manual_seed(0))
    return replace(one, data=one.data.repeat(4, 1, 1))


@dataclass(frozen=True, eq=False)
class Chain(Solver):
    """Every slice an image of how many there are; no stack that starts with 0 counts is done."""

    name: ClassVar[str] = "chain"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("ct",)
    summary: ClassVar[str] = "for tests"
    couples: ClassVar[bool] = True

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        if not bool(y.data.flatten(1).any(1).all()):
            raise ValueError("a slice without data")
        image = torch.full((len(y.data), *A.in_shape), 1e-3 * len(y.data))
        return Solution(image, [1.0], y.chi2(A(image)), True)


def test_a_stack_is_not_split(scan: Scan) -> None:
    whole, report = reconstruct(replace(scan, units="1/mm"), Chain())
    assert whole.data.unique().tolist() == pytest.approx([12e-3]) and report["batch"] == 12
    some, _ = reconstruct(replace(scan, units="1/mm"), Chain(), slices=(2, 7))
    assert some.data.unique().tolist() == pytest.approx([5e-3])
    with pytest.raises(ValueError, match="batch: chain couples"):
        reconstruct(scan, Chain(), batch=4)
    with pytest.raises(ValueError, match="noise_map: slice by slice"):
        noise_map(scan, Chain())


def test_a_stack_that_fails_is_not_solved_slice_by_slice(scan: Scan) -> None:
    data = scan.data.clone()
    data[3] = 0
    with pytest.raises(ValueError, match="a slice without data"):
        reconstruct(replace(scan, data=data), Chain())
