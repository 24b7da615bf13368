"""A tensor on disk: every operation gives what the values themselves give, and slices read themselves alone."""

import math

import pytest
import torch

from medrecon.core.on_disk import OnDisk, each, largest, mapped


@pytest.fixture
def values(generator):
    return torch.randn(5, 3, 4, dtype=torch.complex64, generator=generator)


@pytest.fixture
def stored(values):
    """The tensor, and a list of what was read of it."""
    reads = []

    def read(start, stop):
        reads.append((start, stop))
        return values[start:stop].clone()

    return OnDisk.of(read, values.shape, values.dtype), reads


def test_shape_and_type_are_known_without_reading(values, stored):
    x, reads = stored
    assert (x.shape, x.dtype, len(x), x.ndim, x.numel()) == (values.shape, values.dtype, 5, 3, 60)
    assert x.is_complex() and "OnDisk" in repr(x) and not reads


@pytest.mark.parametrize("index", [slice(1, 3), slice(None, 2), slice(4, 9), slice(-2, None), slice(3, 2)])
def test_a_slice_reads_itself_alone(values, stored, index):
    x, reads = stored
    assert torch.equal(x[index], values[index]) and type(x[index]) is torch.Tensor
    start, stop, _ = index.indices(5)
    assert reads == [(start, max(start, stop))]  # once: what was read last is held


def test_items_and_iteration_read_one_by_one(values, stored):
    x, reads = stored
    assert torch.equal(x[-1], values[-1]) and all(map(torch.equal, x, values))
    assert [item.shape for item in each(x)] == [(1, 3, 4)] * 5
    assert all(stop - start == 1 for start, stop in reads)
    with pytest.raises(IndexError):
        x[5]


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.abs(),
        lambda x: x + 1,
        lambda x: x[:, 1],
        lambda x: x[::2],
        lambda x: x[torch.tensor([0, 4])],
        lambda x: torch.cat([x, x]),
        lambda x: torch.einsum("zij,zij->z", x, x.conj()),
        lambda x: x.real.amax((0, 1)),
        lambda x: torch.view_as_real(x),
        lambda x: torch.from_numpy(x.detach().cpu().numpy()),
    ],
)
def test_whatever_else_is_done_reads_all_and_is_right(values, stored, change):
    found = change(stored[0])
    assert torch.equal(found, change(values)) and type(found) is torch.Tensor


def test_the_largest_is_found_one_by_one_and_once(values, stored):
    x, reads = stored
    assert largest(x) == largest(x) == largest(values) == float(values.abs().max())
    assert reads == [(z, z + 1) for z in range(5)]
    assert largest(values[:0]) == 0
    values[1, 0, 0] = math.nan
    assert math.isnan(largest(values))


def test_a_change_is_made_of_what_is_read(values, stored):
    x, reads = stored
    some = mapped(x, lambda item: item[:, [0, 2]])
    assert some.shape == (5, 2, 4) and not reads
    assert torch.equal(some[1:3], values[1:3][:, [0, 2]]) and reads == [(1, 3)]
    assert torch.equal(mapped(values, torch.abs), values.abs())
