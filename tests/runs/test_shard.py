"""Shards part the batches, and SLURM's variables name them."""

import pytest

from medrecon.runs import Shard


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_every_batch_is_in_one_shard(count: int) -> None:
    batches = [slice(i, i + 2) for i in range(0, 26, 2)]
    parts = [Shard(number, count).of(batches) for number in range(1, count + 1)]
    assert sorted(b.start for part in parts for b in part) == [b.start for b in batches]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert Shard.read(f" {count}/{count}", {}) == Shard(count, count)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "", "1/2/3", "-1/2", "1.0/2"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected i/n with 1 <= i <= n, such as 2/8, or slurm"):
        Shard.read(text, {})


def slurm(**found: int) -> dict[str, str]:
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in found.items()}


def test_slurm_names_the_shard() -> None:
    assert Shard.read("slurm", slurm(ID=0, MIN=0, COUNT=4)) == Shard(1, 4)
    assert Shard.read("slurm", slurm(ID=8, MIN=1, COUNT=8)) == Shard(8, 8)
    assert [Shard.read("slurm", slurm(ID=i, MIN=3, COUNT=3, STEP=2)) for i in (3, 5, 7)] == [
        Shard(n, 3) for n in (1, 2, 3)
    ]
    for wrong in (slurm(ID=9, MIN=1, COUNT=3), slurm(ID=4, MIN=3, COUNT=3, STEP=2), slurm(ID=0, MIN=1, COUNT=3)):
        with pytest.raises(ValueError, match="an array without gaps"):
            Shard.read("slurm", wrong)
    for lacking in (slurm(), slurm(ID=1, MIN=1)):
        with pytest.raises(ValueError, match=r"SLURM_ARRAY_TASK_\w+ is not set; .*sbatch --array"):
            Shard.read("slurm", lacking)
