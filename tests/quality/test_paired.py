"""benchmarks/paired.py: statistics whose answers are known."""

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest


def script() -> ModuleType:
    """The file, which is in no package."""
    place = Path(__file__).parents[2] / "benchmarks" / "paired.py"
    spec = importlib.util.spec_from_file_location("paired", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["paired"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


STATISTICS = script()


def test_a_subject_of_many_series_counts_once() -> None:
    means = STATISTICS.subject_means([("a", 1.0), ("b", 10.0), ("b", 20.0), ("b", 30.0)])
    assert means == {"a": 1.0, "b": 20.0}
    assert STATISTICS.mean_and_deviation(list(means.values())) == pytest.approx((10.5, math.sqrt(180.5)))


def test_one_subject_has_no_deviation() -> None:
    mean, deviation = STATISTICS.mean_and_deviation([3.0])
    assert mean == 3.0 and math.isnan(deviation)


def test_the_signed_rank_test_counts_signs_and_ranks() -> None:
    # Of 2^5 signs of the ranks 1 to 5, two sums of the negative ones are at most 1: {} and {1}; two sides.
    mine, other = {s: 1.0 * k for k, s in enumerate("abcde")}, {s: 1.0 * k for k, s in enumerate("abcde")}
    gains = {"a": -0.1, "b": 0.2, "c": 0.3, "d": 0.4, "e": 0.5}
    found = STATISTICS.paired({s: mine[s] + gains[s] for s in mine}, other | {"f": 9.0})
    assert (found.subjects, found.p) == (5, pytest.approx(4 / 32))
    assert (found.difference, found.least) == (pytest.approx(0.26), pytest.approx(-0.1))


@pytest.mark.parametrize("n", [3, 11])
def test_all_subjects_on_one_side_have_the_least_p(n: int) -> None:
    zero = {str(k): 0.0 for k in range(n)}
    assert STATISTICS.paired({s: 1.0 + int(s) for s in zero}, zero).p == pytest.approx(2.0 ** (1 - n))
    assert STATISTICS.paired(zero, zero).p == 1.0


def test_subjects_of_one_side_alone_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="no subject in common"):
        STATISTICS.paired({"a": 1.0}, {"b": 1.0})


def test_holm_is_that_of_its_paper() -> None:
    # 0.01 * 4, 0.02 * 3, then 0.03 * 2 = 0.06 not below the one before, 0.04 * 1 raised to it.
    assert STATISTICS.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert STATISTICS.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert STATISTICS.holm([0.001, 0.8, 0.01]) == pytest.approx([0.003, 0.8, 0.02])
