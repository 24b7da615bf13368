"""A dry run tells what a run takes: a batch solved or begun here, and its pace carried on."""

import time
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from scans import ct

import medrecon.runs.estimate as module
from medrecon.core.measurement import Measurement
from medrecon.core.scan import Scan
from medrecon.operators.base import LinearOperator
from medrecon.pipeline.job import Job
from medrecon.pipeline.request import Request
from medrecon.pipeline.solve import solve
from medrecon.runs.estimate import Pace, estimate
from medrecon.runs.task import Work
from medrecon.solvers.base import Monitor, OnStep, Progress, Solution, Solver

STEP = 0.02


@dataclass(frozen=True)
class Sleeper(Solver):
    """Takes STEP seconds an item and a step, and `before` at its beginning; converges after `needs` of them."""

    steps: int = 50
    needs: int = 50
    tolerance: float = 0.0
    before: float = 0.0

    name: ClassVar[str] = "sleeper"
    modalities: ClassVar[Any] = ("ct",)
    summary: ClassVar[str] = "sleeps"

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        monitor, x = Monitor(y, self.steps, on_step), torch.zeros(len(y.data), *A.in_shape)
        time.sleep(self.before)
        for _ in range(min(self.steps, self.needs)):
            time.sleep(STEP * len(y.data))
            if monitor.record(torch.ones(1)):
                break
        return monitor.solution(A, x, True)


def work(scan: Scan, solver: Solver, batch: int) -> Work:
    request = Request(batch=batch)
    return Work(Job.of(scan, solver, request), request, batch, {})


@pytest.fixture(autouse=True)
def _warm() -> None:
    """Load what the first batch of a process loads."""
    scan = ct()
    job = Job.of(scan, Sleeper(1, 1), Request())
    solve(job, slice(0, 1), 0, lambda p: None)


def close(found: float, expected: float) -> bool:
    return expected / 1.5 < found < 1.5 * expected


def test_a_batch_that_is_soon_done_tells_the_time_of_all() -> None:
    assert close(estimate(work(ct(), Sleeper(10, 10), 2)).seconds, 4 * 10 * STEP)


def test_a_long_batch_is_left_and_its_pace_carried_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a tolerance every step is taken."""

    @dataclass(frozen=True)
    class Fixed(Sleeper):
        tolerance: ClassVar[float] = 0.0  # type: ignore[misc]  # no setting

    monkeypatch.setattr(module, "ENOUGH", 10 * STEP)
    began = time.perf_counter()
    found = estimate(work(ct(), Fixed(steps=100, needs=100, before=10 * STEP), 2)).seconds
    assert time.perf_counter() - began < found / 3
    assert close(found, 2 * (10 * STEP + 2 * 100 * STEP))


def test_where_a_solver_converges_is_found_with_one_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it a solver that may take 1000 steps, and takes 40, is thought 25 times as slow."""
    monkeypatch.setattr(module, "ENOUGH", 10 * STEP)
    assert close(estimate(work(ct(), Sleeper(steps=1000, needs=40), 4)).seconds, 4 * 40 * STEP)


def test_workers_share_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    assert close(estimate(work(ct(), Sleeper(10, 10), 1), workers=2).seconds, 2 * 10 * STEP)
    one, two = (estimate(work(ct(), Sleeper(2, 2), 1), workers=n).memory for n in (1, 2))
    assert one > 1e8 and two >= 2 * one


def test_pace_tells_the_first_step_from_the_others() -> None:
    pace = Pace(limit=0.0, began=time.perf_counter() - 10)
    assert not pace(Progress(1, 9, 1.0))  # one step has no pace
    assert pace.first > 9
    assert pace(Progress(2, 9, 1.0))
    assert not pace(Progress(9, 9, 1.0)), "the last step ends by itself"
    pace.first, pace.latest, pace.step = 5.0, 8.0, 4
    assert pace.until(10) == 5.0 + 9 * 1.0
