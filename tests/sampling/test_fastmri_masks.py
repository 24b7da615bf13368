"""fastMRI's masks, column for column: the expected ones come from a run of fastmri 0.3.0 (PyPI)."""

import numpy as np
import pytest
import torch

from medrecon.sampling import fastmri as fastmri_masks
from medrecon.sampling.fastmri import (
    EquispacedMaskFractionFunc,
    EquiSpacedMaskFunc,
    MagicMaskFractionFunc,
    MagicMaskFunc,
    MaskFunc,
    RandomMaskFunc,
)

pytestmark = pytest.mark.usefixtures("one_thread")

NAME = tuple(map(ord, "file1000001.h5"))
PUBLIC = [
    (
        "RandomMaskFunc",
        64,
        [0.08],
        [4],
        42,
        5,
        [4, 5, 6, 10, 14, 15, 21, 29, 30, 31, 32, 33, 34, 37, 40, 42, 49, 56, 58],
    ),
    ("RandomMaskFunc", 65, [0.08, 0.04], [4, 8], NAME, 3, [2, 4, 9, 22, 24, 31, 32, 33, 51, 55, 57, 60]),
    ("EquiSpacedMaskFunc", 65, [0.08, 0.04], [4, 8], 7, 3, [4, 12, 20, 28, 31, 32, 33, 36, 44, 52, 60]),
    (
        "EquispacedMaskFractionFunc",
        101,
        [0.08],
        [4],
        NAME,
        8,
        [3, 8, 14, 19, 25, 30, 35, 41, 46, 47, 48, 49, 50, 51, 52, 53, 54, 57, 62, 68, 73, 78, 84, 89, 95],
    ),
    ("EquispacedMaskFractionFunc", 64, [0.04], [8], 3, 3, [10, 22, 31, 32, 33, 34, 47, 59]),
    (
        "MagicMaskFunc",
        64,
        [0.08],
        [4],
        1,
        5,
        [3, 7, 11, 15, 19, 23, 27, 30, 31, 32, 33, 34, 35, 39, 43, 47, 51, 55, 59, 63],
    ),
    (
        "MagicMaskFunc",
        65,
        [0.08],
        [4],
        NAME,
        5,
        [1, 5, 9, 13, 17, 21, 25, 29, 30, 31, 32, 33, 34, 37, 41, 45, 49, 53, 57, 61],
    ),
    (
        "MagicMaskFractionFunc",
        101,
        [0.08],
        [4],
        5,
        8,
        [5, 11, 17, 23, 29, 35, 41, 47, 48, 49, 50, 51, 52, 53, 54, 55, 61, 67, 73, 79, 85, 91, 97],
    ),
    (
        "EquispacedMaskFractionFunc",
        368,
        [0.08, 0.04],
        [4, 8],
        NAME,
        15,
        [
            9,
            20,
            32,
            43,
            55,
            66,
            77,
            89,
            100,
            111,
            123,
            134,
            146,
            157,
            168,
            177,
            178,
            179,
            180,
            181,
            182,
            183,
            184,
            185,
            186,
            187,
            188,
            189,
            190,
            191,
            203,
            214,
            225,
            237,
            248,
            260,
            271,
            282,
            294,
            305,
            316,
            328,
            339,
            351,
            362,
        ],
    ),
    (
        "RandomMaskFunc",
        368,
        [0.08, 0.04],
        [4, 8],
        NAME,
        15,
        [
            2,
            4,
            9,
            22,
            24,
            51,
            55,
            57,
            60,
            66,
            74,
            82,
            106,
            108,
            133,
            147,
            149,
            153,
            164,
            170,
            177,
            178,
            179,
            180,
            181,
            182,
            183,
            184,
            185,
            186,
            187,
            188,
            189,
            190,
            191,
            192,
            208,
            213,
            233,
            274,
            296,
            309,
            318,
            327,
            328,
            343,
            361,
            362,
        ],
    ),
]
"""function, W, centre fractions, accelerations, seed, columns of the centre, acquired columns"""


def _columns(sampling: fastmri_masks.Sampling) -> list[int]:
    assert bool((sampling.mask == sampling.mask[:1]).all())
    found: list[int] = sampling.mask[0].nonzero()[:, 0].tolist()
    return found


