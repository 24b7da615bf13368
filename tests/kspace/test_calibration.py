"""The fully sampled centre of a mask: its square, its rectangle, and where that lies."""

import pytest
import torch

from medrecon.kspace.calibration import calibration_region, calibration_size, calibration_width
from medrecon.sampling.lines import centre


def test_calibration_width() -> None:
    mask = torch.zeros(10, 12)
    mask[:, 4:9] = 1
    assert calibration_width(mask) == 5
    assert calibration_width(torch.ones(9, 12)) == 9
    assert calibration_width(1 - mask) == 0


@pytest.mark.parametrize("shape", [(30, 40), (31, 27), (24, 24)])
def test_calibration_size(shape: tuple[int, int]) -> None:
    lines = torch.zeros(shape)
    lines[:, centre(shape[1], 10)] = 1
    assert calibration_size(lines, 24) == (24, 10)
    assert calibration_size(lines) == calibration_size(lines, 50) == (shape[0], 10)
    assert calibration_size(lines.T, 24) == (10, 24)
    assert calibration_size(torch.ones(shape), 24) == (24, 24)
    assert calibration_size(1 - lines) == (0, 0)
    hole = torch.ones(shape)
    hole[shape[0] // 2 + 3, shape[1] // 2] = 0
    assert calibration_size(hole, 24) == (6, 24)


@pytest.mark.parametrize("shape", [(9, 12), (10, 11), (12, 8)])
def test_calibration_region(shape: tuple[int, int]) -> None:
    mask = torch.zeros(shape)
    assert mask[calibration_region(mask)].numel() == 0
    for rows, columns in ((3, 4), (5, 5), (6, 3), shape):
        box = centre(shape[0], rows), centre(shape[1], columns)
        mask = torch.zeros(shape)
        mask[box] = 1
        assert calibration_region(mask) == box
        mask[0] = 1  # lines elsewhere
        assert mask[calibration_region(mask)].all()
