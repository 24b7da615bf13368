"""Which pixel is the middle of an image whose place the file does not tell: it follows from how the image is made."""

import pytest
import torch

from medrecon.geometry import ImageGrid
from medrecon.geometry.placement import isocentre_affine, moved, rotation_axis_affine
from medrecon.numerics.fourier import centred_ifft

SHAPES = pytest.mark.parametrize("shape", [(6, 8), (7, 9), (6, 9)])


@SHAPES
def test_mr_the_image_of_constant_k_space_is_a_point_in_the_middle_of_the_gradients(shape: tuple[int, int]) -> None:
    point = centred_ifft(torch.ones(shape, dtype=torch.complex64)).abs()
    row, column = divmod(int(point.argmax()), shape[1])
    affine = isocentre_affine(shape, (0.9, 1.25), 4.5, 3)
    place = affine @ torch.tensor([column, row, 1.0, 1.0], dtype=torch.float64)
    assert place.tolist() == [0, 0, 0, 1]
    further = affine @ torch.tensor([column + 1.0, row + 1.0, 2.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(further, torch.tensor([-1.25, -0.9, 4.5, 1.0], dtype=torch.float64))


@SHAPES
def test_ct_the_axis_is_in_the_middle_of_the_projectors_grid(shape: tuple[int, int]) -> None:
    """x to the right and y up on the grid are right and front of a patient shown like an axial slice."""
    x, y = ImageGrid(shape, (0.5, 0.5)).coordinates()
    affine = rotation_axis_affine(shape, 0.5, 1.0)
    for row in range(shape[0]):
        for column in range(shape[1]):
            place = affine @ torch.tensor([column, row, 0.0, 1.0], dtype=torch.float64)
            assert place.tolist() == pytest.approx([-x[column], y[row], 0, 1])


def test_without_the_first_slices() -> None:
    affine = isocentre_affine((4, 4), (1.0, 1.0), 3.0, 5)
    later = moved(affine, 2)
    point = torch.tensor([1.0, 2.0, 0.0, 1.0], dtype=torch.float64)
    assert torch.equal(later @ point, affine @ torch.tensor([1.0, 2.0, 2.0, 1.0], dtype=torch.float64))
