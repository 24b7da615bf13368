"""A sample of benchmarks/robustness/damaged_inputs.py: what is damaged is refused by name, or read right."""

from pathlib import Path

import pytest
from damage_targets import BAD, attempt, targets, whole

pytestmark = pytest.mark.usefixtures("one_thread")
SEEDS = range(1000, 1005)
FOUND = {
    "card": [46],
    "fastmri": [46],
    "htc2022": [29],
    "options": [40, 11],
    "table": [22],
    "training": [13],
    "twix": [0, 15],
}
"""Seeds of faults that the script found."""


@pytest.mark.parametrize("name", sorted(targets()))
def test_damaged_inputs(name: str, tmp_path: Path) -> None:
    target = targets()[name]
    (tmp_path / "whole").mkdir()
    original = whole(target, target.make(tmp_path / "whole"))
    assert whole(target, original.path).digest == original.digest
    for seed in (*SEEDS, *FOUND.get(name, ())):
        outcome = attempt(target, original, tmp_path / str(seed), seed)
        assert outcome.kind not in BAD, f"{name}:{seed} {outcome}"
