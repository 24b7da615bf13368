"""An MR image at a lower resolution is the same function of the place, where its voxels can hold it."""

import math

import pytest
import torch

from medrecon.core.volume import Volume
from medrecon.simulate.resolution import lower_resolution


def waves(volume: Volume, field: tuple[float, float]) -> torch.Tensor:
    """3 + a few waves over a field of view (rows, columns) [mm], at the volume's own voxels, by their place in mm."""
    depth, height, width = volume.data.shape
    z, y, x = torch.meshgrid(*(torch.arange(n).double() for n in (depth, height, width)), indexing="ij")
    place = torch.stack([x, y, z, torch.ones_like(x)], -1) @ volume.affine.T
    down, right = -place[..., 1] / field[0], -place[..., 0] / field[1]
    turn = 2 * math.pi
    return 3 + torch.cos(turn * (2 * down + 0.1)) + torch.sin(turn * (3 * right - down)) + 0.2 * z


@pytest.mark.parametrize(("shape", "size"), [((24, 30), 16), ((25, 30), 15), ((24, 33), 15), ((25, 33), 16)])
def test_what_coarser_voxels_can_hold_is_there_at_its_place(shape: tuple[int, int], size: int) -> None:
    affine = torch.diag(torch.tensor([-2.0, -1.5, 4, 1]).double())
    affine[:3, 3] = torch.tensor([-7.0, 11, 3])
    field = (1.5 * shape[0], 2.0 * shape[1])
    volume = Volume(torch.zeros(2, *shape), affine, "a.u.", "MR")
    volume = volume.map(lambda d: waves(volume, field).float())
    low = lower_resolution(volume, size)
    assert low.data.shape == (2, size, round(shape[1] * size / shape[0]))
    spacing = torch.tensor(low.spacing) * torch.tensor([low.data.shape[2], low.data.shape[1], 1.0])
    torch.testing.assert_close(spacing, torch.tensor([field[1], field[0], 4.0]))
    torch.testing.assert_close(low.data, waves(low, field).float(), atol=1e-4, rtol=0)


def test_the_own_size_changes_nothing_and_others_are_refused() -> None:
    volume = Volume(torch.rand(1, 16, 16), torch.eye(4).double(), "a.u.", "MR")
    assert lower_resolution(volume, 16) is volume
    for size in (7, 17):
        with pytest.raises(ValueError, match=f"between 8 and the 16 rows of the image, got {size}"):
            lower_resolution(volume, size)
    with pytest.raises(ValueError, match="complex"):
        lower_resolution(Volume(torch.rand(1, 16, 16) + 0j, torch.eye(4).double(), "a.u.", "MR"), 8)
