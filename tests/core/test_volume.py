"""Volumes: what is refused, voxel size, slices in their place."""

from typing import Any

import numpy as np
import pytest
import torch

from medrecon.core.volume import Volume

AFFINE = torch.tensor(
    [[0.0, -0.7, 0.0, 10.0], [0.5, 0.0, 0.0, -20.0], [0.0, 0.0, 3.0, 5.0], [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64
)


def make(**change: Any) -> Volume:
    entries: dict[str, Any] = {"data": torch.rand(4, 6, 5), "affine": AFFINE, "units": "HU", "modality": "CT"}
    return Volume(**(entries | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": torch.zeros(6, 5)}, r"\(Z, Y, X\), got shape \(6, 5\)"),
        ({"affine": AFFINE.float()}, "float64 4x4 affine, got torch.float32"),
        ({"affine": AFFINE[:3]}, r"float64 4x4 affine, got torch.float64 \(3, 4\)"),
        ({"affine": AFFINE.clone().fill_(float("nan"))}, "singular or not finite"),
        ({"affine": AFFINE * torch.tensor([1.0, 1.0, 0.0, 1.0])}, "singular or not finite"),
        ({"affine": AFFINE + torch.tensor([0, 0, 0, float("inf")])}, "singular or not finite"),
        ({"units": "kg"}, "unknown units 'kg'"),
        ({"modality": "PET"}, "modality 'PET'"),
    ],
)
def test_wrong_fields_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_voxels_and_slices_lie_where_the_affine_says() -> None:
    volume = make()
    assert volume.spacing == pytest.approx((0.5, 0.7, 3.0))
    part = volume.slices(1, 3)
    assert torch.equal(part.data, volume.data[1:3])
    voxel = torch.tensor([2.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(part.affine @ voxel, AFFINE @ (voxel + torch.tensor([0, 0, 1, 0])))
    assert torch.equal(volume.affine, AFFINE)
    doubled = volume.map(lambda data: 2 * data, units="a.u.")
    assert torch.equal(doubled.data, 2 * volume.data) and doubled.units == "a.u."
    with pytest.raises(ValueError, match="the grid"):
        volume.map(lambda data: data[1:])


def test_values_of_numpy_go_out_and_in() -> None:
    volume = make()
    assert np.array_equal(volume.numpy(), volume.data.numpy()) and np.array_equal(np.asarray(volume), volume.numpy())
    assert np.asarray(volume, dtype=np.float64).dtype == np.float64 and np.array(volume).shape == (4, 6, 5)
    copy = np.array(volume)
    copy[:] = 7
    assert not (volume.numpy() == 7).any()
    turned = make(data=torch.full((1, 2, 2), 1 + 2j).conj(), units="a.u.", modality="MR")
    assert (turned.numpy() == 1 - 2j).all()
    wanted = np.arange(120.0).reshape(4, 6, 5)
    other = volume.like(wanted)
    assert np.array_equal(other.numpy(), wanted) and other.units == "HU" and torch.equal(other.affine, AFFINE)
    wanted[:] = 0
    assert other.numpy().any()
    assert volume.slices(0, 1).like(np.ones((6, 5))).data.shape == (1, 6, 5)
    with pytest.raises(ValueError, match=r"Volume.like: expected values \(4, 6, 5\), got \(6, 5\)"):
        volume.like(np.ones((6, 5)))
