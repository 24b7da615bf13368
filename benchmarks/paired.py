"""Statistics over subjects: mean and deviation, paired differences, Wilcoxon's signed-rank test, Holm's correction.

Series of one subject are averaged first: they are no independent subjects.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


def subject_means(values: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return the mean of each subject, from (subject, value) of its series."""
    every: defaultdict[str, list[float]] = defaultdict(list)
    for subject, value in values:
        every[subject].append(value)
    return {subject: sum(known) / len(known) for subject, known in every.items()}


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the deviation of a sample, n - 1 in its denominator; NaN where there are too few values."""
    if not values:
        return math.nan, math.nan
    mean = sum(values) / len(values)
    squares = sum((v - mean) ** 2 for v in values)
    return mean, math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else math.nan


@dataclass(frozen=True)
class Paired:
    """One solver against another over the subjects that both were run on."""

    subjects: int
    difference: float
    """mean over subjects"""
    least: float
    """difference of the subject that loses most"""
    p: float
    """two-sided, Wilcoxon's signed-rank test; not below 2^(1-n) for n subjects"""


def paired(mine: dict[str, float], other: dict[str, float]) -> Paired:
    """Compare the means of subjects.

    Raises:
        ValueError: no subject in common.
    """
    from scipy.stats import wilcoxon

    differences = [mine[subject] - other[subject] for subject in sorted(mine.keys() & other.keys())]
    if not differences:
        raise ValueError("no subject in common: nothing to compare")
    p = float(wilcoxon(differences).pvalue) if any(differences) else 1.0
    return Paired(len(differences), sum(differences) / len(differences), min(differences), p)


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number (Holm 1979), so that all below 0.05 are right in 95 of 100 studies."""
    adjusted, highest = [0.0] * len(p), 0.0
    for place, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (len(p) - place) * p[i]))
        adjusted[i] = highest
    return adjusted