@pytest.mark.parametrize(("name", "width", "fractions", "accelerations", "seed", "low", "expected"), PUBLIC)
def test_the_same_columns_for_the_same_seed(
    name: str, width: int, fractions: list[float], accelerations: list[float], seed: int, low: int, expected: list[int]
) -> None:
    sampling = getattr(fastmri_masks, name)(fractions, accelerations)((6, width), seed=seed)
    assert _columns(sampling) == expected
    assert sampling.acs == low and sampling.nominal in accelerations
    assert sampling.acceleration == pytest.approx(width / len(expected))
    assert sampling.seed == seed


def test_given_offsets_and_any_combination() -> None:
    expected = [2, 7, 13, 18, 23, 29, 30, 31, 32, 33, 34, 40, 45, 50, 56, 61]
    assert _columns(EquispacedMaskFractionFunc([0.08], [4])((2, 64), seed=0, offset=2)) == expected
    for offset in (0, 3):  # of an odd width these two are the same mask
        magic = MagicMaskFunc([0.08], [4])((2, 33), seed=0, offset=offset)
        assert _columns(magic) == [1, 5, 9, 13, 15, 16, 17, 21, 25, 29] and magic.offset == offset
    both = RandomMaskFunc([0.08, 0.04], [4, 8], allow_any_combination=True)((2, 64), seed=11)
    assert _columns(both) == [0, 5, 15, 27, 31, 32, 33, 39, 41, 43, 54, 55]


def test_the_reported_offset_makes_the_mask_again() -> None:
    for maker in (EquiSpacedMaskFunc, EquispacedMaskFractionFunc, MagicMaskFunc, MagicMaskFractionFunc):
        func = maker([0.06], [4])
        drawn = func((4, 101), seed=5)
        assert torch.equal(func((4, 101), seed=77, offset=drawn.offset).mask, drawn.mask)


@pytest.mark.parametrize(
    ("maker", "mean"), [(RandomMaskFunc, 4), (EquispacedMaskFractionFunc, 4), (MagicMaskFractionFunc, 4.3)]
)
def test_these_count_the_centre_in_r(maker: type[MaskFunc], mean: float) -> None:
    true = [maker([0.08], [4])((1, 368), seed=s).acceleration for s in range(60)]
    assert sum(true) / len(true) == pytest.approx(mean, rel=0.04)


@pytest.mark.parametrize("maker", [EquiSpacedMaskFunc, MagicMaskFunc])
def test_these_put_the_centre_on_top(maker: type[MaskFunc]) -> None:
    assert all(maker([0.08], [4])((1, 368), seed=s).acceleration < 3.4 for s in range(10))


def test_magic_columns_have_no_conjugate_partner() -> None:
    """What the shift of the halves is for: outside the centre the mirror image of an acquired column is not."""
    sampling = MagicMaskFunc([0.05], [4])((1, 100), seed=0)
    frequencies = {c - 50 for c in _columns(sampling)}
    low = sampling.acs // 2 + 1
    assert not {k for k in frequencies if abs(k) > low} & {-k for k in frequencies if abs(k) > low}
    lattice = {c - 50 for c in _columns(EquiSpacedMaskFunc([0.05], [4])((1, 100), seed=0, offset=2))}
    assert {k for k in lattice if abs(k) > low} & {-k for k in lattice if abs(k) > low}


def test_padding_columns_are_not_acquired() -> None:
    sampling = RandomMaskFunc([0.08], [4])((2, 64), seed=42).padded(10, 50)
    assert _columns(sampling) == [10, 14, 15, 21, 29, 30, 31, 32, 33, 34, 37, 40, 42, 49]
    assert sampling.acceleration == 40 / 14


def test_global_generators_stay() -> None:
    before, torch_before = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # noqa: NPY002
    RandomMaskFunc([0.08], [4])((1, 64), seed=3)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(torch_before, torch.random.get_rng_state())


def test_refusals() -> None:
    for fractions, accelerations, message in [
        ([], [], "at least one"),
        ([0.1], [4, 8], "give pairs"),
        ([1.5], [4], "fractions in"),
        ([0.1], [0.5], ">= 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            RandomMaskFunc(fractions, accelerations)
    for maker in (EquispacedMaskFractionFunc, MagicMaskFractionFunc):
        with pytest.raises(ValueError, match="lower the centre fraction"):
            maker([0.3], [4])((1, 64), seed=0)
    with pytest.raises(ValueError, match="whole number"):
        EquiSpacedMaskFunc([0.08], [2.5])((1, 64), seed=0)
    with pytest.raises(ValueError, match="has no offset"):
        RandomMaskFunc([0.08], [4])((1, 64), seed=0, offset=1)
    with pytest.raises(ValueError, match="offset must be"):
        EquiSpacedMaskFunc([0.08], [4])((1, 64), seed=0, offset=-1)
