"""Shard i of n: one process's share of the batches of a run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """Every `count`-th batch, from the `number`-th on, counted from 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def read(cls, text: str, environment: Mapping[str, str]) -> Shard:
        """Read "2/8", or "slurm": the place of this task in its array, as SLURM's variables tell it.

        Raises:
            ValueError: neither, or not within a SLURM array of step 1.
        """
        if text == "slurm":
            return cls._of_slurm(environment)
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"shard {text!r}: expected i/n with 1 <= i <= n, such as 2/8, or slurm")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def _of_slurm(cls, environment: Mapping[str, str]) -> Shard:
        names = [f"SLURM_ARRAY_TASK_{part}" for part in ("ID", "MIN", "COUNT", "STEP")]
        found = [environment.get(name, "1" if name.endswith("STEP") else "") for name in names]
        if lacking := [name for name, value in zip(names, found, strict=True) if not value.isdigit()]:
            raise ValueError(f"shard slurm: {lacking[0]} is not set; it is within an array of jobs, sbatch --array=1-8")
        task, first, count, step = map(int, found)
        number = (task - first) // step + 1
        if (task - first) % step or not 1 <= number <= count:
            raise ValueError(
                f"shard slurm: task {task} is not one of {count} from {first} in steps of {step}; give an array "
                "without gaps, or --shard i/n"
            )
        return cls(number, count)

    def of(self, batches: Iterable[slice]) -> list[slice]:
        """Return the batches of this shard."""
        return list(batches)[self.number - 1 :: self.count]

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"
