"""Where memory ends a batch is solved in halves, and what cannot be halved says so."""

import logging
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from scans import cone, ct

from medrecon.core.measurement import Measurement
from medrecon.operators.base import LinearOperator
from medrecon.pipeline import reconstruct
from medrecon.solvers.base import Monitor, OnStep, Solution, Solver

SHORT = (
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
)


@dataclass(frozen=True)
class Greedy(Solver):
    """Has memory for `most` items; its image is that of the mean of the data, and it counts the batches it is given."""

    most: int = 2
    error: Any = None

    name: ClassVar[str] = "greedy"
    modalities: ClassVar[Any] = ("ct",)
    summary: ClassVar[str] = "takes memory"
    given: ClassVar[list[int]] = []

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        self.given.append(len(y.data))
        if len(y.data) > self.most:
            raise self.error
        means = y.data.flatten(1).mean(1).reshape(-1, *[1] * len(A.in_shape))
        return Monitor(y, 1, on_step).solution(A, means.expand(-1, *A.in_shape).clone(), True)


@pytest.mark.parametrize("error", SHORT, ids=["cuda", "numpy", "cpu"])
def test_a_batch_without_memory_is_halved(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    Greedy.given.clear()
    with caplog.at_level(logging.WARNING):
        image, report = reconstruct(ct(), Greedy(1, error), batch=4)
    assert Greedy.given == [4, 2, 1, 1, 2, 1, 1] and "failed" not in report
    assert "no memory for 4 slices at once, so in halves; --batch 2 avoids it" in caplog.text
    whole, _ = reconstruct(ct(), Greedy(9))
    assert torch.equal(image.data, whole.data)


@pytest.mark.parametrize("error", SHORT, ids=["cuda", "numpy", "cpu"])
def test_one_slice_without_memory_is_no_empty_slice(error: Exception) -> None:
    """Another run with more memory would do it: nothing is written that looks done."""
    for scan in (ct(), cone()):
        with pytest.raises(type(error)):
            reconstruct(scan, Greedy(0, error))


def test_other_errors_cost_their_slice_only() -> None:
    Greedy.given.clear()
    _, report = reconstruct(ct(), Greedy(1, ValueError("singular")), batch=2)
    assert Greedy.given == [2, 1, 1, 2, 1, 1] and "failed" not in report
