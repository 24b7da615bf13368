"""k-space on a grid, and the crop that every k-space may have."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cartesian:
    """Describes k-space (H, W) on the grid of the image; the scan's mask tells which of it was measured.

    Attributes:
        crop: (h, w), the centre kept of the reconstruction, the rest being oversampling; None: all of it.
    """

    crop: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "crop", crop_of(self.crop))

    def check_data(self, shape: tuple[int, ...], image: tuple[int, ...]) -> None:
        """Raises ValueError where k-space (H, W) does not have the size of the image, or the crop does not fit in."""
        check_crop(self.crop, image)
        if shape != image:
            raise ValueError(f"image_shape: expected {shape} as in data, got {image}")


def crop_of(values: object) -> tuple[int, int] | None:
    """Return a crop as two integers.

    Raises:
        ValueError: neither two positive integers nor None.
    """
    if values is None:
        return None
    if not isinstance(values, tuple | list) or len(values) != 2 or any(type(n) is not int or n < 1 for n in values):
        raise ValueError(f"geometry/crop: expected rows and columns, got {values}")
    return values[0], values[1]


def check_crop(crop: tuple[int, int] | None, image: tuple[int, ...]) -> None:
    """Raises ValueError where a crop is larger than the image (H, W)."""
    if crop is not None and any(n > m for n, m in zip(crop, image, strict=True)):
        raise ValueError(f"geometry/crop: expected rows and columns within {image}, got {crop}")
